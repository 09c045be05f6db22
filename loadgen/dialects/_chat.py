"""OpenAI's chat completions, streamed: requests, chunks, their end and refusals, as far as they are needed.

The structs hold nothing that could form a cycle (`gc=False`), so that the garbage collector need not walk
over a reply's thousands; msgspec reads a whole reply's lines in one call.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from loadgen.dialects._dialect import Problem, Prompt, Refused, StreamedReply, TurnRequest, bearer
from scenarios import Conversation, dialogue, drop_oldest, without_system
from turnbench.cleaning import ERROR_CHARS

_DONE = b"[DONE]"
_EVENT_BYTES = 1 << 20
"""Longest event that is taken for one."""

# What servers write when they refuse: vLLM, SGLang and OpenAI; the chat templates of Gemma and Mistral.
_CONTEXT_FULL = re.compile(r"maximum context length|max_model_len|maximum model length|context window", re.I)
_NO_SYSTEM = re.compile(r"system (role|message)|roles must alternate|only user and assistant roles", re.I)

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class ChatUsageDetails(msgspec.Struct, gc=False):
    """The parts of a count."""

    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """The server's counts so far, or of the whole reply."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: ChatUsageDetails | None = None
    completion_tokens_details: ChatUsageDetails | None = None


class ChatDelta(msgspec.Struct, gc=False):
    """What one chunk adds to the answer."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class ChatChoice(msgspec.Struct, gc=False):
    """One of the answers that a chunk is part of; requests ask for one."""

    delta: ChatDelta | None = None
    text: str | None = None
    """In place of a delta: what one event of /completions adds."""
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct, gc=False):
    """One event of the stream."""

    choices: list[ChatChoice] | None = None
    usage: ChatUsage | None = None
    error: Any = None


_NO_DELTA = ChatDelta()
_NOTHING = ChatChunk()
"""Some servers keep a connection awake with an empty `data:`."""

_decoder = msgspec.json.Decoder(ChatChunk)
_NO_CHUNK = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ChatCompletions:
    """The dialect of /chat/completions."""

    path = "/chat/completions"
    required: Collection[str] = ("model", "messages", "stream", "max_tokens", "tools")
    substitutes: Mapping[str, str] = MappingProxyType({"max_tokens": "max_completion_tokens"})

    def headers(self, key: str) -> dict[str, str]:
        return bearer(key)

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
        """A list of messages."""
        messages = dialogue(conversation, salt, level, replies)
        for _ in range(turns_dropped):
            messages = drop_oldest(messages)
        if not system_role:
            messages = without_system(messages)
        characters = sum(len(m["content"] or str(m.get("tool_calls", ""))) for m in messages)
        return Prompt(messages, characters, sum(m["role"] == "user" for m in messages))

    def body(self, request: TurnRequest) -> dict[str, Any]:
        stream_options = {"include_usage": True}
        if request.usage_in_events:
            stream_options["continuous_usage_stats"] = True
        body: dict[str, Any] = {
            "model": request.model,
            "messages": request.prompt.content,
            "stream": True,
            "stream_options": stream_options,
            **request.sampling,
            "max_tokens": request.max_tokens,
        }
        if request.exact_tokens:
            body |= {"min_tokens": request.max_tokens, "ignore_eos": True}
        elif request.stop:
            body["stop"] = list(request.stop)
        if request.tools:
            body["tools"] = list(request.tools)
        return body

    def read(self, events: list[bytes]) -> StreamedReply:
        """Decode every chunk up to [DONE] or the first problem."""
        said_done = _DONE in events
        chunks, problem = chunks_of(events[: events.index(_DONE)] if said_done else events)
        reply = StreamedReply()
        usage: ChatUsage | None = None
        for number, chunk in enumerate(chunks):
            if chunk.error is not None:
                error = chunk.error
                message = error.get("message") if isinstance(error, dict) else error
                reply.problem = ("server_error", str(message)[:ERROR_CHARS])
                break
            if chunk.usage is not None:
                usage = chunk.usage
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            if choice.finish_reason is not None:
                reply.finish_reason = choice.finish_reason
            delta = choice.delta or _NO_DELTA
            answer = delta.content or choice.text or ""
            # Servers that renamed reasoning_content send the same text under both names.
            reasoning = delta.reasoning or delta.reasoning_content or ""
            if answer or reasoning or delta.tool_calls:
                count = None if chunk.usage is None else chunk.usage.completion_tokens
                reply.add(number, answer, reasoning, count, bool(delta.tool_calls))
        if usage is not None:
            reply.prompt_tokens, reply.completion_tokens = usage.prompt_tokens, usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                reply.cached_tokens = usage.prompt_tokens_details.cached_tokens
            if usage.completion_tokens_details is not None:
                reply.reasoning_tokens = usage.completion_tokens_details.reasoning_tokens
        reply.end(said_done, problem)
        return reply

    def is_complete(self, tail: bytes) -> bool:
        return tail.rstrip(b"\r\n").endswith(b"data: [DONE]")

    def refusal(self, status: int, text: str) -> Refused | None:
        if status != 400:
            return None
        if _CONTEXT_FULL.search(text):
            return "context_full"
        return "system_role" if _NO_SYSTEM.search(text) else None


def chunks_of(events: list[bytes]) -> tuple[list[ChatChunk], Problem | None]:
    """A chunk for each event's data, up to the first that is none, and what was wrong with that one."""
    if max(map(len, events), default=0) <= _EVENT_BYTES:
        with contextlib.suppress(*_NO_CHUNK):
            return list(map(_decoder.decode, events)), None
    chunks: list[ChatChunk] = []
    for data in events:
        if len(data) > _EVENT_BYTES:
            return chunks, ("oversized", f"one event of {len(data)} bytes: {_sample(data)}")
        try:
            chunks.append(_NOTHING if not data or data.isspace() else _decoder.decode(data))
        except _NO_CHUNK as error:
            return chunks, ("bad_json", f"{error}: {_sample(data)}")
    return chunks, None


def _sample(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
