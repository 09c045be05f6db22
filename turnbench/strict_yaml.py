"""YAML read strictly: every mistake at once with its line, and nothing guessed.

One reading of the parser's events gives a marked tree: every scalar is the text that was typed and knows its
line, so `no` is the word no and `12:30:45` is no number. `plain` makes typed data of the tree for models that
want them. Aliases, anchors and tags are refused, since a few of them unfold into gigabytes or into objects;
so are keys that stand twice, a second document, deep nesting and large files. PyYAML's own composer is not
used: its recursion overflows on a deeply nested file.

What a person calls is `checked`: from a file to a pydantic model, or to FileProblems with every mistake.
pydantic is imported only there, so that a command that checks nothing does not pay for it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml

from turnbench.problems import FOUND_MAX, FileProblems, Problem, nearest, quoted

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    ModelT = TypeVar("ModelT", bound=BaseModel)

DEPTH_MAX = 12
BYTES_MAX = 2 * 1024 * 1024
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Place = tuple[str | int, ...]
"""Where a value is: keys and list positions from the top."""


class Text(str):
    """A scalar, with the file and line it came from."""

    source: str
    line: int
    bare: bool = False
    """Written without quotes and not as a block, so that it may stand for a number, true, false or null."""


class Map(dict[str, Any]):
    """A mapping; its keys are Text, too (see key_of)."""

    source: str
    line: int


class Seq(list[Any]):
    """A sequence."""

    source: str
    line: int


Node = Text | Map | Seq
MarkedT = TypeVar("MarkedT", Map, Seq, Text)
Explain = Callable[[Any, Any, str], str | None]
"""Words of one's own for one of pydantic's errors: (its details, what stands in the file, the key) to a text,
or to None for the usual one."""


def key_of(node: Map, name: str) -> Text:
    """The key as it stands in the file, which knows its line."""
    return cast(Text, next(key for key in node if key == name))


def marked(node: MarkedT, like: Node) -> MarkedT:
    """The node, marked with the file and line of another."""
    node.source, node.line = like.source, like.line
    return node


def read(text: str, source: str, noun: str, start: str = "") -> tuple[Node | None, list[Problem]]:
    """The tree of one YAML document, and its mistakes. The tree is None where nothing can be made of the
    text: no YAML, too large, too deep, empty, mistakes without end.

    `source` is the file's name in messages, `noun` what it is (scenario, sweep plan ...), `start` its first
    line.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return None, [Problem(source, 0, "holds half a character; save it as UTF-8")]
    if size > BYTES_MAX:
        what = f"{size:,} bytes; a {noun} may have {BYTES_MAX:,}, so use fewer or shorter texts"
        return None, [Problem(source, 0, what)]
    builder = _Builder(source, noun)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except _HopelessError:
        return None, builder.problems
    except yaml.YAMLError as error:
        return None, [*builder.problems, _syntax_problem(error, source)]
    if builder.root is None:
        what = "the file is empty" + (f"; start it with '{start}'" if start else "")
        return None, [*builder.problems, Problem(source, 1, what)]
    return builder.root, builder.problems


def read_file(path: str | Path, noun: str, start: str = "") -> tuple[Node | None, list[Problem]]:
    """`read` of a file; one that cannot be opened or is not UTF-8 is a mistake, too."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(BYTES_MAX + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        return None, [Problem(str(path), 0, "not UTF-8 text; save it as UTF-8")]
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or "not a usable name"
        return None, [Problem(str(path), 0, f"cannot be read ({reason}); check the path")]
    return read(text, str(path), noun, start)


def plain(root: Node) -> tuple[Any, dict[Place, int], list[Problem]]:
    """Typed data of a tree, the line of every value by its place, and the values that cannot be read.

    Types are those of YAML's core schema, where nothing but true and false is a truth value; digits may be
    grouped by `_`. A number with a leading zero stays text: YAML 1.1 takes it for an octal one.
    """
    lines: dict[Place, int] = {}
    problems: list[Problem] = []

    def typed(node: Node, place: Place, line: int) -> Any:
        lines[place] = line
        if isinstance(node, Map):
            return {
                str(key): typed(value, (*place, str(key)), key_of(node, key).line)
                for key, value in node.items()
            }
        if isinstance(node, Seq):
            return [typed(child, (*place, i), child.line) for i, child in enumerate(node)]
        try:
            return _scalar(node)
        except ValueError:  # int() refuses thousands of digits
            problems.append(Problem(node.source, line, f"{quoted(node, 40)} is not a value that can be read"))
            return None

    return typed(root, (), root.line), lines, problems


def checked(
    model: type[ModelT],
    path: str | Path,
    noun: str,
    *,
    start: str = "",
    as_text: bool = False,
    prepare: Callable[[Any], Any] | None = None,
    explain: Explain | None = None,
    error: type[FileProblems] = FileProblems,
) -> ModelT:
    """The file as this pydantic model. Raises `error` with every mistake, each at its line.

    `as_text`: every scalar reaches the model as the text that was typed (no `no` turns into False); else as
    typed data, for models with `strict=True`. `prepare` may change the data before they are validated.
    """
    root, problems = read_file(path, noun, start)
    if root is None:
        raise error(problems)
    data: Any = root
    if not as_text:
        data, _, unreadable = plain(root)
        problems += unreadable
    found, mistakes = validated(model, root, prepare(data) if prepare else data, noun, explain)
    if found is None or problems:
        raise error([*problems, *mistakes])
    return found


def validated(
    model: type[ModelT], root: Node, data: Any, noun: str, explain: Explain | None = None
) -> tuple[ModelT | None, list[Problem]]:
    """The data as this model, or None and every mistake at its line of the tree that the data came from."""
    from pydantic import ValidationError

    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, list(_problems_of(error, model, root, noun, explain))


class _HopelessError(Exception):
    """Reading on would teach nothing more."""


class _Builder:
    """Turns the parser's events into a tree, one event at a time."""

    def __init__(self, source: str, noun: str) -> None:
        self.source = source
        self.noun = noun
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._open: list[Map | Seq] = []
        self._keys: list[Text | None] = []
        self._documents = 0

    def feed(self, event: Any) -> None:
        """Take the next event. Raises _HopelessError where reading on would teach nothing more."""
        line: int = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self._report(line, f"a second document starts here; keep one {self.noun} in one file")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.AliasEvent):
                alias = quoted(f"*{event.anchor}")
                self._report(line, f"alias {alias}; aliases are not accepted, write the text out again")
            elif event.anchor is not None:
                self._report(line, f"anchor {quoted('&' + event.anchor)}; leave it out, there are no aliases")
            if getattr(event, "tag", None) is not None:
                self._report(line, f"tag {quoted(cast(Any, event).tag)}; leave it out, the type is known")
            self._node(event, line)

    def _report(self, line: int, text: str) -> None:
        self.problems.append(Problem(self.source, line, text))
        if len(self.problems) == FOUND_MAX:
            raise _HopelessError

    def _node(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.MappingStartEvent):
            node: Node = Map()
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Seq()
        else:
            node = Text(getattr(event, "value", ""))
            node.bare = isinstance(event, yaml.ScalarEvent) and bool(event.implicit[0])
        node.source, node.line = self.source, line
        self._place(node, line)
        if isinstance(node, Map | Seq):
            if len(self._open) == DEPTH_MAX:
                self._report(
                    line,
                    f"nested too deep; no part of a {self.noun} needs more than {DEPTH_MAX} levels",
                )
                raise _HopelessError
            self._open.append(node)
            self._keys.append(None)

    def _place(self, node: Node, line: int) -> None:
        if not self._open:
            self.root = node if self.root is None else self.root
            return
        parent, key = self._open[-1], self._keys[-1]
        if isinstance(parent, Seq):
            parent.append(node)
        elif key is not None:
            parent.setdefault(key, node)
            self._keys[-1] = None
        elif isinstance(node, Text):
            if node in parent:
                first = key_of(parent, node).line
                self._report(line, f"key {quoted(node)} is given twice (first on line {first}); keep one")
            self._keys[-1] = node
        else:  # an empty key takes the place of the list or mapping, so that its value has one
            self._report(line, "a list or mapping stands where a key should; write 'key: value'")
            empty = Text()
            empty.source, empty.line = self.source, line
            self._keys[-1] = empty


def _syntax_problem(error: yaml.YAMLError, source: str) -> Problem:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    reason = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "unknown reason")
    line = mark.line + 1 if mark is not None else 0
    if "cannot start any token" in reason:
        return Problem(source, line, "a tab or a character that YAML keeps for itself; use spaces, or quotes")
    if begun is not None and begun.line + 1 != line:
        reason += f" {getattr(error, 'context', '')} that starts on line {begun.line + 1}"
    return Problem(source, line, f"not valid YAML ({reason}); look at this line and the one before")


_CONSTANTS: dict[str, Any] = {"": None, "~": None}
for _word, _value in (("null", None), ("true", True), ("false", False)):
    _CONSTANTS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _value)
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)|0x[0-9a-fA-F]+|0o[0-7]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")


def _scalar(text: Text) -> Any:
    """What a scalar stands for. Raises ValueError for a number that is too long."""
    word = str(text)
    if not text.bare:
        return word
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _WHOLE.fullmatch(word):
        return int(word, 0)
    if _NUMBER.fullmatch(word) and not _LEADING_ZERO.fullmatch(word):
        return float(word)
    return float(word.replace(".", "")) if _NOT_FINITE.fullmatch(word) else word


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


def _problems_of(
    error: ValidationError, model: type[BaseModel], root: Node, noun: str, explain: Explain | None
) -> Iterator[Problem]:
    """Each of pydantic's errors as a Problem at its line of the tree."""
    for detail in error.errors(include_url=False)[:FOUND_MAX]:
        node, mark, key = _locate(root, detail["loc"], f"the {noun}")
        kind, last = detail["type"], str((detail["loc"] or ("",))[-1])
        if kind == "too_short" and isinstance(node, Seq | Map):
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

    Steps that pydantic adds (the arm of a union, a missing key) are passed over.
    """
    node = mark = root
    for step in place:
        if isinstance(node, Map) and step in node:
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
        return f"format is {shown(node)}; this version reads {wanted}" if key == "format" else (
            f"{is_now}; write one of {wanted}"
        )  # fmt: skip
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
    """The types that a place of a model may have: more than one where a union's arm can't be told."""
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
    """Whether this is what pydantic calls an arm of a union by: its name, or the value that tells it."""
    if not hasattr(arm, "model_fields"):
        return False
    told_by = [field.annotation for field in arm.model_fields.values()]
    return arm.__name__ == step or any(get_origin(a) is Literal and step in get_args(a) for a in told_by)
