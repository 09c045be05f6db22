"""docs/tests.md lists the slow tests: all of them, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def slow_tests(path: Path) -> set[str]:
    """The tests of a file that are marked, or one of whose cases is; the file itself if all of it is."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    values = {
        target.id: ast.unparse(node.value)
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "mark.slow" in values.get("pytestmark", ""):
        return {str(path.relative_to(HERE))}
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            said = [ast.unparse(each) for each in node.decorator_list]
            named = [
                each.id
                for mark in node.decorator_list
                for each in ast.walk(mark)
                if isinstance(each, ast.Name)
            ]
            said += [values.get(name, "") for name in named]
            if any("mark.slow" in text for text in said):
                found.add(node.name)
    return found


def test_the_docs_list_every_slow_test_and_no_other() -> None:
    table = (HERE.parent / "docs" / "tests.md").read_text().partition("## Slow tests")[2]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in firsts for name in re.findall(r"`([\w/]+(?:\.py)?)`", cell)}
    marked = [slow_tests(path) for path in HERE.rglob("test_*.py")]
    assert listed == set().union(*marked)
