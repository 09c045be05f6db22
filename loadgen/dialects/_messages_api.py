"""Anthropic's messages, streamed: content blocks that open, grow and close, and usage at both ends."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from loadgen.dialects._chat import FAILED_FINISH, ChatCompletions
from loadgen.dialects._chunks import ChatUsage, usage_of
from loadgen.dialects._dialect import NOT_ENDED, Prompt, Refused, StreamedReply, TurnRequest
from loadgen.dialects._typed_events import (
    AnswerTexts,
    events_of,
    failed_later,
    failure_of,
    last_line,
    part,
    printable_at,
    text_at,
)
from scenarios import Conversation, text_of

_VERSION = "2023-06-01"
"""Of the API; the only one since then."""
_ENDED = re.compile(rb'^data: ?\{.*"type": ?"message_stop"')
_QUIET = ("ping",)
_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""A stop reason in chat's words; any other stays as it is."""


class AnthropicMessages:
    """The dialect of /messages."""

    path = "/messages"
    carries: Collection[str] = ("tools",)
    required: Collection[str] = ("model", "messages", "system", "stream", "max_tokens", "tools")
    substitutes: Mapping[str, str] = MappingProxyType({})
    ahead = None

    def __init__(self) -> None:
        self._chat = ChatCompletions()

    def headers(self, key: str) -> dict[str, str]:
        return {"anthropic-version": _VERSION} | ({"x-api-key": key} if key else {})

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
        """(the system's text or nothing, a list of messages)."""
        chat = self._chat.prompt(
            conversation,
            replies,
            salt=salt,
            level=level,
            turns_dropped=turns_dropped,
            system_role=system_role,
        )
        system = "\n\n".join(text_of(m) for m in chat.content if m["role"] == "system")
        messages = [_message(message) for message in chat.content if message["role"] != "system"]
        return Prompt((system, messages), chat.characters, chat.turns)

    def body(self, request: TurnRequest) -> dict[str, Any]:
        system, messages = request.prompt.content
        body: dict[str, Any] = {"model": request.model, "messages": messages}
        if system:
            body["system"] = system
        body |= {"stream": True, **request.sampling, "max_tokens": request.max_tokens}
        if request.exact_tokens:
            body |= {"min_tokens": request.max_tokens, "ignore_eos": True}
        elif request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.tools:
            body["tools"] = [_tool(tool["function"]) for tool in request.tools]
        return body

    def read(self, events: list[bytes]) -> StreamedReply:
        """Decode every event up to message_stop or the first problem."""
        reply, done, closed = StreamedReply(), False, False
        texts = AnswerTexts(reply)
        found, problem, marked = events_of(events, reply)
        for place, event in enumerate(found):
            match text_at(event, "type"):
                case "message_start":
                    _take_usage(reply, part(event, "message", "usage"))
                case "content_block_start":
                    _add(texts, place, part(event, "content_block"))
                case "content_block_delta":
                    _add(texts, place, part(event, "delta"))
                case "message_delta":
                    usage = _take_usage(reply, event.get("usage"))
                    if usage is not None and usage.completion_tokens is not None:
                        reply.completion_tokens = usage.completion_tokens  # that of the start is provisional
                    reason = printable_at(event, "delta", "stop_reason")
                    if reason and reason.lower() not in NOT_ENDED:
                        reply.finish_reason = _FINISHED.get(reason, reason)
                case "content_block_stop":
                    closed = True
                case "message_stop":
                    done = True
                    failed_later(events, reply, place)
                    break
                case kind if kind not in _QUIET and (failure := failure_of(event)):
                    reply.problem = failure
                    break
        if reply.finish_reason is not None and FAILED_FINISH.search(reply.finish_reason):
            problem = problem or ("server_error", f"the server ended the answer as {reply.finish_reason}")
        texts.close()
        # A gateway writes its mark behind what broke off, too: then no block has had its end.
        reply.end(done or (marked and closed), problem)
        return reply

    def is_complete(self, tail: bytes) -> bool:
        return _ENDED.match(last_line(tail)) is not None

    def refusal(self, status: int, text: str) -> Refused | None:
        return self._chat.refusal(status, text)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
        return {"role": "user", "content": [{**result, "content": text_of(message)}]}
    text = text_of(message)
    if calls := message.get("tool_calls"):
        said = [{"type": "text", "text": text}] if text.strip() else []
        uses = [
            {"type": "tool_use", "id": call["id"], "name": call["function"]["name"],
             "input": json.loads(call["function"]["arguments"])}
            for call in calls
        ]  # fmt: skip
        return {"role": "assistant", "content": [*said, *uses]}
    return {"role": message["role"], "content": text}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    more = {"description": function["description"]} if "description" in function else {}
    schema = function.get("parameters") or {"type": "object"}
    return {"name": function["name"], **more, "input_schema": schema}


def _add(texts: AnswerTexts, place: int, block: Any) -> None:
    """A content event, if this block or delta of one says anything."""
    calls = text_at(block, "type") in ("tool_use", "input_json_delta")
    texts.add(place, text_at(block, "text"), text_at(block, "thinking"), tool_call=calls)


def _take_usage(reply: StreamedReply, value: Any) -> ChatUsage | None:
    """The counts so far. Anthropic's input tokens are those that no cache held, so the three are added."""
    usage = usage_of(value, reply.oddities)
    if usage is None:
        return None
    fresh, read, made = usage.prompt_tokens, usage.cached, usage.cache_creation_input_tokens
    if fresh is not None and (fresh or reply.prompt_tokens is None):
        reply.prompt_tokens = (fresh + (read or 0) + (made or 0)) or None  # no prompt is of no token
    if read is not None:
        reply.cached_tokens = read
    return usage
