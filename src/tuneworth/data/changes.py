"""What a cleaning did, row by row, and the same for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tuneworth.data.findings import plural

_SHOWN = 3
_WIDTH = 100


def summary(changes: Sequence[Mapping[str, Any]]) -> str:
    """Changes (as in the change list) by reason code and part, each with its first rows."""
    counts = Counter((change["code"], change["split"], change["after"] is None) for change in changes)
    lines = []
    for (code, split, removed), count in counts.items():
        done = "removed from" if removed else "changed in"
        lines.append(f"{code}: {plural(count, 'row')} {done} {split}")
        same = [c for c in changes if (c["code"], c["split"], c["after"] is None) == (code, split, removed)]
        for change in same[:_SHOWN]:
            lines.append(f"  row {change['row']:,}: {_short(change['before'])}")
            if not removed:
                lines.append(f"    becomes {_short(change['after'])}")
            if change["reason"]:
                lines.append(f"    {change['reason']}")
        if count > _SHOWN:
            lines.append(f"  and {count - _SHOWN:,} more")
    return "\n".join(lines)


def _short(row: Any) -> str:
    text = orjson.dumps(row).decode()
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
