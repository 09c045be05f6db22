"""The tests that docs/reliability.md names, and their files: `make faults` runs these.

python -m tests.docs.faults    prints the files
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TESTS = set(re.findall(r"`(test_\w+)`", PAGE))
FILES = {ROOT / "tests" / name for name in re.findall(r"`(\w+/test_\w+\.py)`", PAGE)}
ROWS = [
    (int(number), tests) for number, tests in re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", PAGE, re.MULTILINE)
]
"""Of the numbered faults, each with the cell of its tests."""


def defined() -> dict[Path, set[str]]:
    """The tests of every file."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return {path: set(re.findall(r"\bdef (test_\w+)\(", path.read_text(encoding="utf-8"))) for path in paths}


if __name__ == "__main__":
    print(
        *sorted(
            str(path.relative_to(ROOT)) for path, tests in defined().items() if path in FILES or tests & TESTS
        )
    )
