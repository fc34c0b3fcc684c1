"""Which language a text is in, when that is sure; for the check that a data set does not mix languages unawares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

SURE = 0.9
SHORTEST = 20
"""Characters; shorter texts are not judged."""
_READ = 1000  # characters of a text that are looked at
# Languages that are told apart only in writing that few use, and signs of nothing: not a mixture worth telling.
_SAME = {"wuu": "zh", "yue": "zh", "nan": "zh", "nn": "no", "nb": "no", "pcm": "en", "sco": "en", "zxx": "", "und": ""}
_NAMES = {
    "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> str | None:
    """The code of the text's language (ISO 639), None when the text is short or the language unsure."""
    if len(text) < SHORTEST:
        return None
    code, probability = _identifier().classify(text[:_READ])
    return _SAME.get(code, code) or None if probability >= SURE else None


def language_name(code: str) -> str:
    """`German` for `de`."""
    return _NAMES.get(code, f"'{code}'")


def main_language(codes: Sequence[str | None]) -> str | None:
    """The language of most texts."""
    counts = Counter(code for code in codes if code)
    return counts.most_common(1)[0][0] if counts else None
