"""Private data and secrets in a text: found by shape, then proven by check digits, length or randomness.

A number alone says little: an order number may look like a card, a date like a phone number. So each kind has to prove
itself: cards by issuer, length, grouping and Luhn's check digit (ISO/IEC 7812-1); IBANs by the country's length and
check digits (ISO 13616, ISO 7064 MOD 97-10); phones by an international prefix or by the way a country groups its
numbers; keys by the prefix of their issuer, by the name of a secret before them, or by their randomness.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

KINDS: dict[str, str] = {
    "pii-email": "an e-mail address",
    "pii-phone": "a phone number",
    "pii-iban": "a bank account number (IBAN)",
    "pii-card": "what looks like a payment card number",
    "secret": "what looks like a password, key or access token",
}
"""Code of the finding: what a row holds, in words."""

# One sign before the @ is enough to know, and spares going back over long words.
_EMAIL = re.compile(r"[\w+-]@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])")

# --- numbers ---

_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_FEWEST_IN_IBAN, _FEWEST_IN_PHONE = 2, 7
_RUN = re.compile(r"(?<![\w.,+])(?<!\d[-/:])(?:\+|\()?\d[\d ()./-]{5,24}\d(?![\w]|[-./,:]\d)")
_GROUPS = re.compile(r"\d+")
_DATE = re.compile(r"(?:(?:19|20)\d\d([-./])[01]?\d\1[0-3]?\d|[0-3]?\d([-./])[0-3]?\d\2(?:19|20)?\d\d)(?![-./]?\d)")
_CARD = re.compile(
    r"(?<![\w.,+-])[2-6]\d{3}(?:([ -]?)\d{4}\1\d{4}\1\d{4}(?:\d{1,3})?|([ -]?)\d{6}\2\d{4,5})(?![\w]|[-.,]\d)"
)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-59]|[689]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)
_NUMBERED = re.compile(
    r"(?i)\b(?:orders?|tracking|invoice|reference|ref|ticket|case|serial|isbn|ean|part|item|article|parcel|shipment"
    r"|confirmation|booking)(?:[\s.:#]|\b(?:number|no|nr|id|code|is|was))*$"
)
_CARD_CUE = re.compile(r"(?i)\b(?:card|visa|mastercard|amex|debit|credit)\b")
_PHONE_CUE = re.compile(
    r"(?i)\b(?:call|phone|phoned|tel|telephone|mobile|cell|text|txt|sms|whatsapp|fax|ring|hotline|dial|reach)\b[^\n\d]{0,24}$"
)
_MONEY = re.compile(r"(?i)[$€£¥]\s?$|\b(?:usd|eur|gbp|rs|inr)\.?\s?$")
_MONEY_BEHIND = re.compile(r"(?i)\s?(?:[$€£¥%]|usd\b|eur\b|gbp\b|euros?\b|dollars?\b|pounds?\b|people\b|million\b)")
# Digits per group of national numbers that do not begin with a zero, and the first digits that they have.
_SHAPES: dict[tuple[int, ...], str] = {
    (3, 3, 4): "23456789",
    (1, 3, 3, 4): "1",
    (3, 3, 3): "56789",
    (2, 5, 4): "123456789",
    (2, 4, 4): "123456789",
}

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d ?[A-Za-z0-9]{4}[A-Za-z0-9 ]{3,34}")
# Length of an IBAN by country (ISO 13616 registry).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL OM SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

# --- secrets ---

_KEY_STARTS = (
    "AKIA", "ASIA", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "sk-", "xox", "sk_", "rk_", "AIza",
    "SG.", "npm_", "hf_", "pypi-", "eyJ", ":AA", "-----BEGIN", "ya29.", "dop_v1_", "shpat_", "lin_api_", "EAAC",
)  # fmt: skip
_SHORTEST_KEY = 20
_SECRET_NAMES = ("key", "secret", "token", "passw", "pwd", "credential", "bearer", "://")
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z2-7]{16}|gh[posur]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}|glpat-[\w-]{20}"
    r"|sk-(?:proj-|ant-[a-z0-9]+-|svcacct-)?[\w-]{32,}|xox[abeoprs]-[\w-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{20,}"
    r"|AIza[\w-]{35}|SG\.[\w-]{16,32}\.[\w-]{30,}|npm_[A-Za-z0-9]{36}|hf_[A-Za-z]{30,}|pypi-[\w-]{50,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|\d{8,10}:AA[\w-]{32,}|ya29\.[\w-]{30,}|dop_v1_[a-f0-9]{64}"
    r"|shpat_[a-f0-9]{32}|lin_api_[A-Za-z0-9]{40}|EAAC[A-Za-z0-9]{60,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_NAMED = re.compile(
    r"(?i)(?:api[_ -]?key|secret|token|passw(?:or)?d|passwd|pwd|access[_-]?key|credential)[\w-]{0,20}[\"']?"
    r"\s{0,3}(?:[:=]|=>)\s{0,3}[\"']?([^\s\"'<>]{8,200})|\bbearer\s([\w.~+/-]{20,})|://[^\s/:@]{1,64}:([^\s/@]{6,64})@"
)
_RANDOM = re.compile(r"(?<![A-Za-z0-9+/_=.,#%&?-])[A-Za-z0-9+/_-]{32,200}={0,2}(?![\w+/=.-]|\.\w)")


def private_kinds(text: str) -> tuple[str, ...]:
    """The codes of `KINDS` that hold for a text, in their order. No sign counts for two of them."""
    found = set()
    if has_secret(text):
        found.add("secret")
        text = _NAMED.sub(" ", _KEY.sub(" ", text))
    if has_email(text):
        found.add("pii-email")
    digits = len(text.encode("utf-8", "surrogatepass").translate(None, _NO_DIGITS))
    if digits >= _FEWEST_IN_IBAN:
        text = _take(text, "pii-iban", [_iban_span(match) for match in _IBAN.finditer(text)], found)
    if digits >= _FEWEST_IN_PHONE:
        text = _take(text, "pii-card", [_card_span(text, match) for match in _CARD.finditer(text)], found)
        if has_phone(text):
            found.add("pii-phone")
    return tuple(code for code in KINDS if code in found)


def _take(text: str, code: str, spans: Sequence[tuple[int, int] | None], found: set[str]) -> str:
    """The text without the places of `code`, which is added to `found` if there is one."""
    for span in reversed(spans):
        if span is not None:
            found.add(code)
            text = f"{text[: span[0]]} {text[span[1] :]}"
    return text


def has_email(text: str) -> bool:
    """Whether a text holds an e-mail address; user and password in front of a host are none."""
    if "@" not in text:
        return False
    return any("://" not in text[max(0, m.start() - 100) : m.start()].rpartition(" ")[2] for m in _EMAIL.finditer(text))


def has_phone(text: str) -> bool:
    """Whether a text holds a phone number: international, grouped as a country does it, or announced as one."""
    return any(_is_phone(text, match) for match in _RUN.finditer(text))


def _is_phone(text: str, match: re.Match[str]) -> bool:
    number = match.group()
    digits = sum(map(str.isdigit, number))
    if not 7 <= digits <= 15 or _DATE.match(number) or not number.isascii():
        return False
    before = text[max(0, match.start() - 40) : match.start()]
    if _NUMBERED.search(before) or _MONEY.search(before) or _MONEY_BEHIND.match(text, match.end()):
        return False
    if text[match.end() : match.end() + 2].lstrip().startswith("="):  # 500-200-150=150
        return False
    groups = [group for group in _GROUPS.findall(number) if group != "0"]
    sizes = tuple(map(len, groups))
    if sizes.count(1) > 1:
        return False
    if number[0] == "+":
        return digits >= 8
    if groups[0].startswith("00"):
        return digits >= 10
    if groups[0].startswith("0"):
        return 9 <= digits <= 12 and not (number.count(".") and len(groups) < 5)
    if groups[0][0] in _SHAPES.get(sizes, ""):
        # Spaces or dots every three digits are thousands, unless the number is announced.
        return sizes != (3, 3, 3) or " " in number
    return digits <= 12 and len(groups) <= 4 and _PHONE_CUE.search(before) is not None


def has_iban(text: str) -> bool:
    """Whether a text holds an IBAN: known country, its length, right check digits; groups of four or none."""
    return any(_iban_span(match) for match in _IBAN.finditer(text))


def _iban_span(match: re.Match[str]) -> tuple[int, int] | None:
    """Where the IBAN is that begins with `match`, if it is one."""
    found = match.group()
    length = _IBAN_LENGTHS.get(found[:2].upper(), 0)
    if not length:
        return None
    for number, rest in (_ungrouped(found, length), (found[:length], found[length:])):
        if number.isalnum() and len(number) == length and not rest[:1].isalnum():
            rearranged = number[4:] + number[:4]
            if int("".join(str(int(sign, 36)) for sign in rearranged)) % 97 == 1:
                return match.start(), match.end() - len(rest)
    return None


def _ungrouped(found: str, length: int) -> tuple[str, str]:
    """(number without the spaces of groups of four, what follows it)."""
    written = length + (length - 1) // 4
    number, rest = found[:written], found[written:]
    pieces = [number[start : start + 5] for start in range(0, len(number), 5)]
    grouped = all(piece[4:] in ("", " ") for piece in pieces)
    return ("".join(piece[:4] for piece in pieces) if grouped else "", rest)


def has_card(text: str) -> bool:
    """Whether a text holds the number of a payment card: issuer, length, grouping and check digit are right."""
    return any(_card_span(text, match) for match in _CARD.finditer(text))


def _card_span(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    digits = match.group().replace(" ", "").replace("-", "")
    if not (_ISSUERS.fullmatch(digits) and luhn(digits)):
        return None
    before = text[max(0, match.start() - 40) : match.start()]
    return None if _NUMBERED.search(before) and not _CARD_CUE.search(before) else match.span()


def luhn(digits: str) -> bool:
    """The check digit test of ISO/IEC 7812-1."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def has_secret(text: str) -> bool:
    """Whether a text holds a password, key or token: an issuer's shape, a named secret, or a random string."""
    if max(map(len, text.split()), default=0) >= _SHORTEST_KEY or "-----BEGIN" in text:
        if any(start in text for start in _KEY_STARTS) and _KEY.search(text):
            return True
        if any(_is_random_key(match.group()) for match in _RANDOM.finditer(text)):
            return True
    lower = text.lower()
    if not any(name in lower for name in _SECRET_NAMES):
        return False
    return any(match[3] or _is_random(match[1] or match[2]) for match in _NAMED.finditer(text))


def _is_random(value: str) -> bool:
    """Letters and digits mixed, or small letters and capitals, as no word of a sentence is."""
    value = value.rstrip(".,;)")
    digits, letters = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    cases = any(map(str.islower, value)) and any(map(str.isupper, value[1:]))
    return len(value) >= 8 and letters and ((digits and _entropy(value) >= 2.7) or (cases and _entropy(value) >= 3.5))


def _is_random_key(value: str) -> bool:
    """Small letters, capitals and digits well mixed, as no word, path, hash or file name is."""
    classes = ["d" if s.isdigit() else "u" if s.isupper() else "l" if s.islower() else "" for s in value]
    counts = Counter(classes)
    if counts["d"] < 2 or min(counts["u"], counts["l"]) < 3:
        return False
    changes = sum(one != other for one, other in pairwise(classes))
    return changes >= 0.35 * len(value) and _entropy(value) >= 4.0


def _entropy(value: str) -> float:
    """Bits a sign, by the frequencies within the value."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
