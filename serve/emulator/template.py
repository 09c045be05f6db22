"""Chat templates: how messages become a prompt, and what a model's own template refuses.

The emulator's prompt is its own for every model. What is refused, and in which words, is what the templates
of the catalogue's models do: those of Mistral-7B-Instruct-v0.2 and Gemma-1.1 take no system message and want
the roles to alternate.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.refusal import bad_request

ROLES = ("system", "developer", "user", "assistant", "tool")
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
NO_SYSTEM = {"gemma-7b": "System role not supported"}
"""A model that has words of its own for a system message; others call it a break of the alternation."""

_ROLE_MARK = "<|{}|>\n"
_END_MARK = "<|end|>\n"


class Part(msgspec.Struct):
    """One part of a message given in parts; only text counts here."""

    type: str
    text: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Any] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


def render(messages: list[Message], for_answer: bool = True) -> str:
    """The prompt of a conversation, each message between its marks, ready for the assistant to speak."""
    said = "".join(_ROLE_MARK.format(message.role) + message.text() + _END_MARK for message in messages)
    return said + _ROLE_MARK.format("assistant") if for_answer else said


def check_roles(messages: list[Message], model: str, system_role: bool) -> None:
    """Raise Refusal for what the model's template does not take."""
    if not messages:
        raise bad_request(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )
    if not system_role:
        if messages[0].role == "system":
            raise bad_request(NO_SYSTEM.get(model, ALTERNATE))
        if any((each.role == "user") != (index % 2 == 0) for index, each in enumerate(messages)):
            raise bad_request(ALTERNATE)
    if any(message.role not in ROLES for message in messages):
        raise bad_request(f"roles are {', '.join(ROLES[:-1])} and {ROLES[-1]}")
