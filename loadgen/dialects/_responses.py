"""OpenAI's responses, streamed: the history as input items, and events that say their type.

A request carries the whole history and asks the server to keep nothing, as the other dialects do, so that
runs in different dialects compare.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from loadgen.dialects._chat import ChatCompletions
from loadgen.dialects._dialect import Prompt, Refused, StreamedReply, TurnRequest, bearer
from loadgen.dialects._failures import message_of, problem_of
from loadgen.dialects._typed_events import (
    Event,
    count_at,
    events_of,
    failed_later,
    failure_of,
    last_line,
    part,
    text_at,
)
from scenarios import Conversation, text_of

_TEXT = ("response.output_text.delta", "response.refusal.delta")
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_CALL = ("response.function_call_arguments.delta",)
_ENDS = ("response.completed", "response.incomplete")
_LAST = re.compile(rb'"type": ?"response\.(completed|incomplete|failed)"')
_FAILED = ("response.failed", "response.cancelled")
_CUT = {"max_output_tokens": "length", "max_tokens": "length"}
"""A reason for an incomplete response, in chat's words."""


class Responses:
    """The dialect of /responses."""

    path = "/responses"
    carries: Collection[str] = ("tools",)
    required: Collection[str] = ("model", "input", "stream", "max_output_tokens", "tools")
    substitutes: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self._chat = ChatCompletions()

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
        """A list of input items."""
        chat = self._chat.prompt(
            conversation,
            replies,
            salt=salt,
            level=level,
            turns_dropped=turns_dropped,
            system_role=system_role,
        )
        items = [item for message in chat.content for item in _items(message)]
        return Prompt(items, chat.characters, chat.turns)

    def body(self, request: TurnRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "input": request.prompt.content,
            "stream": True,
            "store": False,
            **request.sampling,
            "max_output_tokens": request.max_tokens,
        }
        if request.exact_tokens:
            body |= {"min_tokens": request.max_tokens, "ignore_eos": True}
        elif request.stop:
            body["stop"] = list(request.stop)
        if request.tools:
            body["tools"] = [{"type": "function", **tool["function"]} for tool in request.tools]
        return body

    def read(self, events: list[bytes]) -> StreamedReply:
        """Decode every event up to the last, or to the first problem."""
        reply, done = StreamedReply(), False
        found, problem = events_of(events, reply)
        for place, event in enumerate(found):
            kind = text_at(event, "type")
            if kind in _TEXT:
                if text := text_at(event, "delta"):
                    reply.add(place, text, "", None)
            elif kind in _REASONING:
                if text := text_at(event, "delta"):
                    reply.add(place, "", text, None)
            elif kind in _CALL:
                reply.add(place, "", "", None, tool_call=True)
            elif kind == "response.output_text.done" and not reply.answer:
                if text := text_at(event, "text"):  # a server that sends no deltas
                    reply.add(place, text, "", None)
            elif kind in _ENDS:
                done = True
                _take_end(reply, event)
                failed_later(events, reply, place)
                break
            elif kind in _FAILED:
                _take_usage(reply, event)
                error = part(event, "response", "error")
                reply.problem = problem_of(message_of(error) if error else "the response failed")
                break
            elif not kind.startswith("response.") and (failure := failure_of(event)):
                reply.problem = failure
                break
        reply.end(done, problem)
        return reply

    def is_complete(self, tail: bytes) -> bool:
        return _LAST.search(last_line(tail)) is not None

    def refusal(self, status: int, text: str) -> Refused | None:
        return self._chat.refusal(status, text)


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        output = {"call_id": message["tool_call_id"], "output": text_of(message)}
        return [{"type": "function_call_output", **output}]
    if calls := message.get("tool_calls"):
        return [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls]
    return [{"role": message["role"], "content": text_of(message)}]


def _take_end(reply: StreamedReply, event: Event) -> None:
    _take_usage(reply, event)
    reason = text_at(event, "response", "incomplete_details", "reason")
    finished = "tool_calls" if reply.tool_calls else "stop"
    if reason or event["type"] == "response.incomplete":
        finished = _CUT.get(reason, reason or "incomplete")
    reply.finish_reason = finished


def _take_usage(reply: StreamedReply, event: Event) -> None:
    usage = part(event, "response", "usage")
    reply.prompt_tokens = count_at(usage, "input_tokens")
    reply.completion_tokens = count_at(usage, "output_tokens")
    reply.cached_tokens = count_at(usage, "input_tokens_details", "cached_tokens")
    reply.reasoning_tokens = count_at(usage, "output_tokens_details", "reasoning_tokens")
