"""What a dialect is: how a turn is asked for, what the events of its answer say, and how it can be refused.

The engine and the transport know these words alone. A dialect gets the data of the server-sent events of a
stream, whole and in order, after the stream has ended; it knows neither sockets nor clocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from scenarios import Conversation
from turnbench.formats import TokenSource
from turnbench.outcomes import Outcome

Problem = tuple[Outcome, str]
"""What was wrong with a reply, and a sentence about it."""

Refused = Literal["context_full", "system_role"]
"""What a refusal can be about: the prompt is longer than the model's context, or the model takes no system
message. Either can be mended by asking otherwise."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one request says of its conversation."""

    content: Any
    """In the dialect's own form, such as a list of messages or one text."""
    characters: int
    """Length of all its texts; with the server's count of tokens it says how many a character is."""
    turns: int
    """Turns of the person that it still contains, at least one."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What is asked of the server in one turn, in no dialect's terms."""

    model: str
    prompt: Prompt
    max_tokens: int
    """Tokens of the longest answer."""
    exact_tokens: bool
    """The answer shall have exactly `max_tokens`."""
    stop: Sequence[str]
    """Texts that end the answer."""
    sampling: Mapping[str, Any]
    """temperature, top_p and the like, as the scenario and the command line have them."""
    tools: Sequence[Mapping[str, Any]]
    usage_in_events: bool
    """The server can count tokens in every event, and shall do so."""


@dataclass(slots=True)
class StreamedReply:
    """What one stream said. Lists with one entry per content event are aligned.

    Content is text, reasoning or a tool call; an event with only a role or nothing in it is none.
    """

    events: list[int] = field(default_factory=list)
    """Place of each content event among all events of the stream, from 0."""
    event_reads: list[int] = field(default_factory=list)
    """Index of the read that completed each content event; the transport sets it."""
    event_tokens: list[int] = field(default_factory=list)
    event_words: list[int] = field(default_factory=list)
    """Words that begin in each content event."""
    answer_event: int | None = None
    """Index, among content events, of the first that is not reasoning alone."""
    parts: list[str] = field(default_factory=list)
    """Texts of the content events, reasoning and answer."""
    answer: list[str] = field(default_factory=list)
    """Texts of the answer alone, without reasoning: what a history keeps."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    """The server's own count of the tokens it made."""
    reasoning_tokens: int | None = None
    finish_reason: str | None = None
    done: bool = False
    """The stream said that it is complete."""
    tool_calls: bool = False
    problem: Problem | None = None
    _counted_events: int = 0
    _counted_tokens: int = 0
    _in_word: bool = False

    def add(
        self, event: int, answer: str, reasoning: str, running_tokens: int | None, tool_call: bool = False
    ) -> None:
        """One content event; `running_tokens` is the server's count so far, where the event carries it.

        Tokens of events without content since the one before belong to this one.
        """
        if answer or tool_call:
            self.answer.append(answer)
            if tool_call:
                self.tool_calls = True
            if self.answer_event is None:
                self.answer_event = len(self.events)
        self.events.append(event)
        text = reasoning + answer if reasoning else answer
        self.parts.append(text)
        if running_tokens is None:
            self.event_tokens.append(1)
            self._counted_tokens += 1
        else:
            grown = running_tokens - self._counted_tokens
            self.event_tokens.append(grown if grown > 0 else 0)
            self._counted_events += 1
            if grown > 0:
                self._counted_tokens = running_tokens
        words = len(text.split())
        if text:
            if words and self._in_word and not text[0].isspace():
                words -= 1  # it goes on with the last word of the text before
            self._in_word = not text[-1].isspace()
        self.event_words.append(words)

    def end(self, done: bool, problem: Problem | None) -> None:
        """After the last event; a problem that an event itself reported goes first."""
        self.problem = self.problem or problem
        self.done = done and self.problem is None
        if self._counted_events < len(self.events):
            # A count that came with some events only can't be split over them.
            self.event_tokens = [1] * len(self.events)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def token_source(self) -> TokenSource:
        if self.completion_tokens is None:
            return "events"
        return "continuous_usage" if 0 < len(self.events) == self._counted_events else "usage"

    @property
    def output_tokens(self) -> int:
        """The server's own count where it gave one, else the number of content events."""
        return len(self.events) if self.completion_tokens is None else self.completion_tokens


def bearer(key: str) -> dict[str, str]:
    """The key as OpenAI's endpoints and most others want it."""
    return {"Authorization": f"Bearer {key}"} if key else {}


class Dialect(Protocol):
    """One way of asking a server for a streamed answer. It keeps no state between calls, and never raises for
    anything that a server says."""

    path: str
    """Where requests are posted, below the API's root (`.../v1`)."""

    required: Collection[str]
    """Fields without which a request is none; a server that refuses another can be asked without it."""
    substitutes: Mapping[str, str]
    """Fields that some servers want under another name."""

    def headers(self, key: str) -> dict[str, str]:
        """What every request carries for this dialect; `key` is empty where there is none."""
        ...

    def prompt(
        self,
        conversation: Conversation,
        replies: Sequence[str],
        *,
        salt: str,
        level: int,
        turns_dropped: int,
        system_role: bool,
    ) -> Prompt:
        """What the request of turn len(replies), from 0, says of the conversation so far.

        `salt` and `level` make the tag that keeps prompts apart in prefix caches. The `turns_dropped` oldest
        turns are not mentioned. Without `system_role` the system's text is sent with the first user's.
        """
        ...

    def body(self, request: TurnRequest) -> dict[str, Any]:
        """The request's body, to be sent as JSON."""
        ...

    def read(self, events: list[bytes]) -> StreamedReply:
        """What the events of a stream say, from their data; it stops at the first that is wrong."""
        ...

    def is_complete(self, tail: bytes) -> bool:
        """Whether a stream whose last bytes are these, up to 4 KiB, has said all that it has to say.

        A server may owe the end of the framing still; the turn need not wait for that.
        """
        ...

    def refusal(self, status: int, text: str) -> Refused | None:
        """What a response with this status and the start of this body refuses; None: nothing we know."""
        ...
