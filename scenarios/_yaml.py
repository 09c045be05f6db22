"""YAML read as marked text: every scalar stays the text that was typed and knows its line.

So `no` is the word no and `12:30:45` is no number; the schema decides what each text means. The tree is
built from parser events, not by PyYAML's composer, whose recursion a deeply nested file can overflow.
"""

from __future__ import annotations

from typing import Any, cast

import yaml

from scenarios._errors import FOUND_MAX, Problem, ScenarioError, quoted

DEPTH_MAX = 12
BYTES_MAX = 2 * 1024 * 1024

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Text(str):
    """A scalar, with the file and line it came from."""

    source: str
    line: int


class Map(dict[str, Any]):
    """A mapping; its keys are Text, too (see key_of)."""

    source: str
    line: int


class Seq(list[Any]):
    """A sequence."""

    source: str
    line: int


Node = Text | Map | Seq


def key_of(node: Map, name: str) -> Text:
    """The key as it stands in the file, which knows its line."""
    return cast(Text, next(key for key in node if key == name))


def read(text: str, source: str) -> tuple[Node, list[Problem]]:
    """The tree of one YAML document and the mistakes that left it readable.

    Raises ScenarioError where nothing can be made of it: no YAML, too large, too deep, empty.
    """
    _refuse_strange_text(text, source)
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.feed(event)
    except yaml.YAMLError as error:
        raise ScenarioError([*builder.problems, _syntax_problem(error, source)]) from None
    if builder.root is None:
        what = "the file is empty; start it with 'format: turnbench-scenario/1'"
        raise ScenarioError([*builder.problems, Problem(source, 1, what)])
    return builder.root, builder.problems


def _refuse_strange_text(text: str, source: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ScenarioError([Problem(source, 0, "holds half a character; save it as UTF-8")]) from None
    if size > BYTES_MAX:
        what = f"{size:,} bytes; a scenario may have {BYTES_MAX:,}, so use fewer or shorter texts"
        raise ScenarioError([Problem(source, 0, what)])


def _syntax_problem(error: yaml.YAMLError, source: str) -> Problem:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    reason = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML")
    line = mark.line + 1 if mark is not None else 0
    if "cannot start any token" in reason:
        return Problem(source, line, "a tab or a character that YAML keeps for itself; use spaces, or quotes")
    if begun is not None and begun.line + 1 != line:
        reason += f" {getattr(error, 'context', '')} that starts on line {begun.line + 1}"
    return Problem(source, line, f"not readable as YAML ({reason}); look at this line and the one before")


class _Builder:
    """Turns the parser's events into a tree, one event at a time."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._open: list[Map | Seq] = []
        self._keys: list[Text | None] = []
        self._documents = 0

    def feed(self, event: Any) -> None:
        line: int = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self._report(line, "a second document starts here; keep one scenario in one file")
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_cleverness(event, line)
            self._node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _report(self, line: int, text: str) -> None:
        self.problems.append(Problem(self.source, line, text))
        if len(self.problems) == FOUND_MAX:
            raise ScenarioError(self.problems)

    def _refuse_cleverness(self, event: Any, line: int) -> None:
        """Anchors, aliases and tags: a few of them can unfold into gigabytes or into objects."""
        if isinstance(event, yaml.AliasEvent):
            self._report(line, f"alias {quoted(f'*{event.anchor}')}; write the text out again in its place")
        elif event.anchor is not None:
            self._report(line, f"anchor {quoted('&' + event.anchor)}; leave it out, there are no aliases")
        if getattr(event, "tag", None) is not None:
            self._report(line, f"tag {quoted(event.tag)}; leave it out, the schema knows the type")

    def _node(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.MappingStartEvent):
            node: Node = Map()
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Seq()
        else:
            node = Text(getattr(event, "value", ""))
        node.source, node.line = self.source, line
        self._place(node, line)
        if isinstance(node, Map | Seq):
            if len(self._open) == DEPTH_MAX:
                raise ScenarioError([*self.problems, Problem(self.source, line, "nested too deep; no part of "
                                     f"a scenario needs more than {DEPTH_MAX} levels")])  # fmt: skip
            self._open.append(node)
            self._keys.append(None)

    def _place(self, node: Node, line: int) -> None:
        if not self._open:
            self.root = node if self.root is None else self.root
            return
        parent, key = self._open[-1], self._keys[-1]
        if isinstance(parent, Seq):
            parent.append(node)
        elif key is None:
            self._keys[-1] = self._as_key(node, line)
        else:
            parent.setdefault(key, node)
            self._keys[-1] = None

    def _as_key(self, node: Node, line: int) -> Text:
        """A node in key position; lists and mappings can't be keys and are replaced by an empty one."""
        parent = self._open[-1]
        if not isinstance(node, Text):
            self._report(line, "a list or mapping stands where a key should; write 'key: value'")
            node = Text()
            node.source, node.line = self.source, line
        elif node in parent:
            first = key_of(cast(Map, parent), node).line
            self._report(line, f"key {quoted(node)} is here twice (first on line {first}); keep one")
        return node
