"""docs/tests.md lists the slow tests: all of them, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def slow_tests(path: Path) -> set[str]:
    """Names of the functions of a file that carry the marker, as a whole or in one of their cases."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, _FUNCTION)]
    marked = {f.name: " ".join(map(ast.unparse, f.decorator_list)) for f in functions}
    return {name for name, marks in marked.items() if "mark.slow" in marks}


_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_the_docs_list_every_slow_test_and_no_other() -> None:
    table = (HERE.parent / "docs" / "tests.md").read_text().partition("## Slow tests")[2]
    listed = set(re.findall(r"^\| `(test_\w+)`", table, re.M))
    marked = [slow_tests(path) for path in HERE.rglob("test_*.py")]
    assert listed == set().union(*marked)
