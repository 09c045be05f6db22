"""What the streams of OpenAI's responses and Anthropic's messages have in common: events that say their type.

Each event's data is one JSON object with a `type`; some servers end with `[DONE]` all the same. What is odd
and harmless (a field of another type, an unknown event) reads as if it were not there.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

from loadgen.dialects._chunks import COMMENT, EVENT_BYTES, CharacterJoiner, end_of, sample, undoubled
from loadgen.dialects._dialect import Problem, StreamedReply
from loadgen.dialects._failures import failure_in, failure_of_data, problem_of

_ENDED = (b"\n\n", b"\n\n\r\n", b"\r\n\r\n", b"\r\r")

Event = dict[str, Any]


def events_of(datas: list[bytes], reply: StreamedReply) -> tuple[list[Event], Problem | None, bool]:
    """The event of each data, up to the end mark or the first that is none; what was wrong there; and whether
    there was an end mark."""
    found: list[Event] = []
    end = end_of(datas)
    for data in datas[:end]:
        if len(data) > EVENT_BYTES:
            return found, ("oversized", f"one event of {len(data)} bytes: {sample(data)}"), False
        try:
            event = _decoded(data, reply)
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors too
            return found, ("bad_json", f"{error}: {sample(data)}"), False
        if not isinstance(event, dict):
            return found, ("bad_json", f"not an object: {sample(data)}"), False
        found.append(event)
    return found, None, end < len(datas)


def _decoded(data: bytes, reply: StreamedReply) -> Any:
    if not data or data.isspace():  # some servers keep a connection awake so
        return {}
    if data.startswith(b"data:"):
        reply.oddities.add("doubled")
        data = undoubled(data)
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        event = msgspec.json.decode(data)
        return {} if event is None else event
    if COMMENT.match(data):
        reply.oddities.add("comments")
        return {}
    event = json.loads(data.decode("utf-8", "surrogateescape"), parse_constant=lambda _: None)
    reply.oddities.add("types")
    return event


def failure_of(event: Event) -> Problem | None:
    """The problem that an event of no known type reports, in whatever shape."""
    failure = failure_in(event)
    return problem_of(failure) if failure else None


def failed_later(datas: list[bytes], reply: StreamedReply, ended_at: int) -> None:
    """Take in a failure that a server reports behind the end of its answer."""
    for data in datas[ended_at + 1 :]:
        if reply.problem is None and (failure := failure_of_data(data)):
            reply.fail(problem_of(failure))


def part(event: Any, *names: str) -> Any:
    """What stands at this place of nested objects; None where nothing does."""
    for name in names:
        event = event.get(name) if isinstance(event, dict) else None
    return event


def text_at(event: Any, *names: str) -> str:
    """The text at this place, or an empty one."""
    value = part(event, *names)
    return value if isinstance(value, str) else ""


def printable_at(event: Any, *names: str) -> str:
    """As `text_at`, for a record: half a character, which no file can hold, is shown as unknown."""
    return text_at(event, *names).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class AnswerTexts:
    """Adds the texts of one stream's events to its reply, with characters that are split over them joined."""

    def __init__(self, reply: StreamedReply) -> None:
        self._reply = reply
        self._place = 0
        """Of the last event with a text of the answer."""
        self._answer = CharacterJoiner(reply.oddities, "replace")
        self._thought = CharacterJoiner(reply.oddities, "replace")

    def add(self, place: int, answer: str, reasoning: str = "", *, tool_call: bool = False) -> None:
        """A content event, if it says anything, and be it one whole character."""
        self._place = place if answer else self._place
        answer = answer and self._answer.whole(answer)
        reasoning = reasoning and self._thought.whole(reasoning)
        if answer or reasoning or tool_call:
            self._reply.add(place, answer, reasoning, None, tool_call)

    def close(self) -> None:
        """After the last event: what never became a whole character is shown as one that is unknown."""
        reply = self._reply
        if not self._answer.is_open:
            return
        if not reply.events or self._place > reply.events[-1]:
            reply.add(self._place, "\ufffd", "", None)
        elif self._place == reply.events[-1] and reply.answer:  # there may have been reasoning alone
            reply.answer[-1] += "\ufffd"
            reply.parts[-1] += "\ufffd"


def last_line(tail: bytes) -> bytes:
    """The last line of a stream whose last event is closed by its blank line; else nothing."""
    return tail.rstrip(b"\r\n").replace(b"\r", b"\n").rpartition(b"\n")[2] if tail.endswith(_ENDED) else b""
