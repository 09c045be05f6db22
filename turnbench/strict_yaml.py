"""YAML read strictly: every mistake at once with its line, and nothing guessed.

One reading of the parser's events gives a marked tree: every scalar is the text that was typed and knows
its line, so `no` is the word no and `12:30:45` is no number. `plain` makes typed data of the tree;
`turnbench.checked_yaml` makes a pydantic model of either. Aliases, anchors and tags are refused, since a
few of them unfold into gigabytes or into objects; so are keys that stand twice, a second document, deep
nesting and large files. PyYAML's own composer is not used: its recursion overflows on a deeply nested file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from turnbench.files import open_file
from turnbench.problems import FOUND_MAX, Problem, quoted

DEPTH_MAX = 12
BYTES_MAX = 2 * 1024 * 1024
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


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
        return None, [too_large(source, noun, size)]
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
        with open_file(path) as file:
            content = file.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            return None, [too_large(str(path), noun, Path(path).stat().st_size)]
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None, [Problem(str(path), 0, "not UTF-8 text; save it as UTF-8")]
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or "not a usable name"
        return None, [Problem(str(path), 0, f"cannot be read ({reason}); check the path")]
    return read(text, str(path), noun, start)


def too_large(source: str, noun: str, size_bytes: int) -> Problem:
    """What is wrong with a document of so many bytes."""
    what = f"{size_bytes:,} bytes; a {noun} may have {BYTES_MAX:,}, so use fewer or shorter texts"
    return Problem(source, 0, what)


def plain(root: Node) -> tuple[Any, list[Problem]]:
    """Typed data of a tree, and the values that cannot be read.

    Types are those of YAML's core schema, where nothing but true and false is a truth value; digits may be
    grouped by `_`. A number with a leading zero stays text: YAML 1.1 takes it for an octal one.
    """
    problems: list[Problem] = []

    def typed(node: Node) -> Any:
        if isinstance(node, Map):
            return {str(key): typed(value) for key, value in node.items()}
        if isinstance(node, Seq):
            return [typed(child) for child in node]
        try:
            return _scalar(node)
        except ValueError:  # int() refuses thousands of digits
            what = f"{quoted(node, 40)} is not a value that can be read"
            problems.append(Problem(node.source, node.line, what))
            return None

    return typed(root), problems


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
