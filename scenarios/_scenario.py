"""The values that leave this room: a scenario and one planned conversation of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scenarios._schema import Item, Task


@dataclass(frozen=True)
class Turn:
    """One message of a person, and what the reply to it may be."""

    user: str
    think_s: float
    """Seconds the person waits after the reply before; 0.0 for the first turn."""
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Conversation `index` of a plan. `sampling` goes into each of its requests as it is."""

    index: int
    task: str
    system: str | None
    shared_system: bool
    turns: tuple[Turn, ...]
    sampling: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Script:
    """A checked scenario ready to play: tasks, and what belongs to each at the same place.

    Compared by identity, so that it can key a cache.
    """

    tasks: tuple[Task, ...]
    items: tuple[tuple[Item, ...], ...]
    weights: tuple[float, ...]
    sampling: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Scenario:
    """A scenario that has passed every check."""

    name: str
    text: str = field(repr=False)
    """One YAML document with every text in it: parse(text) gives exactly the same plan elsewhere."""
    size: int | None = field(compare=False)
    """Conversations of a finite scenario (each item of each task once); None: endless."""
    tasks: tuple[str, ...] = field(compare=False)
    slo: dict[str, dict[str, float]] = field(compare=False)
    """Limits per task: ttft_ms, response_delay_ms, ttg_ms, tpot_ms and perhaps share."""
    description: str = field(compare=False)
    script: Script = field(repr=False, compare=False)
