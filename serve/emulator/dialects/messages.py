"""Anthropic's messages: content blocks that open, grow and close, with usage at both ends.

As in vLLM, whose form this API has: fields beyond Anthropic's own, such as ignore_eos, are not heeded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.answers import Answer
from serve.emulator.dialects.chat import ChatMessage, check_roles, render
from serve.emulator.dialects.choices import SharedFields, check_fields, decode, framed, request_of
from serve.emulator.dialects.typed import (
    END,
    TEXT,
    DeltaTemplate,
    TypedEvents,
    conversation_of,
    text_of_content,
    typed_event,
)
from serve.emulator.request import EmulatedModel, GenerationRequest, RequestRefused, bad_request

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesBody(SharedFields, kw_only=True):
    """The body of a request."""

    model: str
    max_tokens: int
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: list[str] | None = None


class MessagesRefused(RequestRefused):
    """A refusal in this API's form."""

    def body(self) -> bytes:
        error = {"type": self.kind, "message": self.message}
        return msgspec.json.encode({"type": "error", "error": error})


_decoder = msgspec.json.Decoder(MessagesBody)


class MessagesDialect:
    """POST /v1/messages."""

    path = "/v1/messages"

    def read(self, body: bytes, model: EmulatedModel) -> GenerationRequest:
        """The request in this body; raises RequestRefused."""
        try:
            asked = decode(_decoder, body)
            asked.stop, asked.min_tokens, asked.ignore_eos = asked.stop_sequences, 0, False
            asked.stream_options = None
            check_fields(asked, model, "max_tokens", asked.max_tokens)
            if not asked.messages:
                raise bad_request("messages: at least one message is required")
            said = [_message(each) for each in asked.messages]
            messages = conversation_of(text_of_content(asked.system), said)
            check_roles(messages, model)
            users = (message.text() for message in messages if message.role == "user")
            return request_of(asked, model, render(messages), next(users, ""), asked.max_tokens)
        except RequestRefused as refusal:
            raise MessagesRefused(refusal.status, refusal.kind, refusal.message, refusal.param) from None

    def events(
        self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int
    ) -> _MessageEvents:
        """The events of the reply with this number, counted from 1."""
        return _MessageEvents(request, answer, model, number)

    def text_of(self, event: Any) -> str:
        """The generated text that an event carries; empty if none."""
        return str(event.get("delta", {}).get("text", ""))

    def text_event(self, text: str) -> Any:
        """An event with this text that no model made."""
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    def error_event(self, error: dict[str, Any]) -> Any:
        """An event that reports this error."""
        return {"type": "error", "error": {"type": error["type"], "message": error["message"]}}

    def without_text(self, event: Any) -> Any | None:
        """Nothing is left of an event without its text."""
        return None

    def as_reasoning(self, event: Any, key: str) -> Any:
        """The event with its text as thinking, whatever the key."""
        return {**event, "delta": {"type": "thinking_delta", "thinking": event["delta"]["text"]}}

    def counts_of(self, event: Any) -> tuple[dict[str, Any], str] | None:
        """Where an event counts output tokens at the end, and under which name."""
        return (event["usage"], "output_tokens") if event.get("usage") else None

    def is_end(self, event: Any) -> bool:
        """Whether a stream is over with this event."""
        return bool(event.get("type") == "message_stop")


def _message(given: dict[str, Any]) -> ChatMessage:
    role = given.get("role")
    if role not in ("user", "assistant", "system"):
        raise bad_request(f"messages: roles are user and assistant, got {role!r}")
    content = given.get("content")
    if not isinstance(content, str | list):
        raise bad_request("messages: content must be a text or a list of blocks")
    return ChatMessage(role, text_of_content(content))


class _MessageEvents(TypedEvents):
    def opening(self) -> bytes:
        """The message without its text, and the block that this will stand in."""
        message = self._message([], None, {"input_tokens": self._request.prompt_tokens, "output_tokens": 0})
        start = typed_event("message_start", message=message)
        block = {"type": "text", "text": ""}
        return framed(start) + framed(typed_event("content_block_start", content_block=block, index=0))

    def contents(self, pieces: list[str], number: int) -> list[bytes]:
        """Events in the middle of the answer."""
        return [_DELTA.framed(piece, 0) for piece in pieces]

    def last(self, piece: str, tokens: int) -> bytes:
        """The last piece of text, if there is one, and the end of its block."""
        return (_DELTA.framed(piece, 0) if piece else b"") + framed(
            typed_event("content_block_stop", index=0)
        )

    def tail(self, cached_tokens: int | None) -> bytes:
        """Why the message ended, the counts, its end and that of the body."""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self._answer.stop_string}
        counted = typed_event("message_delta", delta=delta, usage=self._usage(cached_tokens))
        return framed(counted) + framed(typed_event("message_stop")) + END

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        content = [{"type": "text", "text": self._text}]
        return msgspec.json.encode(self._message(content, self._stop_reason, self._usage(cached_tokens)))

    @property
    def _stop_reason(self) -> str:
        if self._answer.stop_string is not None:
            return "stop_sequence"
        return _STOP_REASONS[self._answer.finish_reason]

    def _usage(self, cached_tokens: int | None) -> dict[str, Any]:
        cached = cached_tokens or 0
        return {
            "input_tokens": self._request.prompt_tokens - cached,
            "output_tokens": self._answer.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
        }

    def _message(self, content: Any, stop_reason: str | None, usage: dict[str, Any]) -> dict[str, Any]:
        stopped = self._answer.stop_string if stop_reason else None
        return {
            "id": f"msg_emulated_{self._number:08x}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._model.name,
            "stop_reason": stop_reason,
            **({} if stop_reason and stopped is None else {"stop_sequence": stopped}),
            "usage": usage,
        }


_DELTA = DeltaTemplate("content_block_delta", delta={"type": "text_delta", "text": TEXT}, index=0)
