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
from loadgen.dialects._chunks import usage_of
from loadgen.dialects._dialect import Prompt, Refused, StreamedReply, TurnRequest, bearer
from loadgen.dialects._failures import error_words, problem_of
from loadgen.dialects._typed_events import (
    AnswerTexts,
    Event,
    events_of,
    failed_later,
    failure_of,
    last_line,
    part,
    printable_at,
    text_at,
)
from scenarios import Conversation, text_of

_KIND = re.compile(
    r"response\.(?:(?P<reasoning>\w*reasoning)|(?P<call>\w*(call|tool))|(output_text|refusal|content_part|text))"
)
"""What a delta is of: OpenAI's reasoning_text and reasoning_summary_text, others' reasoning, of any call."""
_ENDS = ("response.completed", "response.incomplete", "response.done")
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
    ahead = None

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
        reply, done, closed = StreamedReply(), False, False
        texts = AnswerTexts(reply)
        found, problem, marked = events_of(events, reply)
        for place, event in enumerate(found):
            kind = text_at(event, "type")
            closed |= kind.endswith(".done")
            if kind.endswith(".delta") and (said := _KIND.match(kind)):
                text = text_at(event, "delta") or text_at(event, "delta", "text")
                if said["reasoning"]:
                    texts.add(place, "", text)
                elif said["call"]:
                    texts.add(place, "", tool_call=True)
                else:
                    texts.add(place, text)
            elif kind == "response.output_text.done" and not reply.answer:
                texts.add(place, text_at(event, "text"))  # a server that sends no deltas
            elif kind == "response.output_item.done" and not reply.tool_calls:
                if text_at(event, "item", "type").endswith("_call"):  # without a delta of its arguments
                    texts.add(place, "", tool_call=True)
            elif kind in _ENDS:
                done = True
                if not reply.events:  # it was made before any of it was said
                    texts.add(place, _whole_text(event))
                _take_end(reply, event)
                failed_later(events, reply, place)
                break
            elif kind in _FAILED:
                _take_usage(reply, event)
                reply.problem = problem_of(_why(event))
                break
            elif not kind.startswith("response.") and (failure := failure_of(event)):
                reply.problem = failure
                break
        texts.close()
        # A gateway writes its mark behind what broke off, too: then no text or item has had its end.
        reply.end(done or (marked and closed), problem)
        return reply

    def is_complete(self, tail: bytes) -> bool:
        return _LAST.search(last_line(tail)) is not None

    def refusal(self, status: int, text: str) -> Refused | None:
        return self._chat.refusal(status, text)


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        output = {"call_id": message["tool_call_id"], "output": text_of(message)}
        return [{"type": "function_call_output", **output}]
    text, calls = text_of(message), message.get("tool_calls", ())
    said = [{"role": message["role"], "content": text}] if text or not calls else []
    return said + [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls]


def _take_end(reply: StreamedReply, event: Event) -> None:
    _take_usage(reply, event)
    if text_at(event, "response", "status") in ("failed", "cancelled") or error_words(_error_of(event)):
        reply.problem = problem_of(_why(event))
    reason = printable_at(event, "response", "incomplete_details", "reason")
    finished = "tool_calls" if reply.tool_calls else "stop"
    if reason or "incomplete" in (event["type"].rpartition(".")[2], text_at(event, "response", "status")):
        finished = _CUT.get(reason, reason or "incomplete")
    reply.finish_reason = finished


def _error_of(event: Event) -> Any:
    return part(event, "response", "error")


def _why(event: Event) -> str:
    return error_words(_error_of(event)) or "the response failed"


def _whole_text(event: Event) -> str:
    items = part(event, "response", "output")
    contents = [part(item, "content") for item in items] if isinstance(items, list) else []
    parts = [each for content in contents if isinstance(content, list) for each in content]
    return "".join(text_at(each, "text") or text_at(each, "refusal") for each in parts)


def _take_usage(reply: StreamedReply, event: Event) -> None:
    usage = usage_of(part(event, "response", "usage"), reply.oddities)
    if usage is not None:
        reply.prompt_tokens = usage.prompt_tokens or None  # no prompt is of no token
        reply.completion_tokens = usage.output(reply.oddities)
        reply.cached_tokens, reply.reasoning_tokens = usage.cached, usage.reasoning
