"""YAML read strictly: plain data, the line of every value, and all mistakes together instead of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Where a value is: keys and list positions from the top."""


def read_strict_yaml(path: Path) -> tuple[Any, dict[Place, int], list[str]]:
    """Data, line (from 1) of every value by its place, and mistakes as `file:line: what`.

    A duplicate key, an alias (one can stand for billions of values) and a syntax error are mistakes.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if (alias := _first_alias(text)) is not None:
            return None, {}, [f"{path}:{alias}: aliases (*name) are not accepted; write the value out"]
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        return None, {}, [f"{path}: cannot be read ({error.strerror})"]
    except UnicodeDecodeError:
        return None, {}, [f"{path}: is not UTF-8 text"]
    except RecursionError:
        return None, {}, [f"{path}: is nested too deeply"]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", "unreadable character")
        return None, {}, [f"{path}:{line}: not valid YAML ({problem})"]
    reader = _Reader(path)
    return reader.read(node, ()), reader.lines, reader.errors


def _first_alias(text: str) -> int | None:
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    marks = (event.start_mark for event in events if isinstance(event, yaml.AliasEvent))
    return next((mark.line + 1 for mark in marks if mark), None)


class _Reader:
    """Walks the nodes of one document; keeps what it learns about lines and mistakes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Place, int] = {}
        self.errors: list[str] = []
        self._construct = yaml.SafeLoader("")

    def read(self, node: yaml.Node | None, place: Place) -> Any:
        if node is None:
            return None
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*place, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._mistake(key_node, "a key must be a plain word")
                continue
            if key in data:
                self._mistake(key_node, f"{key!r} is given twice")
            data[key] = self.read(value_node, (*place, key))
            self.lines[(*place, key)] = key_node.start_mark.line + 1
        return data

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._construct.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._mistake(node, f"{str(node.value)[:40]!r} is not a value that can be read")
            return None

    def _mistake(self, node: yaml.Node, what: str) -> None:
        self.errors.append(f"{self.path}:{node.start_mark.line + 1}: {what}")
