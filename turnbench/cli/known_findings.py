"""Every finding that the code can make, read out of its source: its name, its sentence and its remedy.

A finding is made by a call of `Finding`, `LevelEvidence.finding` or `DataNote`, whose texts stand beside it.
What is only known in a run is read as `…`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SEVERITIES = ("invalid", "suspect", "note")
_ROOMS = ("analysis", "loadgen", "scenarios")
_ROOT = Path(__file__).parents[2]


class KnownFinding(NamedTuple):
    """One place of the code that makes a finding."""

    severities: list[str]
    check: str
    whats: list[str]
    remedies: list[str]


_MAKERS = ("Finding", "finding", "DataNote")


def known_findings() -> list[KnownFinding]:
    """Every call that makes a finding, in the rooms that make them."""
    paths = (path for room in _ROOMS for path in sorted((_ROOT / room).rglob("*.py")))
    return [one for path in paths for one in findings_in(path.read_text(encoding="utf-8"))]


def findings_in(source: str) -> list[KnownFinding]:
    """Those that the functions of one module make."""
    module = ast.parse(source)
    constants, found = _Scope(module, None), []
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            scope, doc = _Scope(function, constants), ast.get_docstring(function) or ""
            found += [made for call in scope.calls() if (made := _made_by(call, scope, doc))]
    return found


class _Scope:
    """The texts that names of a function, or else of its module, can stand for."""

    def __init__(self, node: ast.AST, outer: _Scope | None) -> None:
        self.node, self.outer = node, outer

    def calls(self) -> Iterator[ast.Call]:
        """Calls of its own, without those of functions inside it."""
        waiting = list(ast.iter_child_nodes(self.node))
        while waiting:
            each = waiting.pop(0)
            if isinstance(each, ast.Call):
                yield each
            if not isinstance(each, ast.FunctionDef | ast.Lambda):
                waiting = [*ast.iter_child_nodes(each), *waiting]

    def returns_findings(self) -> bool:
        """Whether it is a check, whose docstring says what it finds."""
        return "Iterator[Finding]" in ast.unparse(getattr(self.node, "returns", None) or ast.Constant(None))

    def named(self, name: str, line: int) -> list[str]:
        """What a name may stand for at a line: what was surely given to it last, or by a condition since."""
        given: list[ast.expr] = []
        for assignment, block in _assignments(self.node):
            if (assignment.end_lineno or 0) >= line or not (value := _given(assignment, name)):
                continue
            sure = block[0].lineno <= line <= (block[-1].end_lineno or 0)
            given = [value] if sure else [*given, value]
        if given:
            return [text for value in given for text in self.texts(value)]
        return self.outer.named(name, 10**9) if self.outer else ["…"]

    def texts(self, node: ast.expr) -> list[str]:
        """The texts that an expression can be; … for what only a run knows."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return ["".join(self._piece(part) for part in parts)]
            case ast.Name(id=name):
                return self.named(name, node.lineno)
            case ast.IfExp(body=body, orelse=orelse):
                return [*self.texts(body), *self.texts(orelse)]
            case ast.BoolOp(values=values):
                known = [text for value in values for text in self.texts(value) if text != "…"]
                return known or ["…"]
            case ast.Call(func=ast.Name(id=name)):
                return self._returned(name)
            case (
                ast.Subscript(value=ast.Name(id=name))
                | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"))
            ):
                return self.named(name, node.lineno)
            case ast.Dict(values=values):
                return [text for value in values for text in self.texts(value)]
            case _:
                return ["…"]

    def _piece(self, part: ast.expr) -> str:
        if isinstance(part, ast.Constant):
            return str(part.value)
        assert isinstance(part, ast.FormattedValue)
        texts = self.texts(part.value) if isinstance(part.value, ast.Name | ast.Call) else ["…"]
        return " / ".join(dict.fromkeys(texts)) if all(0 < len(text) < 160 for text in texts) else "…"

    def _returned(self, name: str) -> list[str]:
        """What a function of the module can return, where that is a text."""
        module = self.outer or self
        for function in ast.iter_child_nodes(module.node):
            if isinstance(function, ast.FunctionDef) and function.name == name:
                inner = _Scope(function, module)
                found = (each for each in ast.walk(function) if isinstance(each, ast.Return))
                returns = [each.value for each in sorted(found, key=lambda one: one.lineno) if each.value]
                known = [text for value in returns for text in inner.texts(value) if text != "…"]
                return list(dict.fromkeys(known)) or ["…"]
        return ["…"]


def _assignments(node: ast.AST) -> Iterator[tuple[ast.stmt, list[ast.stmt]]]:
    """Every assignment of a function or module, each with the block that it stands in."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        block = getattr(node, field, None) or []
        for each in block:
            if isinstance(each, ast.Assign | ast.AnnAssign):
                yield each, block
            elif not isinstance(each, ast.FunctionDef | ast.ClassDef):
                yield from _assignments(each)


def _given(assignment: ast.stmt, name: str) -> ast.expr | None:
    """What an assignment gives to a name, also beside others; None where it gives it nothing."""
    assert isinstance(assignment, ast.Assign | ast.AnnAssign)
    for target in assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]:
        match target, assignment.value:
            case ast.Name(id=here), value if here == name:
                return value
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                for each, value in zip(targets, values, strict=True):
                    if isinstance(each, ast.Name) and each.id == name:
                        return value
    return None


def _made_by(call: ast.Call, scope: _Scope, doc: str) -> KnownFinding | None:
    """The finding that a call makes, or None; `doc` says what is seen where only a run knows the words."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in _MAKERS:
        return None
    given = call.args if name != "DataNote" else [ast.Constant("note"), *call.args]
    if len(given) < 4 or not isinstance(given[1], ast.Constant):
        return None
    severities = [text for text in scope.texts(given[0]) if text in SEVERITIES] or ["suspect", "invalid"]
    whats, remedies = scope.texts(given[2]), scope.texts(given[3])
    if not any(letter.isalpha() for text in whats for letter in text):
        of_check = scope.returns_findings()
        whats = [" ".join(doc.partition("\n\n")[0].rstrip(".").split()) if of_check else "as the run says"]
    return KnownFinding(list(dict.fromkeys(severities)), str(given[1].value), whats, remedies)
