"""Chat completions: a request's body, what a model's chat template makes of it, and the events of a reply.

The emulator's prompt is its own for every model. What is refused, and in which words, is what the templates
of the catalogue's models do: those of Mistral-7B-Instruct-v0.2 and Gemma-1.1 take no system message and want
the roles to alternate.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.answers import Answer
from serve.emulator.dialects.choices import (
    ChoiceDialect,
    ChoiceEvents,
    SharedFields,
    check_fields,
    decode,
    framed,
    request_of,
)
from serve.emulator.request import EmulatedModel, GenerationRequest, bad_request

ROLES = ("system", "developer", "user", "assistant", "tool")
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
NO_SYSTEM = {"gemma-7b": "System role not supported"}
"""A model that has words of its own for a system message; others call it a break of the alternation."""

_ROLE_MARK = "<|{}|>\n"
_END_MARK = "<|end|>\n"


class MessagePart(msgspec.Struct):
    """One part of a message given in parts; only text counts here."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[MessagePart] | None = None
    tool_calls: list[Any] | None = None

    def text(self) -> str:
        """Its text, with that of all its parts."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class ChatBody(SharedFields, kw_only=True):
    """The body of a request."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None


_decoder = msgspec.json.Decoder(ChatBody)


def check_roles(messages: list[ChatMessage], model: EmulatedModel) -> None:
    """Raise RequestRefused for what the model's template does not take."""
    if not messages:
        raise bad_request(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    if not model.system_role:
        if messages[0].role == "system":
            raise bad_request(NO_SYSTEM.get(model.name, ALTERNATE))
        if any((each.role == "user") != (index % 2 == 0) for index, each in enumerate(messages)):
            raise bad_request(ALTERNATE)
    if any(message.role not in ROLES for message in messages):
        raise bad_request(f"roles are {', '.join(ROLES[:-1])} and {ROLES[-1]}")


def render(messages: list[ChatMessage], for_answer: bool = True) -> str:
    """The prompt of a conversation, each message between its marks; `for_answer` opens the next one."""
    said = "".join(_ROLE_MARK.format(message.role) + message.text() + _END_MARK for message in messages)
    return said + _ROLE_MARK.format("assistant") if for_answer else said


class ChatDialect(ChoiceDialect):
    """POST /v1/chat/completions."""

    path = "/v1/chat/completions"

    def read(self, body: bytes, model: EmulatedModel) -> GenerationRequest:
        """The request in this body; raises RequestRefused."""
        chat = decode(_decoder, body)
        field, max_tokens = "max_completion_tokens", chat.max_completion_tokens
        if max_tokens is None:
            field, max_tokens = "max_tokens", chat.max_tokens
        check_fields(chat, model, field, max_tokens)
        check_roles(chat.messages, model)
        users = (message.text() for message in chat.messages if message.role == "user")
        return request_of(chat, model, render(chat.messages), next(users, ""), max_tokens)

    def events(
        self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int
    ) -> ChoiceEvents:
        """The events of the reply with this number, counted from 1."""
        return _ChatEvents(request, answer, model, number)

    def text_event(self, text: str) -> Any:
        """An event with this text that no model made."""
        return {"choices": [{"index": 0, "delta": {"content": text}}]}


class _ChatEvents(ChoiceEvents):
    id_prefix = "chatcmpl"
    object_name = "chat.completion.chunk"
    whole_object_name = "chat.completion"
    counts_created_tokens = True
    event_usage_nulls = ("completion_tokens_details",)
    choice_nulls = ("routed_experts",)
    whole_nulls = ("prompt_logprobs", "prompt_token_ids", "prompt_text")

    def opening(self) -> bytes:
        """The first event of a stream: the role and no text."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        more = {**self._usage_so_far(0), "prompt_token_ids": None, "prompt_text": None}
        return framed(self._event([choice], **more))

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        ends: dict[str, Any] = {"logprobs": None, "finish_reason": finish_reason}
        if finish_reason:
            ends["stop_reason"] = self._answer.stop_string
        return {"index": 0, "delta": {"content": text}, **ends, "token_ids": None}

    def _whole_text(self, text: str) -> dict[str, Any]:
        absent = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
        return {"message": {"role": "assistant", "content": text, **absent}}
