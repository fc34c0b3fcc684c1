"""Near duplicates, near leaks, doubtful labels, odd answers and languages: found where planted, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from data.test_audit_findings import audited, clean_rows, lines, only, row
from tuneworth.data import Example, Ruler, audit
from tuneworth.data.answers import is_boilerplate, is_cut_off
from tuneworth.data.languages import language_of
from tuneworth.data.near import similarities
from tuneworth.data.plain import features_of, scores_without_own
from tuneworth.data.sketches import HASHES, candidates, signatures_of

QUESTION = "could you please tell me when the parcel that i ordered last week will arrive at my house"


def test_rows_that_nearly_repeat_another_are_named_and_leaks_apart_from_them():
    train = [*clean_rows(60), row(70, QUESTION), row(71, QUESTION.replace("parcel", "packet") + " please")]
    test = [*clean_rows(30, "t"), row(80, "So " + QUESTION.replace("house", "home"), file="t")]
    found = audited(train, test=test)
    assert lines(only(found, "duplicate-near")) == [71]
    assert lines(only(found, "leak-near")) == [80]
    assert found.count("duplicate-exact") == found.count("leak-exact") == 0


def test_texts_that_differ_in_their_numbers_only_are_different_questions():
    long = "tom buys {} apples for {} dollars each and gives {} of them to anna, how many does he have left"
    train = [*clean_rows(60), *(row(100 + n, long.format(n, n + 3, n - 2)) for n in range(4, 30))]
    assert audited(train).count("duplicate-near") == 0


def test_short_texts_are_not_compared():
    train = [*clean_rows(60), row(70, "turn on the light"), row(71, "turn off the light")]
    assert audited(train).count("duplicate-near") == 0


def test_a_row_that_is_equal_to_one_and_near_to_another_is_a_leak_once():
    train = [*clean_rows(60), row(70, QUESTION), row(71, QUESTION.replace("parcel", "packet"))]
    found = audited(train, test=[row(80, QUESTION, file="t")])
    assert lines(only(found, "leak-exact")) == [80]
    assert found.count("leak-near") == 0


def test_nearly_equal_inputs_with_different_labels_are_named_in_pairs():
    train = [*clean_rows(60), row(70, QUESTION, "a"), row(71, QUESTION.replace("parcel", "parcels"), "b")]
    finding = only(audited(train), "contradiction-near")
    assert (finding.count, lines(finding)) == (1, [70, 71])
    assert audited(train, kind="generation").count("contradiction-near") == 0


def test_signatures_are_equal_for_equal_texts_whatever_stands_around_them():
    alone = signatures_of([QUESTION])
    among = signatures_of(["another text that is long enough", QUESTION, "", "x"])
    assert (alone[0] == among[1]).all()
    assert among[1].any()
    assert not among[2:].any()
    assert signatures_of([]).shape == (0, HASHES)


def test_agreement_of_signatures_is_the_share_of_common_runs():
    random = Random(1)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(400)]
    one, other = " ".join(words[:300]), " ".join(words[100:])
    runs = [{f"  {t}  "[i : i + 4] for i in range(len(t) + 1)} for t in (one, other)]
    jaccard = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    signatures = signatures_of([one, other])
    assert np.mean(signatures[0] == signatures[1]) == pytest.approx(jaccard, abs=0.15)


def test_candidates_hold_each_pair_once_with_the_earlier_row_first():
    texts = [QUESTION, "a text about something else entirely", QUESTION + " please", "now " + QUESTION]
    pairs = candidates(signatures_of(texts))
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    assert {(0, 2), (0, 3)} <= {tuple(pair) for pair in pairs.tolist()}
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_similarity_counts_letters():
    ones, others = ["abcdefghij"] * 2 + ["page 12"], ["abcdefghix", "abcdefgxxx", "page 13"]
    # The second is below the limit, in the third nothing but the number differs.
    assert similarities(ones, others) == pytest.approx([0.9, 0, 0])


def planted_flips(rows: int, flipped: int) -> tuple[list[Example], set[int]]:
    examples = clean_rows(rows)
    wrong = set(Random(0).sample(range(1, rows + 1), flipped))
    swap = {"a": "b", "b": "a"}
    return [row(e.line, e.text, swap[e.answer] if e.line in wrong else e.answer) for e in examples], wrong


def test_wrong_labels_are_named_the_most_doubtful_first():
    examples, wrong = planted_flips(300, 15)
    finding = only(audited(examples), "label-doubtful")
    assert set(lines(finding)) == wrong
    assert finding.severity == "warn"
    assert audited(clean_rows(300)).count("label-doubtful") == 0


def test_labels_that_do_not_follow_from_texts_are_not_called_wrong():
    examples = clean_rows(300)
    answers = [example.answer for example in examples]
    Random(1).shuffle(answers)
    shuffled = [row(e.line, e.text, answer) for e, answer in zip(examples, answers, strict=True)]
    assert audited(shuffled).count("label-doubtful") == 0


def test_a_label_gives_no_evidence_for_itself():
    texts = [example.text for example in clean_rows(200)]
    labels = np.arange(200) % 3
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 3
    features = features_of(texts)
    before, after = scores_without_own(features, labels), scores_without_own(features, changed)
    assert after[7] == pytest.approx(before[7], abs=1e-4)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        ("The parcel leaves our house on Monday and will arrive at the", True),
        ("The parcel leaves our house on Monday and will arrive,", True),
        ('{"name": "Anna", "street": "Long Road 5", "city": "Lon', True),
        ("Here is the code that you asked for:\n```python\nprint(1)\n", True),
        ("The parcel leaves our house on Monday and will arrive soon.", False),
        ("The parcel leaves our house on Monday and will arrive soon", False),
        ("the", False),
    ],
)
def test_answers_that_stop_in_the_middle_are_recognised(answer, cut):
    assert is_cut_off(answer) is cut


@pytest.mark.parametrize(
    ("answer", "boilerplate"),
    [
        ("As an AI language model, I do not have feelings.", True),
        ("I'm sorry, but I can't help with that.", True),
        ("TODO", True),
        ("Dear [Your Name], thank you", True),
        ("I am sorry for your loss.", False),
        ("Sorry, we are closed on Sundays.", False),
        ("The test is on Monday.", False),
    ],
)
def test_refusals_and_placeholders_are_recognised(answer, boilerplate):
    assert is_boilerplate(answer) is boilerplate


def test_one_answer_to_everything_is_an_error_and_a_frequent_one_a_note():
    same = [row(e.line, e.text, "Thank you for your message.") for e in clean_rows(100)]
    assert only(audited(same, kind="generation"), "constant-answer").severity == "error"
    assert audited(same, kind="classification").answers["quality"].status == "fail"
    mixed = [*same[:40], *(row(e.line, e.text, f"{e.text} indeed.") for e in clean_rows(100)[40:])]
    finding = only(audited(mixed, kind="generation"), "repeated-answer")
    assert (finding.count, finding.severity, len(finding.rows)) == (1, "warn", 40)


def test_rows_in_another_language_are_named():
    german = row(500, "Wann kommt mein Paket endlich an, das ich letzte Woche bestellt habe?")
    finding = only(audited([*clean_rows(100), german]), "language-mix")
    assert lines(finding) == [500]
    assert "not in English" in finding.message
    assert "German" in finding.message
    assert language_of("ok") is None


def test_control_strings_of_the_chosen_model_are_found_in_texts():
    train = [*clean_rows(60), row(70, "please write <<END>> at the end")]
    assert audited(train).count("special-token") == 0
    found = audit(
        train, [], [], kind="generation", ruler=Ruler(lambda examples: [1] * len(examples), 100, ("<<END>>",))
    )
    assert lines(only(found, "special-token")) == [70]


def test_only_rows_whose_bytes_leave_it_open_are_counted_in_tokens_when_there_are_many(monkeypatch):
    monkeypatch.setattr(sys.modules["tuneworth.data.audit"], "TOKENS_SAMPLED", 10)
    counted: list[int] = []

    def count_tokens(examples: Sequence[Example]) -> list[int]:
        counted.extend(example.line for example in examples)
        return [len(example.text) for example in examples]

    train = [*clean_rows(200), row(300, "long " * 200)]
    found = audit(train, [], [], kind="generation", ruler=Ruler(count_tokens, 600))
    assert lines(only(found, "too-long")) == [300]
    assert len(counted) <= 11
    assert found.tokens is not None
    assert found.tokens["rows"] == 10
