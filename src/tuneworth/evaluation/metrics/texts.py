"""Free text: ROUGE by rouge-score, BLEU and chrF by sacrebleu, each against the reference that fits best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.labels import spaced
from tuneworth.evaluation.metrics.metric import Kit, Value
from tuneworth.evaluation.records import Answer, RawAnswer

_ROUGE = ("rouge1", "rouge2", "rougeL")
_rouge = RougeScorer(list(_ROUGE), use_stemmer=False)
_sentence_bleu = BLEU(effective_order=True)
_corpus_bleu = BLEU()
_chrf = CHRF()


def exact_match(text: str, wanted: str) -> float:
    """1 when both are equal after NFC and folding of white space, else 0."""
    return float(spaced(text) == spaced(wanted))


def rouge_l(text: str, wanted: str) -> float:
    """ROUGE-L F-measure (Lin 2004) as computed by rouge-score."""
    return _rouges(text, wanted)[2]


def bleu(text: str, wanted: str) -> float:
    """BLEU (Papineni et al. 2002) of one sentence by sacrebleu, with effective order, over 100."""
    return min(1.0, float(_sentence_bleu.sentence_score(text, [wanted]).score) / 100)


def chrf(text: str, wanted: str) -> float:
    """chrF2 (Popovic 2015) of one sentence by sacrebleu, over 100."""
    return min(1.0, float(_chrf.sentence_score(text, [wanted]).score) / 100)


def text_kit() -> Kit:
    """Reading and measuring free text. The main metric is ROUGE-L: it needs no settings, lies in 0..1 for each row, and
    follows the order of words, so it suits summaries and rewriting; translations are better judged by chrf."""
    values: dict[str, Value] = {
        "rouge-l": _best(rouge_l),
        "rouge-1": _best(lambda text, wanted: _rouges(text, wanted)[0]),
        "rouge-2": _best(lambda text, wanted: _rouges(text, wanted)[1]),
        "bleu": _best(bleu),
        "chrf": _best(chrf),
        "exact-match": _best(exact_match),
    }
    return Kit(read_text, values, text_totals, lambda example: example.answer)


def read_text(example: Example, answer: RawAnswer) -> str | None:
    """Any text is an answer, but for an empty one."""
    return answer.text.strip() or None


def references_of(example: Example) -> tuple[str, ...]:
    """The wanted answers, all equally good."""
    return (example.answer, *example.references)


def text_totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    """ROUGE as means over rows (of each row the best reference); BLEU and chrF of the whole corpus against all
    references; words written over words of the reference nearest in length. An empty answer counts with zero."""
    references = [references_of(example) for example in examples]
    texts = [answer.raw.strip() for answer in answers]
    rouge = [
        [max(_rouges(text, wanted)[which] for wanted in known) for which in range(len(_ROUGE))]
        for text, known in zip(texts, references, strict=True)
    ]
    most = max(map(len, references))
    # sacrebleu takes streams of references: where a row has fewer, its first stands again, which changes nothing.
    streams = [[known[min(n, len(known) - 1)] for known in references] for n in range(most)]
    lengths = [_nearest_length(text, known) for text, known in zip(texts, references, strict=True)]
    return {
        **{
            name: sum(row[which] for row in rouge) / len(rouge)
            for which, name in enumerate(("rouge_1", "rouge_2", "rouge_l"))
        },
        "bleu": float(_corpus_bleu.corpus_score(texts, streams).score) / 100,
        "chrf": float(_chrf.corpus_score(texts, streams).score) / 100,
        "exact_match": sum(
            max(exact_match(text, wanted) for wanted in known) for text, known in zip(texts, references, strict=True)
        )
        / len(texts),
        "length_ratio": sum(len(text.split()) for text in texts) / max(1, sum(lengths)),
        "references_per_row": sum(map(len, references)) / len(references),
    }


def _best(measure: Callable[[str, str], float]) -> Value:
    def value(example: Example, answer: RawAnswer, parsed: str | None) -> float:
        return 0.0 if parsed is None else max(measure(answer.text, wanted) for wanted in references_of(example))

    return value


@functools.lru_cache(maxsize=8192)
def _rouges(text: str, wanted: str) -> tuple[float, float, float]:
    found = _rouge.score(wanted, text)
    first, second, third = (float(found[name].fmeasure) for name in _ROUGE)
    return first, second, third


def _nearest_length(text: str, references: Sequence[str]) -> int:
    words = len(text.split())
    return min((len(wanted.split()) for wanted in references), key=lambda count: (abs(count - words), count))
