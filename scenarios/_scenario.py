"""The values that leave this room: a scenario, a planned conversation of it, and the error of a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scenarios._schema import Item, Source, Task
from scenarios.data import DataFile, Message, Place
from turnbench.answers import AnswerKey
from turnbench.formats import Finding
from turnbench.problems import FileProblems


class ScenarioError(FileProblems):
    """A scenario that cannot be played; `problems` holds every mistake found, one line each."""


@dataclass(frozen=True)
class Turn:
    """One message of a person, and what the reply to it may be."""

    user: str
    think_s: float
    """Seconds the person waits after the reply before; 0.0 for the first turn."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    """Tokens that the request should have, where a trace says; its text is filler of about that length."""
    read_wpm: float | None = None
    """Not None: the wait before follows from the real reply (see think_after); think_s is then a guess."""
    type_wpm: float | None = None
    patience_s: float | None = None
    """The person leaves when nothing has come for this long after the request."""
    leave_after_s: float | None = None
    """The person leaves this long after the first word, if the answer still runs."""
    remembered: str | None = None
    """What stays of `user` in later requests, where that is not all of it (a context looked up anew)."""
    canned: str | None = None
    """The reply that later requests contain, where the conversation's history is `canned`."""
    call: dict[str, Any] | None = None
    """Not None: `user` is the result of this tool call (id, name, arguments), sent in the role of a tool."""
    added: tuple[Message, ...] = ()
    """The messages that the turn adds, where that is more than `user` said by the person: those of a file of
    data, as it gives them. The tag of a conversation's first message is put into them."""
    key: AnswerKey | None = None
    """What a right answer says, where that is known."""
    given: tuple[Message, ...] = ()
    """Messages that stand in place of the real reply before this turn: a file's calls of tools."""
    place: Place | None = None
    """In a conversation with branches; None: the turn follows the one before it."""
    tools: tuple[dict[str, Any], ...] | None = None
    """In place of the conversation's."""
    body: dict[str, Any] = field(default_factory=dict)
    """Beside the conversation's `sampling`."""


@dataclass(frozen=True)
class Conversation:
    """Conversation `index` of a plan. `sampling` goes into each of its requests as it is."""

    index: int
    task: str
    system: str | None
    shared_system: bool
    turns: tuple[Turn, ...]
    sampling: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    """The `tools` of each request, in the form of the chat completions API."""
    history: str = "real"
    """Which replies a request contains: the real ones, the canned ones, or none (no earlier turn at all)."""
    at_context_end: str = "stop"
    """stop, drop_oldest or fail, when the next request would not fit into the model's context."""
    needs_context: int | None = None
    """Tokens of context without which the task is skipped."""
    shared_start: bool = False
    """The first message carries the tag of (salt, level) only: its prefix is meant to be shared."""

    @property
    def branches(self) -> bool:
        """Whether turns wait for others than the one before them: then each of them has its `place`."""
        return self.turns[0].place is not None


@dataclass(frozen=True, eq=False)
class Script:
    """A checked scenario ready to play: tasks, and what belongs to each at the same place.

    Compared by identity, so that it can key a cache.
    """

    tasks: tuple[Task, ...]
    items: tuple[tuple[Item, ...], ...]
    weights: tuple[float, ...]
    sampling: tuple[dict[str, Any], ...]
    bundles: tuple[tuple[Item, ...], ...] = ()
    """Per task, the documents that a bundle is made of."""


@dataclass(frozen=True, eq=False)
class OwnData:
    """The rows of a data file, in place of a Script's tasks."""

    source: Source
    rows: DataFile


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
    """Limits per task: of the metrics that can be limited, and perhaps a `share` of turns."""
    description: str = field(compare=False)
    script: Script = field(repr=False, compare=False)
    needs_context: dict[str, int] = field(default_factory=dict, compare=False)
    """Tokens of context that a task can't do without, for those that say so."""
    own: OwnData | None = field(default=None, repr=False, compare=False)
    """The file behind a scenario of data; `text` names it with its digest."""
    needs: frozenset[str] = field(default=frozenset(), compare=False)
    """What of a file of data a dialect must be able to carry: `tools`, `odd_tools`, `parts` (pictures and the
    like)."""
    notes: tuple[Finding, ...] = field(default=(), compare=False)
    """What of a file of data is not played as it says, and what was guessed."""

    @property
    def timed(self) -> bool:
        """A trace, whose conversations have times of their own (see arrivals)."""
        return self.own is not None and self.own.rows.timed
