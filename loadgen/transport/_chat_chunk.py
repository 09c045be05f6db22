"""The chunks of a streamed chat completion: as much of OpenAI's format as is needed, and its decoding.

The structs hold nothing that could form a cycle (`gc=False`), so that the garbage collector need not walk
over a reply's thousands; msgspec reads a whole reply's lines in one call.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import msgspec

from turnbench.cleaning import ERROR_CHARS
from turnbench.outcomes import Outcome

Problem = tuple[Outcome, str]
"""What was wrong with a reply, and a sentence about it."""

_EVENT_BYTES = 1 << 20
"""Longest event that is taken for one."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class Usage(msgspec.Struct, gc=False):
    """OpenAI's usage object, as far as it is needed."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class Delta(msgspec.Struct, gc=False):
    """What one chunk adds to the answer."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers that a chunk tells of; ours ask for one."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of the stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


NOTHING = Chunk()
"""Some servers keep a connection awake with an empty `data:`."""

_decoder = msgspec.json.Decoder(Chunk)
_NO_CHUNK = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def chunks_of(events: list[bytes]) -> tuple[list[Chunk], Problem | None]:
    """A chunk for each event's data, up to the first that is none, and what was wrong with that one."""
    lines = b"\n".join(events)
    # msgspec takes any values in a row, whatever lines they stand on: each line must be one object.
    plain = lines.count(b"\n") < len(events) and lines.count(b"}\n{") == len(events) - 1
    if plain and lines.startswith(b"{") and len(max(events, key=len)) <= _EVENT_BYTES:
        with contextlib.suppress(*_NO_CHUNK):
            chunks = _decoder.decode_lines(lines)
            if len(chunks) == len(events):
                return chunks, None
    return _one_by_one(events)


def _one_by_one(events: list[bytes]) -> tuple[list[Chunk], Problem | None]:
    chunks: list[Chunk] = []
    for data in events:
        if len(data) > _EVENT_BYTES:
            return chunks, ("oversized", f"one event of {len(data)} bytes: {_sample(data)}")
        try:
            chunks.append(NOTHING if not data or data.isspace() else _decoder.decode(data))
        except _NO_CHUNK as error:
            return chunks, ("bad_json", f"{error}: {_sample(data)}")
    return chunks, None


def message_of(error: Any) -> str:
    """What an error object in place of a chunk says."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:ERROR_CHARS]


def _sample(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
