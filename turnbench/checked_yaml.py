"""From a YAML file to a pydantic model, or to every mistake at its line with what to do about it.

`checked` reads a file for a strict model; `validated` takes a tree of `turnbench.strict_yaml` that is read
already. What pydantic found is said in the words of the file: the key, what stands there, what belongs there.
The keys that a mapping may have, of which the nearest is suggested, are found from the model itself.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from turnbench.problems import FOUND_MAX, FileProblems, Problem, nearest, quoted
from turnbench.strict_yaml import Map, Node, Seq, Text, key_of, plain, read_file

ModelT = TypeVar("ModelT", bound=BaseModel)
Place = tuple[str | int, ...]
"""Where a value is: keys and list positions from the top."""
Explain = Callable[[Any, Any, str], str | None]
"""Words of a reader's own for one of pydantic's errors: (its details, what stands in the file, the key) to a
text, or to None for the usual one."""

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
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "list_type": "a list, one '- ' a line",
    "tuple_type": "a list, one '- ' a line",
}


def checked(
    model: type[ModelT],
    path: str | Path,
    noun: str,
    *,
    start: str = "",
    prepare: Callable[[Any], Any] | None = None,
    explain: Explain | None = None,
    error: type[FileProblems] = FileProblems,
) -> ModelT:
    """The file as this pydantic model, which should be strict since it gets typed data. Raises `error` with
    every mistake, each at its line.

    `noun` and `start` as in `turnbench.strict_yaml.read`. `prepare` may change the data before they are
    validated.
    """
    root, problems = read_file(path, noun, start)
    if root is None:
        raise error(problems)
    data, unreadable = plain(root)
    found, mistakes = validated(model, root, prepare(data) if prepare else data, noun, explain)
    if found is None or problems or unreadable:
        raise error([*problems, *unreadable, *mistakes])
    return found


def validated(
    model: type[ModelT], root: Node, data: Any, noun: str, explain: Explain | None = None
) -> tuple[ModelT | None, list[Problem]]:
    """The data as this model, or None and every mistake at its line of the tree that the data came from.

    The tree itself may be the data, for a model that is not strict: then every scalar reaches it as the text
    that was typed, and no `no` turns into False.
    """
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, list(_problems_of(error, model, root, noun, explain))


def _problems_of(
    error: ValidationError, model: type[BaseModel], root: Node, noun: str, explain: Explain | None
) -> Iterator[Problem]:
    """Each of pydantic's errors as a Problem at its line of the tree."""
    for detail in error.errors(include_url=False)[:FOUND_MAX]:
        node, mark, key = _locate(root, detail["loc"], f"the {noun}")
        kind, last = detail["type"], str((detail["loc"] or ("",))[-1])
        if last == "[key]":
            node, key = Text(detail["input"]), f"key of {(noun, *detail['loc'])[-3]}"
        elif kind == "too_short" and isinstance(node, Seq | Map):
            if len(node) >= detail["ctx"]["min_length"]:
                continue  # entries with mistakes, reported elsewhere, were not counted
        elif isinstance(node, Map) and isinstance(detail["input"], str | int | float):
            node, key = Text(detail["input"]), last  # not in the file: `prepare` has added it
        if kind == "union_tag_invalid" and isinstance(node, Map):
            mark = key_of(node, detail["ctx"]["discriminator"].strip("'"))
        text = explain(detail, node, key) if explain else None
        yield Problem(mark.source, mark.line, text or _words(detail, model, node, key))


def _locate(root: Node, place: Place, name: str) -> tuple[Node, Node, str]:
    """The node at a place as far as the tree has it, the node that marks its line, and what to call it.

    Steps that pydantic adds (the arm of a union, a missing key) are passed over. An arm may be called like a
    key that stands there too: nothing is inside a scalar, so where the next step is a key, this is the arm.
    """
    node = mark = root
    for number, step in enumerate(place, 1):
        is_arm = (
            number < len(place)
            and isinstance(node, Map)
            and isinstance(node.get(str(step)), Text)
            and place[number] in node
        )
        if isinstance(node, Map) and step in node and not is_arm:
            mark = key_of(node, str(step))
            node, name = node[str(step)], str(step)
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node):
            node = mark = node[step]
            name = f"{name.removesuffix('s')} {step + 1}"
    return node, mark, name


def _words(detail: Any, model: type[BaseModel], node: Node, key: str) -> str:
    kind, context, place = detail["type"], detail.get("ctx", {}), detail["loc"]
    last = str(place[-1]) if place else ""
    is_now = f"{quoted(key)} is {shown(node)}"
    if kind == "missing":
        only = [get_args(each) for each in _annotations(model, place) if get_origin(each) is Literal]
        example = only[0][0] if only and len(only[0]) == 1 else "..."
        where = " as the first line" if last == "format" else ""
        return f"no {last!r} here; add '{last}: {example}'{where}"
    if kind == "extra_forbidden":
        return f"unknown key {quoted(last)}; {nearest(last, known_keys(model, place[:-1]), 'known keys')}"
    if kind == "literal_error":
        wanted = context["expected"]
        if key == "format":
            return f"format is {shown(node)}; this version reads {wanted}"
        return f"{is_now}; write one of {wanted}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        by = context["discriminator"].strip("'")
        if kind == "union_tag_not_found":
            return f"no {by!r} here; add '{by}: ...'"
        known = [name.strip("' ") for name in context["expected_tags"].split(", ")]
        return f"unknown {by} {quoted(str(context['tag']))}; {nearest(str(context['tag']), known, 'known')}"
    if kind == "value_error":
        return str(context["error"])
    if isinstance(node, Text) and not node.strip():
        return f"{quoted(key)} has no value; write one or leave the key out"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{is_now}; it must be {words} {context[bound]:,.10g}"
    if kind in ("too_short", "too_long"):
        bound, words = ("min_length", "at least") if kind == "too_short" else ("max_length", "at most")
        return f"{quoted(key)} has {len(node)} entries; it must have {words} {context[bound]:,}"
    if kind == "string_too_long":
        return f"{quoted(key)} has {len(node):,} characters; {context['max_length']:,} are the most"
    if kind == "string_pattern_mismatch":
        return f"{is_now}; write one that matches {context['pattern']}"
    return f"{is_now}; write {_WANTED.get(kind, 'something else (' + detail['msg'] + ')')}"


def shown(node: Node) -> str:
    """A node in a message: a quoted text, or what it is."""
    if isinstance(node, Text):
        return quoted(node)
    return "a mapping" if isinstance(node, Map) else "a list"


def known_keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that the mapping at this place of a model may have."""
    arms = [arm for each in _annotations(model, place) for arm in _arms(each)]
    fields = [arm.model_fields.items() for arm in arms if hasattr(arm, "model_fields")]
    return sorted({field.alias or name for items in fields for name, field in items})


def _annotations(model: Any, place: Place) -> list[Any]:
    """The types that a place of a model may have: more than one where a union's arm is not known."""
    found = [model]
    for step in place:
        arms = [arm for each in found for arm in _arms(each)]
        inner = [each for arm in arms for each in _inside(arm, step)]
        named = [arm for arm in arms if _is_arm_called(arm, step)]
        found = inner or named or found
    return found


def _arms(annotation: Any) -> list[Any]:
    """The members of a union, and of unions in it; any other type alone."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(bare) in (Union, types.UnionType):
        return [arm for each in get_args(bare) for arm in _arms(each)]
    return [bare]


def _inside(arm: Any, step: str | int) -> list[Any]:
    if hasattr(arm, "model_fields"):
        return [field.annotation for name, field in arm.model_fields.items() if step in (name, field.alias)]
    origin, arguments = get_origin(arm), get_args(arm)
    if origin is dict:
        return [arguments[1]]
    return [arguments[0]] if origin in (list, tuple) and isinstance(step, int) else []


def _is_arm_called(arm: Any, step: str | int) -> bool:
    """Whether pydantic calls this arm of a union so: by its name, or by a value that only it allows."""
    if not hasattr(arm, "model_fields"):
        return False
    marks = [field.annotation for field in arm.model_fields.values()]
    return arm.__name__ == step or any(get_origin(a) is Literal and step in get_args(a) for a in marks)
