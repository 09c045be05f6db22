"""docs/tests.md lists the slow tests: all of them, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def slow_tests(path: Path) -> set[str]:
    """The tests of a file that are marked, or one of whose cases is; the file itself if all of it is."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    named: dict[str, ast.AST] = {}
    for node in module.body:
        if isinstance(node, ast.Assign):
            named |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named[node.name] = node

    def says_slow(node: ast.AST, seen: frozenset[str] = frozenset()) -> bool:
        """Whether the mark is in it, or in what it names of its module."""
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} & named.keys() - seen
        return "mark.slow" in ast.unparse(node) or any(says_slow(named[name], seen | names) for name in names)

    if "pytestmark" in named and says_slow(named["pytestmark"]):
        return {str(path.relative_to(HERE))}
    return {
        node.name
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and any(says_slow(each) for each in node.decorator_list)
    }


def test_the_docs_list_every_slow_test_and_no_other() -> None:
    table = (HERE.parent / "docs" / "tests.md").read_text().partition("## Slow tests")[2]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in firsts for name in re.findall(r"`([\w/]+(?:\.py)?)`", cell)}
    marked = [slow_tests(path) for path in HERE.rglob("test_*.py")]
    assert listed == set().union(*marked)
