"""Which exit code a summary stands for, read from its file alone."""

from __future__ import annotations

import json
from pathlib import Path


def exit_code_of(summary: Path) -> int:
    """3 if the verdict is INVALID, else 1 if a level misses its limits, else 0."""
    found = json.loads(summary.read_bytes())
    if found["verdict"]["status"] == "invalid":
        return 3
    return 1 if any(level["holds_limits"] is False for level in found["levels"]) else 0
