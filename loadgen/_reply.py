"""Makes sense of a finished stream: OpenAI chat chunks to tokens, words and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from loadgen._arrivals import Arrivals, Body
from loadgen._records import Outcome, TokenSource
from loadgen._sse import events

ERROR_CHARS = 500
_EVENT_BYTES = 1 << 20
"""Longest event that is taken for one."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class Usage(msgspec.Struct):
    """OpenAI's usage object, as far as it is needed."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


@dataclass(slots=True)
class Reply:
    """What one stream said. Event lists are aligned: one entry per content event."""

    event_reads: list[int] = field(default_factory=list)
    """Index of the read that completed each content event."""
    event_tokens: list[int] = field(default_factory=list)
    event_words: list[int] = field(default_factory=list)
    answer_event: int | None = None
    parts: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    """The text of the answer alone, without reasoning: what a history keeps."""
    usage: Usage | None = None
    counted_events: int = 0
    """Content events that carried the server's running count of tokens."""
    finish_reason: str | None = None
    done: bool = False
    tool_calls: bool = False
    problem: tuple[Outcome, str] | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def token_source(self) -> TokenSource:
        if self.usage is None or self.usage.completion_tokens is None:
            return "events"
        return "continuous_usage" if 0 < len(self.event_reads) == self.counted_events else "usage"

    @property
    def output_tokens(self) -> int:
        """The server's own count where it gave one, else the number of content events."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return len(self.event_reads)


def read_reply(body: Body) -> Reply:
    """Decode every event of a streamed chat completion; stops at [DONE] or the first problem."""
    reply = Reply()
    counted = 0  # tokens the server has reported up to the last content event
    in_word = False
    for data, end in events(body.data):
        if data == b"[DONE]":
            reply.done = True
            break
        if not data.strip():  # some servers keep a connection awake with an empty `data:`
            continue
        if len(data) > _EVENT_BYTES:
            reply.problem = ("oversized", f"one event of {len(data)} bytes: {_sample(data)}")
            break
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reply.problem = ("bad_json", f"{error}: {_sample(data)}")
            break
        if chunk.error is not None:
            reply.problem = ("server_error", _message(chunk.error))
            break
        if chunk.usage is not None:
            reply.usage = chunk.usage
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            reply.finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is None:
            continue
        # Servers that renamed reasoning_content send the same text under both names.
        text = (delta.reasoning or delta.reasoning_content or "") + (delta.content or "")
        if not text and not delta.tool_calls:
            continue
        if delta.content or delta.tool_calls:
            reply.tool_calls = reply.tool_calls or bool(delta.tool_calls)
            if reply.answer_event is None:
                reply.answer_event = len(reply.event_reads)
        reply.event_reads.append(body.read_of(end))
        counted = _count_tokens(reply, chunk.usage, counted)
        reply.event_words.append(_words_begun(text, in_word))
        in_word = not text[-1].isspace() if text else in_word
        reply.parts.append(text)
        if delta.content:
            reply.answer.append(delta.content)
    if reply.counted_events < len(reply.event_reads):
        # A count that came with some events only can't be split over them.
        reply.event_tokens = [1] * len(reply.event_reads)
    return reply


def _count_tokens(reply: Reply, usage: Usage | None, counted: int) -> int:
    """Tokens of the event at hand: what the server's running count grew by since the last content event."""
    total = usage.completion_tokens if usage is not None else None
    if total is None:
        reply.event_tokens.append(1)
        return counted + 1
    reply.counted_events += 1
    reply.event_tokens.append(max(total - counted, 0))
    return max(total, counted)


def _words_begun(text: str, in_word: bool) -> int:
    """Words that begin in `text`, which may go on with the last one of the text before it."""
    count = len(text.split())
    return count - 1 if count and in_word and not text[0].isspace() else count


def outcome_of(reply: Reply, log: Arrivals) -> tuple[Outcome, str | None]:
    """How a stream with status 200 ended, and a sentence where it was not well."""
    if reply.problem is not None:
        return reply.problem
    if not reply.done and reply.finish_reason is None:
        if log.reset is not None:
            return "disconnected", f"connection broke mid-stream: {log.reset}"
        return "truncated", "the stream ended without a finish_reason or [DONE]"
    if not reply.event_reads:
        return "empty", "the reply had no content"
    if reply.answer_event is None:
        return "reasoning_only", "the reply had reasoning but no answer"
    return "ok", None


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:ERROR_CHARS]


def _sample(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
