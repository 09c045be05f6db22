"""What pydantic found, said to the person who wrote the file: which line, what is wrong, what to do."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from scenarios._errors import FOUND_MAX, Problem, nearest, quoted
from scenarios._schema import (
    FORMAT,
    Bundle,
    Call,
    Document,
    Limits,
    Patience,
    Sampling,
    Source,
    Spread,
    Task,
    Tool,
    TurnCount,
)
from scenarios._yaml import Map, Node, Seq, Text, key_of

_KEYS: dict[str, type[BaseModel]] = {
    "tasks": Task,
    "sampling": Sampling,
    "slo": Limits,
    "turns": TurnCount,
    "think_s": Spread,
    "source": Source,
    "max_tokens": Spread,
    "bundle": Bundle,
    "tokens": Spread,
    "patience": Patience,
    "tools": Tool,
    "calls": Call,
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list, one '- ' a line",
    "string_pattern_mismatch": "small letters, digits, '-' and '_' only, 40 at most, a letter or digit first",
}


def problems_of(error: ValidationError, root: Map) -> list[Problem]:
    """Each of pydantic's errors as a Problem at its line of the tree."""
    found = (_problem(detail, root) for detail in error.errors(include_url=False)[:FOUND_MAX])
    return [problem for problem in found if problem is not None]


def _problem(detail: Any, root: Map) -> Problem | None:
    node, mark, key = _locate(root, detail["loc"])
    if detail["type"] == "too_short" and len(node) >= detail["ctx"]["min_length"]:
        return None  # entries with mistakes, told elsewhere, were not counted
    return Problem(mark.source, mark.line, _say(detail, node, key))


def _locate(root: Map, path: tuple[str | int, ...]) -> tuple[Node, Node, str]:
    """The node at a path as far as the tree has it, the node that marks its line, and what to call it.

    Steps that pydantic adds (the arm of a union, a missing key) are passed over.
    """
    node: Node = root
    mark: Node = root
    name = "the scenario"
    for step in path:
        if isinstance(node, Map) and step in node:
            mark = key_of(node, str(step))
            node, name = node[str(step)], str(step)
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node):
            node = mark = node[step]
            name = f"{name.removesuffix('s')} {step + 1}"
    return node, mark, name


def _say(detail: Any, node: Node, key: str) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "missing":
        return f"no {last!r} here; add {_example(last)}"
    if kind == "extra_forbidden":
        return f"unknown key {quoted(last)}; {nearest(last, _known_keys(detail['loc']), 'known keys')}"
    if kind == "literal_error" and key != "format":
        return f"{quoted(key)} is {_shown(node)}; write one of {context['expected']}"
    if kind == "literal_error":
        return f"{key} is {_shown(node)}; this version reads '{FORMAT}'"
    if kind == "value_error":
        return str(context["error"])
    if isinstance(node, Text) and not node.strip():
        return f"{quoted(key)} has no value; write one or leave the key out"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{quoted(key)} is {_shown(node)}; it must be {words} {context[bound]:,.10g}"
    if kind in ("too_short", "too_long"):
        bound, words = ("min_length", "at least") if kind == "too_short" else ("max_length", "at most")
        return f"{quoted(key)} has {len(node)} entries; it must have {words} {context[bound]:,}"
    if kind == "string_too_long":
        return f"{quoted(key)} has {len(node):,} characters; {context['max_length']:,} are the most"
    if kind == "model_type" and detail["loc"][:-1] == ("tasks",):
        return f"{quoted(key)} is {_shown(node)}; write 'from: ' and a built-in task's name, or a task's keys"
    if key == "sha256":
        return f"'sha256' is {_shown(node)}; write the 64 digits that sha256sum gives, or leave it out"
    wanted = _WANTED.get(kind, f"something else ({detail['msg']})")
    return f"{quoted(key)} is {_shown(node)}; write {wanted}"


def _shown(node: Node) -> str:
    if isinstance(node, Text):
        return quoted(node)
    return "a mapping" if isinstance(node, Map) else "a list"


def _example(key: str) -> str:
    return f"'format: {FORMAT}' as the first line" if key == "format" else f"'{key}: ...'"


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the mapping around the last step of a path may have."""
    around = [step for step in path[:-1] if isinstance(step, str) and step in _KEYS]
    model = _KEYS[around[-1]] if around else Document
    return [*model.model_fields, "from"] if model is Task else list(model.model_fields)
