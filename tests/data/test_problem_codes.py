"""The codes of problems are an API: documented, and used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuneworth.data.problems import CODES, WARNINGS, Tally

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "\n".join(path.read_text("utf-8") for path in (ROOT / "src" / "tuneworth" / "data").glob("*.py"))


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_documented_with_its_verdict_and_used(code):
    meaning = CODES[code].removesuffix(" (warning)")
    verdict = "warning" if code in WARNINGS else "refused"
    assert f"| `{code}` | {meaning} | {verdict} |" in (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert SOURCES.count(f'"{code}"') > 1


def test_every_code_that_the_sources_use_is_known():
    used = set(re.findall(r'(?:note|add)\(\s*(?:[\w.]+, )?"([a-z0-9-]+)"', SOURCES))
    used |= set(re.findall(r'code="([a-z0-9-]+)"', SOURCES))
    assert len(used) > 40
    assert used <= set(CODES)


def test_a_tally_counts_all_and_keeps_five_of_each_code():
    tally = Tally("f")
    for line in range(1000, 0, -1):
        tally.add(line, "role", "no role")
    tally.add(3, "content-blank", "empty")
    assert (tally.counts["role"], tally.errors) == (1000, 1000)
    assert [problem.line for problem in tally.problems()] == [3, 996, 997, 998, 999, 1000]
