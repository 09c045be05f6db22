"""OpenAI's responses: one that opens, an output item whose text grows, and the whole response at the end."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from serve.emulator.answers import Answer
from serve.emulator.dialects.chat import ChatMessage, check_roles, render
from serve.emulator.dialects.choices import SharedFields, check_fields, decode, framed, request_of
from serve.emulator.dialects.typed import (
    END,
    NUMBER,
    TEXT,
    DeltaTemplate,
    TypedEvents,
    conversation_of,
    text_of_content,
    typed_event,
)
from serve.emulator.request import EmulatedModel, GenerationRequest, bad_request

_OPENING_EVENTS = 4


class ResponsesBody(SharedFields, kw_only=True):
    """The body of a request."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None


_decoder = msgspec.json.Decoder(ResponsesBody)


class ResponsesDialect:
    """POST /v1/responses."""

    path = "/v1/responses"

    def read(self, body: bytes, model: EmulatedModel) -> GenerationRequest:
        """The request in this body; raises RequestRefused."""
        asked = decode(_decoder, body)
        asked.stream_options, asked.min_tokens = None, 0
        check_fields(asked, model, "max_output_tokens", asked.max_output_tokens)
        given = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
        if not given or not all(isinstance(each, dict) for each in given):
            raise bad_request("input must be a text or a list of items", "input")
        messages = conversation_of(asked.instructions or "", [_message(item) for item in given])
        check_roles(messages, model)
        users = (message.text() for message in messages if message.role == "user")
        return request_of(asked, model, render(messages), next(users, ""), asked.max_output_tokens)

    def events(
        self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int
    ) -> _ResponseEvents:
        """The events of the reply with this number, counted from 1."""
        return _ResponseEvents(request, answer, model, number)

    def text_of(self, event: Any) -> str:
        """The generated text that an event carries; empty if none. The ends of a text, of its item and of the
        response repeat it."""
        return str(event.get("delta") or "") or _text_in(event)

    def text_event(self, text: str) -> Any:
        """An event with this text that no model made."""
        where = {"item_id": "msg_emulated", "output_index": 0, "content_index": 0, "sequence_number": 0}
        return {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []}

    def error_event(self, error: dict[str, Any]) -> Any:
        """An event that reports this error."""
        said = {"code": error["type"], "message": error["message"], "param": None}
        return {"type": "error", **said, "sequence_number": 0}

    def without_text(self, event: Any) -> Any | None:
        """Nothing is left of a delta without its text."""
        return None if "delta" in event else _without_text(event)

    def as_reasoning(self, event: Any, key: str) -> Any:
        """The event with its text as reasoning, whatever the key."""
        return {**event, "type": event["type"].replace("output_text", "reasoning_text")}

    def counts_of(self, event: Any) -> tuple[dict[str, Any], str] | None:
        """Where an event counts output tokens at the end, and under which name."""
        usage = event.get("response", {}).get("usage")
        return (usage, "output_tokens") if usage else None

    def is_end(self, event: Any) -> bool:
        """Whether a stream is over with this event."""
        return event.get("type") in ("response.completed", "response.incomplete")


def _text_in(value: Any) -> str:
    """The first text anywhere in an event."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in inner if (found := _text_in(each))), "")


def _without_text(value: Any) -> Any:
    if isinstance(value, dict):
        bare = {key: _without_text(each) for key, each in value.items()}
        return bare | {"text": ""} if isinstance(value.get("text"), str) else bare
    return [_without_text(each) for each in value] if isinstance(value, list) else value


def _message(item: dict[str, Any]) -> ChatMessage:
    match item.get("type", "message"):
        case "message" if isinstance(item.get("content"), str | list):
            return ChatMessage(str(item.get("role", "user")), text_of_content(item["content"]))
        case "function_call":
            return ChatMessage("assistant", f"{item.get('name')}({item.get('arguments')})")
        case "function_call_output":
            return ChatMessage("tool", text_of_content(item.get("output")))
    raise bad_request("input: items are messages, function calls and their outputs", "input")


class _ResponseEvents(TypedEvents):
    def __init__(self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int) -> None:
        super().__init__(request, answer, model, number)
        self._created_s = int(time.time())
        self._item_id = f"msg_emulated_{number:08x}"
        self._where = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        self._delta = DeltaTemplate(
            "response.output_text.delta", **self._where, delta=TEXT, logprobs=[], sequence_number=NUMBER
        )

    def opening(self) -> bytes:
        """The response without output, and the item and part that its text will stand in."""
        begun = self._response("in_progress", [], None)
        item = self._item("in_progress", [])
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        events = [
            typed_event("response.created", response=begun, sequence_number=0),
            typed_event("response.in_progress", response=begun, sequence_number=1),
            typed_event("response.output_item.added", output_index=0, item=item, sequence_number=2),
            typed_event("response.content_part.added", **self._where, part=part, sequence_number=3),
        ]
        return b"".join(map(framed, events))

    def contents(self, pieces: list[str], number: int) -> list[bytes]:
        """Events in the middle of the answer, the first of them of the token with this number."""
        first = _OPENING_EVENTS + number - 1
        return [self._delta.framed(piece, first + place) for place, piece in enumerate(pieces)]

    def last(self, piece: str, tokens: int) -> bytes:
        """The last piece of text, if there is one, and the ends of its part and item."""
        after = _OPENING_EVENTS + len(self._answer.pieces)
        text: dict[str, Any] = {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": None,
        }
        item = self._item("completed", [text])
        events = [
            typed_event("response.output_text.done", **self._where, text=self._text, logprobs=[],
                        sequence_number=after),
            typed_event("response.content_part.done", **self._where, part=text, sequence_number=after + 1),
            typed_event("response.output_item.done", output_index=0, item=item, sequence_number=after + 2),
        ]  # fmt: skip
        delta = self._delta.framed(piece, after - 1) if piece else b""
        return delta + b"".join(map(framed, events))

    def tail(self, cached_tokens: int | None) -> bytes:
        """The whole response, and the end; as in vLLM, one that its limit cut is completed too."""
        number = _OPENING_EVENTS + len(self._answer.pieces) + 3
        whole = self._finished(cached_tokens)
        return framed(typed_event("response.completed", response=whole, sequence_number=number)) + END

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        return msgspec.json.encode(self._finished(cached_tokens))

    def _finished(self, cached_tokens: int | None) -> dict[str, Any]:
        prompt, output = self._request.prompt_tokens, self._answer.tokens
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached_tokens or 0, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }
        text: dict[str, Any] = {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": None,
        }
        status = "incomplete" if self._answer.finish_reason == "length" else "completed"
        return self._response(status, [self._item("completed", [text])], usage)

    def _item(self, status: str, content: list[Any]) -> dict[str, Any]:
        item = {"id": self._item_id, "type": "message", "role": "assistant"}
        return {**item, "status": status, "content": content}

    def _response(self, status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": f"resp_emulated_{self._number:08x}",
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "max_output_tokens": self._request.max_tokens,
            "metadata": None,
            "model": self._model.name,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "auto",
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
        }
