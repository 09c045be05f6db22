"""What the streams of OpenAI's responses and Anthropic's messages have in common: events that say their type.

Each event's data is one JSON object with a `type`; some servers end with `[DONE]` all the same. What is odd
and harmless (a field of another type, an unknown event) reads as if it were not there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loadgen.dialects._dialect import Problem
from loadgen.dialects._failures import message_of, problem_of

_DONE = b"[DONE]"
_EVENT_BYTES = 1 << 20
"""Longest event that is taken for one."""
_LARGEST_COUNT = 1 << 53
_ENDED = (b"\n\n", b"\n\n\r\n", b"\r\n\r\n", b"\r\r")

Event = dict[str, Any]


def events_of(datas: list[bytes]) -> tuple[list[Event], Problem | None]:
    """The event of each data, up to the end mark or the first that is none, and what was wrong there."""
    found: list[Event] = []
    for data in datas:
        if data == _DONE:
            break
        if len(data) > _EVENT_BYTES:
            return found, ("oversized", f"one event of {len(data)} bytes: {_sample(data)}")
        if not data or data.isspace():  # some servers keep a connection awake so
            found.append({})
            continue
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return found, ("bad_json", f"{error}: {_sample(data)}")
        if not isinstance(event, dict):
            return found, ("bad_json", f"not an object: {_sample(data)}")
        found.append(event)
    return found, None


def error_of(error: Any) -> Problem:
    """The problem that an error in a stream reports, whatever its shape."""
    return problem_of(message_of(error))


def part(event: Any, *names: str) -> Any:
    """What stands at this place of nested objects; None where nothing does."""
    for name in names:
        event = event.get(name) if isinstance(event, dict) else None
    return event


def text_at(event: Any, *names: str) -> str:
    """The text at this place, or an empty one."""
    value = part(event, *names)
    return value if isinstance(value, str) else ""


def count_at(event: Any, *names: str) -> int | None:
    """The count at this place; None for what can be none."""
    value = part(event, *names)
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else None


def last_line(tail: bytes) -> bytes:
    """The last line of a stream whose last event is closed by its blank line; else nothing."""
    return tail.rstrip(b"\r\n").replace(b"\r", b"\n").rpartition(b"\n")[2] if tail.endswith(_ENDED) else b""


def _sample(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
