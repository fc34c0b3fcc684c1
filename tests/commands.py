"""The command line, run by tests in their own process."""

from __future__ import annotations

import sys

from tuneworth import cli


def command(*words: object) -> int:
    """Run the command line in this process; returns its exit code."""
    before, sys.argv = sys.argv, ["tuneworth", *map(str, words)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
