"""What the streams of OpenAI's responses and Anthropic's messages have in common: events that say their type.

Each event's data is one JSON object with a `type`; some servers end with `[DONE]` all the same. What is odd
and harmless (a field of another type, an unknown event) reads as if it were not there.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec

from loadgen.dialects._chunks import COMMENT, EVENT_BYTES
from loadgen.dialects._dialect import Problem, StreamedReply
from loadgen.dialects._failures import failure_in, failure_of_data, problem_of

_DONE = b"[DONE]"
_LARGEST_COUNT = 1 << 53
_ENDED = (b"\n\n", b"\n\n\r\n", b"\r\n\r\n", b"\r\r")

Event = dict[str, Any]


def events_of(datas: list[bytes], reply: StreamedReply) -> tuple[list[Event], Problem | None]:
    """The event of each data, up to the end mark or the first that is none, and what was wrong there."""
    found: list[Event] = []
    for data in datas:
        if data.strip(b' "') == _DONE:
            break
        if len(data) > EVENT_BYTES:
            return found, ("oversized", f"one event of {len(data)} bytes: {_sample(data)}")
        try:
            event = _decoded(data, reply)
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors too
            return found, ("bad_json", f"{error}: {_sample(data)}")
        if not isinstance(event, dict):
            return found, ("bad_json", f"not an object: {_sample(data)}")
        found.append(event)
    return found, None


def _decoded(data: bytes, reply: StreamedReply) -> Any:
    if not data or data.isspace():  # some servers keep a connection awake so
        return {}
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        event = msgspec.json.decode(data)
        return {} if event is None else event
    if COMMENT.match(data):
        reply.oddities.add("comments")
        return {}
    # A character that was split over two events is unknown in both.
    event = json.loads(data.decode("utf-8", "replace"), parse_constant=lambda _: None)
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
    """The text at this place, or an empty one; half a surrogate pair, which no file can hold, is unknown."""
    value = part(event, *names)
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def count_at(event: Any, *names: str) -> int | None:
    """The count at this place; None for what can be none."""
    value = part(event, *names)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None


def last_line(tail: bytes) -> bytes:
    """The last line of a stream whose last event is closed by its blank line; else nothing."""
    return tail.rstrip(b"\r\n").replace(b"\r", b"\n").rpartition(b"\n")[2] if tail.endswith(_ENDED) else b""


def _sample(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
