"""The list of bugs to put back names text that is there, once, and tests that exist."""

from __future__ import annotations

from mutations import MUTATIONS, ROOT


def test_every_bug_can_be_put_back() -> None:
    stale = [
        f"{bug.name}: {(ROOT / 'src' / 'tuneworth' / bug.file).read_text('utf-8').count(bug.old)} times"
        for bug in MUTATIONS
        if (ROOT / "src" / "tuneworth" / bug.file).read_text("utf-8").count(bug.old) != 1
    ]
    assert not stale
    assert len({bug.name for bug in MUTATIONS}) == len(MUTATIONS)
    assert all(bug.old != bug.new for bug in MUTATIONS)


def test_every_bug_names_a_test() -> None:
    for bug in MUTATIONS:
        place = ROOT / "tests" / bug.suite
        files = [place] if place.is_file() else sorted(place.rglob("test_*.py"))
        text = "".join(path.read_text("utf-8") for path in files)
        assert any(word in text for word in bug.law.replace(" or ", "|").split("|")), bug.name
