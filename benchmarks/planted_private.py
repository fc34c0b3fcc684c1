"""Private values and their look-alikes, made from public formats only, for the planted-fault benchmark of the audit.

Nothing here comes from the detectors in `tuneworth.data`; do not adjust one to the other. Sources: the IBAN registry's
structures (ISO 13616, check digits by ISO 7064), issuer ranges and check digits of payment cards (ISO/IEC 7812), the
national numbering plans as people write them, and the shapes of keys as their issuers document them. Every value is
drawn at random; none belongs to anybody except by chance.
"""

from __future__ import annotations

import base64
import string
import uuid
from collections.abc import Callable
from random import Random

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALPHANUMERIC = UPPER + LOWER + DIGITS
HEX = "0123456789abcdef"

# Country: structure of the account part; n = digit, a = capital letter, c = capital letter or digit.
IBAN_STRUCTURES = {
    "AD": "8n12c", "AE": "19n", "AT": "16n", "BE": "12n", "BG": "4a6n8c", "BR": "23n1a1c", "CH": "5n12c", "CY": "8n16c",
    "CZ": "20n", "DE": "18n", "DK": "14n", "EE": "16n", "ES": "20n", "FI": "14n", "FR": "10n11c2n", "GB": "4a14n",
    "GR": "7n16c", "HR": "17n", "HU": "24n", "IE": "4a14n", "IL": "19n", "IS": "22n", "IT": "1a10n12c", "LI": "5n12c",
    "LT": "16n", "LU": "3n13c", "LV": "4a13c", "MC": "10n11c2n", "MT": "4a5n18c", "NL": "4a10n", "NO": "11n",
    "PL": "24n", "PT": "21n", "RO": "4a16c", "SA": "2n18c", "SE": "20n", "SI": "15n", "SK": "20n", "TR": "6n16c",
    "UA": "6n19c",
}  # fmt: skip

# Brand: first digits, number of digits, how the number is grouped on the card.
CARDS = {
    "visa": (("4",), 16, (4, 4, 4, 4)),
    "mastercard": (("51", "52", "53", "54", "55", "2221", "2345", "2720"), 16, (4, 4, 4, 4)),
    "amex": (("34", "37"), 15, (4, 6, 5)),
    "diners": (("300", "305", "36", "38"), 14, (4, 6, 4)),
    "discover": (("6011", "644", "65"), 16, (4, 4, 4, 4)),
    "jcb": (("3528", "3589"), 16, (4, 4, 4, 4)),
    "unionpay": (("62",), 16, (4, 4, 4, 4)),
}

# # is any digit, @ a digit from 2 to 9.
PHONES = (
    "+1 @## @## ####", "(@##) @##-####", "@##-@##-####", "+1-@##-@##-####", "1-800-@##-####", "@##.@##.####",
    "+44 20 7@## ####", "+44 7@## ######", "07@## ######", "020 7@## ####", "0161 @## ####", "07@########",
    "+49 30 @#######", "+49 151 @#######", "0151 @#######", "030 / @######", "089/@######", "+49 (0)89 @#######",
    "+33 6 ## ## ## ##", "06 ## ## ## ##", "01.@#.##.##.##", "+34 6## ### ###", "6## ### ###", "+39 347 ### ####",
    "+31 6 @#######", "06-@#######", "+41 79 ### ## ##", "079 ### ## ##", "0041 44 ### ## ##", "+43 664 @######",
    "+46 70 ### ## ##", "070-### ## ##", "+48 5## ### ###", "+91 98### #####", "+55 11 9####-####", "(11) 9####-####",
    "+61 4## ### ###", "04## ### ###", "+81 90-####-####", "090-####-####", "+86 138 #### ####", "+353 87 ### ####",
    "+4915@########", "+336########", "+1@##@######", "+27 82 ### ####", "+65 9### ####", "+972 54-###-####",
)  # fmt: skip

FIRST_NAMES = [
    "anna",
    "ben",
    "carlos",
    "dmitri",
    "elif",
    "farid",
    "grace",
    "hiro",
    "ines",
    "jan",
    "katya",
    "liam",
    "mei",
    "nadia",
    "omar",
    "priya",
]
LAST_NAMES = [
    "smith",
    "garcia",
    "mueller",
    "rossi",
    "novak",
    "tanaka",
    "okafor",
    "jensen",
    "dubois",
    "silva",
    "kowalski",
    "haddad",
]
DOMAINS = "example.com mail.example.org post.example.co.uk firma-beispiel.de exemple.fr corp.example.io uni.example.edu"


def iban(random: Random) -> str:
    """An IBAN with right check digits, in one piece or in groups of four."""
    country = random.choice(list(IBAN_STRUCTURES))
    number = _iban_of(random, country)
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4)) if random.random() < 0.5 else number


def _iban_of(random: Random, country: str) -> str:
    alphabets = {"n": DIGITS, "a": UPPER, "c": UPPER + DIGITS}
    account, count = "", ""
    for sign in IBAN_STRUCTURES[country]:
        if sign.isdigit():
            count += sign
        else:
            account += "".join(random.choices(alphabets[sign], k=int(count)))
            count = ""
    as_number = int("".join(str(int(sign, 36)) for sign in account + country + "00"))
    return f"{country}{98 - as_number % 97:02d}{account}"


def card(random: Random) -> str:
    """A card number with a right check digit, plain or grouped as its brand does."""
    prefixes, length, groups = random.choice(list(CARDS.values()))
    body = random.choice(prefixes)
    body += "".join(random.choices(DIGITS, k=length - len(body) - 1))
    return _grouped(body + _check_digit(body), groups, random.choice(["", " ", "-"]))


def _check_digit(body: str) -> str:
    total = 0
    for place, sign in enumerate(reversed(body)):
        value = int(sign) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return str(-total % 10)


def _grouped(number: str, groups: tuple[int, ...], separator: str) -> str:
    pieces, start = [], 0
    for size in groups:
        pieces.append(number[start : start + size])
        start += size
    return separator.join(pieces)


def phone(random: Random) -> str:
    """A phone number of one of many countries as people write it."""
    return _digits(random, random.choice(PHONES))


def _digits(random: Random, form: str) -> str:
    ranges = {"#": DIGITS, "@": DIGITS[2:]}
    return "".join(random.choice(ranges[sign]) if sign in ranges else sign for sign in form)


def email(random: Random) -> str:
    """An e-mail address; some with dots, plus signs, digits, capitals."""
    first, last = random.choice(FIRST_NAMES), random.choice(LAST_NAMES)
    form = random.choice(["{f}.{l}", "{f}{n}", "{i}{l}", "{f}_{l}", "{f}+shop", "{f}-{l}.{n}", "{F}.{L}"])
    local = form.format(
        f=first, l=last, i=first[0], n=random.randrange(1, 2000), F=first.capitalize(), L=last.capitalize()
    )
    return f"{local}@{random.choice(DOMAINS.split())}"


def key(random: Random) -> str:
    """A key or token of a well-known service's shape, or a random one with the name of a secret before it."""

    def draw(alphabet: str, length: int) -> str:
        return "".join(random.choices(alphabet, k=length))

    web_safe = ALPHANUMERIC + "-_"
    forms: list[Callable[[], str]] = [
        lambda: "AKIA" + draw(UPPER + "234567", 16),
        lambda: random.choice(["ghp_", "gho_", "ghs_"]) + draw(ALPHANUMERIC, 36),
        lambda: "github_pat_" + draw(ALPHANUMERIC, 22) + "_" + draw(ALPHANUMERIC, 59),
        lambda: "glpat-" + draw(web_safe, 20),
        lambda: "sk-" + draw(ALPHANUMERIC, 48),
        lambda: "sk-proj-" + draw(web_safe, 74),
        lambda: "sk-ant-api03-" + draw(web_safe, 93) + "AA",
        lambda: f"xoxb-{draw(DIGITS, 12)}-{draw(DIGITS, 13)}-{draw(ALPHANUMERIC, 24)}",
        lambda: random.choice(["sk_live_", "rk_live_", "sk_test_"]) + draw(ALPHANUMERIC, 24),
        lambda: "AIza" + draw(web_safe, 35),
        lambda: f"SG.{draw(web_safe, 22)}.{draw(web_safe, 43)}",
        lambda: "npm_" + draw(ALPHANUMERIC, 36),
        lambda: "hf_" + draw(UPPER + LOWER, 34),
        lambda: "pypi-AgEIcHlwaS5vcmc" + draw(web_safe, 140),
        lambda: f"eyJ{draw(web_safe, 33)}.eyJ{draw(web_safe, 70)}.{draw(web_safe, 43)}",
        lambda: f"{draw(DIGITS, 10)}:AA{draw(web_safe, 33)}",
        lambda: f"-----BEGIN RSA PRIVATE KEY-----\n{draw(ALPHANUMERIC + '+/', 64)}\n-----END RSA PRIVATE KEY-----",
        lambda: f"aws_secret_access_key = {draw(ALPHANUMERIC + '+/', 40)}",
        lambda: f'api_key: "{draw(ALPHANUMERIC, 32)}"',
        lambda: f"client_secret={draw(HEX, 40)}",
        lambda: f"password={draw(ALPHANUMERIC + '!#%', 14)}",
        lambda: f"Authorization: Bearer {draw(ALPHANUMERIC, 40)}",
        lambda: f"postgres://admin:{draw(ALPHANUMERIC, 16)}@db.internal:5432/main",
        lambda: draw(ALPHANUMERIC + "+/", 40),
    ]
    return random.choice(forms)()


VALUES: dict[str, Callable[[Random], str]] = {
    "pii-email": email,
    "pii-phone": phone,
    "pii-iban": iban,
    "pii-card": card,
    "secret": key,
}
"""The code of the finding that has to name a row with such a value, and the generator of the value."""

SENTENCES = {
    "pii-email": ("write to {}", "my address is {}.", "({})", "{}", "contact {} for details", "{}, thanks"),
    "pii-phone": ("call me on {}", "my number is {}.", "{}", "phone: {}", "you can text {} after 5", "tel. {}, please"),
    "pii-iban": ("my IBAN is {}", "please pay to {}.", "{}", "account {} at my bank", "refund it to {}, thanks"),
    "pii-card": ("my card is {}", "the number {} was charged", "{}", "card: {}.", "please use {}, it is valid"),
    "secret": ("{}", "here is the config: {}", "use {} to log in", "it says {} in the file"),
}


def look_alike(random: Random) -> str:
    """Something that is no private value but looks like one: nothing may be found in it."""
    year, month, day = random.randrange(1990, 2031), random.randrange(1, 13), random.randrange(1, 29)
    hour, minute = random.randrange(24), random.randrange(60)
    amount = random.randrange(1_000, 99_999_999)

    def digits(length: int) -> str:
        return random.choice("123456789") + "".join(random.choices(DIGITS, k=length - 1))

    def wrong_card() -> str:
        prefixes, length, groups = random.choice(list(CARDS.values()))
        body = random.choice(prefixes)
        body += "".join(random.choices(DIGITS, k=length - len(body) - 1))
        wrong = random.choice([digit for digit in DIGITS if digit != _check_digit(body)])
        return _grouped(body + wrong, groups, random.choice(["", " ", "-"]))

    def wrong_iban() -> str:
        number = _iban_of(random, random.choice(list(IBAN_STRUCTURES)))
        return f"{number[:2]}{(int(number[2:4]) % 97 + 1 + random.randrange(5)) % 100:02d}{number[4:]}"

    forms: list[Callable[[], str]] = [
        lambda: f"order number {digits(random.choice([8, 9, 10, 11, 12]))}",
        lambda: f"order {digits(random.choice([13, 14, 15, 16, 17]))}",
        lambda: f"tracking id {digits(20)}",
        lambda: f"invoice INV-{year}-{digits(6)}",
        lambda: f"ticket #{digits(7)}",
        lambda: f"the reference is {wrong_card()}",
        lambda: f"reference {wrong_iban()}",
        lambda: f"on {year}-{month:02d}-{day:02d}",
        lambda: f"{day:02d}.{month:02d}.{year} {hour:02d}:{minute:02d}",
        lambda: f"{day:02d}/{month:02d}/{year}",
        lambda: f"{year}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:00Z",
        lambda: f"{year - 10}-{year} and {year}/{month:02d}",
        lambda: f"unix time {random.randrange(1_500_000_000, 1_799_999_999)}",
        lambda: f"it cost ${amount:,}.{random.randrange(100):02d}",
        lambda: f"it cost {f'{amount:,}'.replace(',', ' ')},{random.randrange(100):02d} EUR",
        lambda: f"{f'{amount:,}'.replace(',', '.')},00 EUR",
        lambda: f"from 192.168.{random.randrange(256)}.{random.randrange(256)}",
        lambda: f"version 10.{random.randrange(99)}.{random.randrange(9999)}.{random.randrange(9999)}",
        lambda: f"at {random.uniform(-90, 90):.6f}, {random.uniform(-180, 180):.6f}",
        lambda: f"ISBN 978-3-16-{digits(6)}-{random.randrange(10)}",
        lambda: f"{random.randrange(100, 999)} + {random.randrange(100, 999)} - {random.randrange(100, 999)} = ?",
        lambda: f"{random.randrange(2, 99)}x{random.randrange(2, 99)}x{random.randrange(2, 99)} cm, {amount} pieces",
        lambda: f"id {uuid.UUID(int=random.getrandbits(128), version=4)}",
        lambda: f"commit {''.join(random.choices(HEX, k=40))}",
        lambda: f"md5 {''.join(random.choices(HEX, k=32))}",
        lambda: f"see https://example.com/articles/{year}/how-to-{'-'.join(random.sample(FIRST_NAMES, 4))}.html",
        lambda: f"class Abstract{''.join(name.title() for name in random.sample(LAST_NAMES, 4))}Factory",
        lambda: f"/usr/lib/python3.11/site-packages/{'_'.join(random.sample(LAST_NAMES, 3))}/__init__.py",
        lambda: f"thanks @{random.choice(FIRST_NAMES)}_{random.choice(LAST_NAMES)}{random.randrange(99)}",
        lambda: f"npm install {random.choice(LAST_NAMES)}@{random.randrange(9)}.{random.randrange(20)}.1",
        lambda: f"{random.randrange(2, 20)} apples @ {random.randrange(1, 9)}.50 each",
        lambda: "what is an API key and how do I change my password?",
        lambda: "the password: it has to be changed every month",
        lambda: f"VAT DE{digits(9)}",
        lambda: f"between {digits(4)} and {digits(4)} of {digits(6)} people",
        lambda: f"the sum of 1 2 3 4 5 6 7 8 {random.randrange(9, 20)}",
        lambda: f"score {random.randrange(10)}-{random.randrange(10)}, {random.randrange(10)}-{random.randrange(10)}",
        lambda: f"data:image/png;base64,{base64.b64encode(random.randbytes(60)).decode()}",
        lambda: f"part no. {digits(4)}-{digits(3)}-{''.join(random.choices(UPPER, k=3))}",
        lambda: f"population {amount:,}",
        lambda: f"flight LH{digits(3)} at {hour:02d}:{minute:02d}, seat {random.randrange(1, 40)}A",
    ]
    return random.choice(forms)()


def planted(random: Random, text: str, code: str) -> str:
    """`text` with a private value of `code` in it: before, behind, or between two words."""
    return _insert(random, text, random.choice(SENTENCES[code]).format(VALUES[code](random)))


def with_look_alike(random: Random, text: str) -> str:
    """`text` with a look-alike in it."""
    return _insert(random, text, look_alike(random))


def _insert(random: Random, text: str, piece: str) -> str:
    words = text.split(" ")
    place = random.choice([0, len(words), random.randrange(len(words) + 1)])
    return " ".join([*words[:place], piece, *words[place:]])
