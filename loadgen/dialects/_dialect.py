"""What a dialect is: how a turn is asked for, what the events of its answer say, and how it can be refused.

The engine and the transport know these words alone. A dialect gets the data of the server-sent events of a
stream, whole and in order, after the stream has ended; it knows neither sockets nor clocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import sub
from typing import Any, Literal, Protocol

from scenarios import Conversation
from turnbench.formats import TokenSource
from turnbench.outcomes import Outcome

Problem = tuple[Outcome, str]
"""What was wrong with a reply, and a sentence about it."""

Refused = Literal["context_full", "system_role"]
"""What a refusal can be about: the prompt is longer than the model's context, or the model takes no system
message. Either can be mended by asking otherwise."""

_LEAST_REPEATED = 8
"""Characters of a whole answer that is said again, below which it may be the model that repeats itself."""
_TAG = r"think|thinking|thought|reasoning|seed:think"
_OPENING_TAG = re.compile(
    rf"\s*(<({_TAG})>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>"
    r"|(<\|start\|>assistant)?<\|channel\|>(analysis|commentary)\b)"
)
_CLOSING_TAG = re.compile(
    rf"</({_TAG})>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>(\s*<\|START_(RESPONSE|TEXT)\|>)?|<\|end_of_thought\|>"
    r"|(<\|start\|>assistant)?<\|channel\|>final( <\|constrain\|>\w+)?<\|message\|>|assistantfinal"
)
"""It may stand alone, where the prompt's template has said the opening one, or the server has removed it: of
the channels of gpt-oss `analysis` and `assistantfinal` are left."""
_TAG_PARTS = ("<", "[", "◁", "assistantfinal")
"""No tag is without one of these."""
_SPACE = re.compile(r"\s*")
NOT_ENDED = ("null", "none", "not_finished", "unfinished", "in_progress", "finish_reason_unspecified")
"""What some servers give, in every event, as the reason of an end that has not come."""


ODDITIES = {
    "parts": "content comes as a list of parts: their texts are read, thinking as reasoning",
    "tags": "thinking stands as tags in the content: it counts as reasoning and is kept out of the history",
    "choices": "answers come in several choices: the first alone is measured, its tokens counted by events",
    "counts": "usage holds counts that are no whole numbers: those that can be none are passed over",
    "renamed": "usage stands under names of the server's own",
    "increments": "usage counts each event's own tokens, and not those so far: they are added up",
    "repeats": "events repeat the text before them: what is new in each is kept",
    "apart": "usage counts reasoning apart from the answer: the two are added up",
    "split": "characters are split over events: their parts are joined",
    "comments": "comments come as data of events: they are passed over",
    "unclosed": "the last event lacks the blank line that should end it: it is read all the same",
    "content_type": "streams come as another content type than text/event-stream: they are read all the same",
    "lines": "no blank lines stand between events: each line of data is read as one",
    "doubled": "lines of data begin with `data:` twice: what follows is read",
    "types": "fields of events have types of the server's own: they are read as far as they make sense",
}
"""What of a stream is odd and harmless, by a word for each: it is read, and reported once a run."""


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
    oddities: set[str] = field(default_factory=set)
    """What was odd in it and could be read all the same: keys of ODDITIES."""
    _counts: list[int] = field(default_factory=list)
    """The server's count in each content event that carried one."""
    _counted_tokens: int = 0
    _thoughts: list[str] = field(default_factory=list)
    _answer_chars: int = 0
    _thought_chars: int = 0
    _second_at: dict[str, int] = field(default_factory=dict)
    """The part with the second text of the answer, and that with the second thought."""
    _tool_event: int | None = None
    """The first content event with a tool call."""

    def add(
        self, event: int, answer: str, reasoning: str, running_tokens: int | None, tool_call: bool = False
    ) -> None:
        """One content event; `running_tokens` is the server's count so far, where the event carries it.

        Tokens of events without content since the one before belong to this one.
        """
        if answer and (len(self.answer) == 2 or len(answer) >= self._answer_chars > 0):
            answer = self._new_in(answer, self.answer, "answer")
            self._answer_chars = sum(map(len, self.answer))
        if reasoning and (len(self._thoughts) == 2 or len(reasoning) >= self._thought_chars > 0):
            reasoning = self._new_in(reasoning, self._thoughts, "thought")
            self._thought_chars = sum(map(len, self._thoughts))
        if not (answer or reasoning or tool_call):
            return
        if answer or tool_call:
            self.answer.append(answer)
            self._answer_chars += len(answer)
            if len(self.answer) == 2:
                self._second_at["answer"] = len(self.parts)
            if tool_call and self._tool_event is None:
                self.tool_calls, self._tool_event = True, len(self.events)
            if self.answer_event is None:
                self.answer_event = len(self.events)
        if reasoning:
            self._thoughts.append(reasoning)
            self._thought_chars += len(reasoning)
            if len(self._thoughts) == 2:
                self._second_at["thought"] = len(self.parts)
        self.events.append(event)
        self.parts.append(reasoning + answer)
        if running_tokens is None:
            self.event_tokens.append(1)
            self._counted_tokens += 1
        else:
            grown = running_tokens - self._counted_tokens
            self.event_tokens.append(grown if grown > 0 else 0)
            self._counts.append(running_tokens)
            if grown > 0:
                self._counted_tokens = running_tokens

    def add_answers(self, first: int, texts: list[str], counts: list[int] | None) -> None:
        """As `add` of each event in a row from `first` on that has nothing but a text of the answer."""
        sizes = list(map(len, texts))
        steps = [1] * len(texts) if counts is None else _steps(self._counted_tokens, counts)
        may_repeat = len(self.answer) < 3 or max(sizes) >= self._answer_chars
        if may_repeat or not min(sizes) or min(steps) <= 0 or self.answer_event is None:
            for number, text in enumerate(texts):
                if text:
                    self.add(first + number, text, "", None if counts is None else counts[number])
            return
        self.events += range(first, first + len(texts))
        self.answer += texts
        self.parts += texts
        self._answer_chars += sum(sizes)
        self.event_tokens += steps
        self._counted_tokens += sum(steps)
        self._counts += counts or ()

    def _new_in(self, text: str, said: list[str], kind: Literal["answer", "thought"]) -> str:
        """What of an event's text is new, if it begins with all that was said: some servers send it so.

        The second text of a stream may begin with the first by chance; the third tells.
        """
        if not text.startswith(said[0]) or len(said) == 1:
            return text
        before, second = "".join(said), said[1]
        grows = len(said) == 2 and len(said[0]) < len(second) < len(text)
        if grows and second.startswith(said[0]) and text.startswith(second):
            before = second
        if not text.startswith(before) or (text == before and len(text) < _LEAST_REPEATED):
            return text
        # "0", "0", "000": a model that repeats itself says so much.
        if before == said[0] * (len(before) // max(len(said[0]), 1)):
            return text
        if before == second:
            said[1] = second[len(said[0]) :]
            place = self._second_at[kind]
            part, new = self.parts[place], said[1]
            # Of a part the thought comes first, and then the answer.
            self.parts[place] = new + part[len(second) :] if kind == "thought" else part[: -len(second)] + new
        self.oddities.add("repeats")
        return text[len(before) :]

    def fail(self, problem: Problem) -> None:
        """The stream said, beside its events or after them, that it failed."""
        self.problem, self.done = self.problem or problem, False

    def end(self, done: bool, problem: Problem | None) -> None:
        """After the last event; a problem that an event itself reported goes first."""
        self.problem = self.problem or problem
        self.done = done and self.problem is None
        if 2 < len(self.events) == len(self._counts) and 2 * self._counted_tokens < len(self.events):
            # Counts that don't grow while events come are those of each event.
            self.oddities.add("increments")
            self.event_tokens = self._counts
            if self.completion_tokens is not None and self.completion_tokens <= self._counted_tokens:
                self.completion_tokens = sum(self._counts)
        if self.completion_tokens == 0 and self.events:  # a place that was never filled in
            self.oddities.add("counts")
            self.completion_tokens = None
        if len(self._counts) < len(self.events):
            # A count that came with some events only can't be split over them.
            self.event_tokens = [1] * len(self.events)
        if self.answer and not self._thoughts:
            self._take_thinking_out_of_answer()

    def _take_thinking_out_of_answer(self) -> None:
        """Where the server parses no reasoning, the model's tags stand in its answer."""
        text = "".join(self.answer)
        if not any(part in text for part in _TAG_PARTS):
            return
        opened = _OPENING_TAG.match(text)
        closed = _CLOSING_TAG.search(text)
        if opened is None and closed is None:
            return
        self.oddities.add("tags")
        begin = _SPACE.match(text, closed.end()).end() if closed else len(text)  # type: ignore[union-attr]
        self.answer = [text[begin:]] if begin < len(text) else []
        self.answer_event, passed = self._tool_event, 0
        for number, part in enumerate(self.parts):
            passed += len(part)
            if passed > begin:
                self.answer_event = number if self._tool_event is None else min(number, self._tool_event)
                return

    def event_words(self) -> list[int]:
        """Words that begin in each content event; counted when the record is made."""
        words_of = _token_words if max(map(len, self.parts), default=0) <= _TOKEN_CHARS else _words
        found: list[int] = []
        in_word = False
        for words, begins, ends in map(words_of, self.parts):
            # It may go on with the last word of the text before.
            found.append(words - 1 if begins and in_word else words)
            if ends is not None:
                in_word = ends
        return found

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def token_source(self) -> TokenSource:
        if self.completion_tokens is None:
            return "events"
        return "continuous_usage" if 0 < len(self.events) == len(self._counts) else "usage"

    @property
    def output_tokens(self) -> int:
        """The server's own count where it gave one, else the number of content events."""
        return len(self.events) if self.completion_tokens is None else self.completion_tokens


_TOKEN_CHARS = 32
"""Longest text whose words are remembered: longer ones are no single token's, and seldom come twice."""


def _words(text: str) -> tuple[int, bool, bool | None]:
    """How many words there are, whether it begins with one, and whether it ends with one (None: no text)."""
    if not text:
        return 0, False, None
    return len(text.split()), not text[0].isspace(), not text[-1].isspace()


_token_words = lru_cache(maxsize=4096)(_words)


def _steps(before: int, counts: list[int]) -> list[int]:
    return list(map(sub, counts, [before, *counts[:-1]]))


def bearer(key: str) -> dict[str, str]:
    """The key as OpenAI's endpoints and most others want it."""
    return {"Authorization": f"Bearer {key}"} if key else {}


class ReadAhead(Protocol):
    """What a dialect has read of one stream's events while more of them still came."""

    def take(self, events: list[bytes], one_by_one: bool) -> bool:
        """Read what is new in this list of all so far; of much of it, b"" is left in its place.

        `one_by_one`: few events come, each is read at once; else they wait to be many.
        False: this stream is none to be read so, and its events are to be given to `Dialect.read`, whole.
        """
        ...

    def read(self, events: list[bytes]) -> StreamedReply | None:
        """As `Dialect.read`, of the list that `take` had, now that it is whole; None: as False above."""
        ...


class Dialect(Protocol):
    """One way of asking a server for a streamed answer. It keeps no state between calls, and never raises for
    anything that a server says."""

    path: str
    """Where requests are posted, below the API's root (`.../v1`)."""

    required: Collection[str]
    """Fields without which a request is none; a server that refuses another can be asked without it."""
    substitutes: Mapping[str, str]
    """Fields that some servers want under another name."""
    carries: Collection[str]
    """What of a conversation beside texts it has words for: `tools`, `odd_tools` (calls and results in older
    or looser forms, passed on as they are), `parts` (pictures and the like)."""

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

    @property
    def ahead(self) -> Callable[[], ReadAhead] | None:
        """Begins to read a stream that still comes; None: there is no gain in that."""
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
