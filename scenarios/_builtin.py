"""What the package brings along: mixes, tasks and sets of texts, each a YAML file of this folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

from scenarios._questions import varied
from turnbench.strict_yaml import Map, Seq, read

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The built-in scenarios: mixes first, then single tasks."""
    return [*sorted(built_in("mixes")), *sorted(built_in("tasks"))]


@lru_cache
def built_in(folder: str) -> dict[str, Path]:
    """The files of `mixes`, `tasks` or `texts` by name."""
    return {path.stem: path for path in (_HERE / folder).glob("*.yaml")}


@lru_cache
def tree(path: Path) -> Map:
    """The tree of a built-in file; never changed, since it is shared."""
    return cast(Map, read(path.read_text(encoding="utf-8"), path.name, "scenario")[0])


@lru_cache
def texts(name: str) -> Seq:
    """The items of a built-in set."""
    items = cast(Seq, tree(built_in("texts")[name])["items"])
    return varied(items) if name == "questions" else items


def pages() -> str:
    """All our own pages as one text."""
    return "\n\n".join(str(item["text"]) for name in ("documents", "passages") for item in texts(name))
