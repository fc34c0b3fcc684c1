"""What the terminal shows of an audit: the four answers, then findings, readable in 80 columns."""

from __future__ import annotations

from tuneworth.console import show_audit


def finding(code: str, severity: str, message: str, repair: str | None = "the rows stay") -> dict[str, object]:
    rows = [{"file": "/data/train.csv", "line": line, "id": str(line)} for line in range(2, 40)]
    return {"code": code, "severity": severity, "message": message, "rows": rows, "repair": repair, "count": 38}


def test_an_audit_is_shown_in_80_columns_the_most_serious_first(capsys):
    answers = {
        name: {"status": status, "why": "because of a reason that takes more than one line to tell " * 2}
        for name, status in (("domain", "not-measured"), ("relevance", "pass"), ("quality", "fail"), ("size", "warn"))
    }
    findings = [
        finding("minor", "info", "a note"),
        finding("grave", "error", "a grave flaw with \x1b[31mcolour and a long message " * 4),
        finding("medium", "warn", "a flaw", None),
    ]
    show_audit({"rows": {"train": 1000, "validation": 0, "test": 20}, "answers": answers, "findings": findings})
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "\x1b" not in shown
    assert "not measured" in shown
    places = [shown.index(word) for word in ("domain", "size", "[grave]", "[medium]", "[minor]")]
    assert places == sorted(places)
    assert "train.csv lines 2, 3, 4, 5, 6, 7, 8, 9; 30 more in" in " ".join(shown.split())


def test_files_of_one_name_are_told_apart_by_their_folders(capsys):
    rows = [{"file": f"data/{part}/seq.in", "line": 3, "id": ""} for part in ("train", "test")]
    finding = {"severity": "info", "message": "odd", "code": "odd", "rows": rows, "repair": None}
    show_audit({"rows": {"train": 1}, "answers": {}, "findings": [finding]})
    assert "train/seq.in line 3; test/seq.in line 3" in capsys.readouterr().out
