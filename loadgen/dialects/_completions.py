"""OpenAI's plain completions, for base models: a conversation as one text, which the model goes on with.

The events are those of chat completions with `text` in place of a delta, so reading is inherited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from loadgen.dialects._chat import ChatCompletions
from loadgen.dialects._dialect import Prompt, TurnRequest
from scenarios import Conversation, text_of

_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_NEXT_TURN = "\nUser:"
"""Where a base model begins to speak for the person: an answer ends before it."""


class Completions(ChatCompletions):
    """The dialect of /completions."""

    path = "/completions"
    carries: Collection[str] = ()
    required: Collection[str] = ("model", "prompt", "stream", "max_tokens")

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
        """The system's text, then a paragraph of each turn under its speaker's name, then `Assistant:`."""
        chat = super().prompt(
            conversation,
            replies,
            salt=salt,
            level=level,
            turns_dropped=turns_dropped,
            system_role=system_role,
        )
        text = "".join(_paragraph(message) for message in chat.content) + "Assistant:"
        return Prompt(text, len(text), chat.turns)

    def body(self, request: TurnRequest) -> dict[str, Any]:
        body = super().body(request)
        body.pop("tools", None)
        body["prompt"] = body.pop("messages")
        if not request.exact_tokens:
            body["stop"] = [*request.stop, _NEXT_TURN]
        return body


def _paragraph(message: dict[str, Any]) -> str:
    text = "\n".join(filter(None, (text_of(message), str(message.get("tool_calls", "")))))
    speaker = _SPEAKERS.get(message["role"])
    return f"{text}\n\n" if speaker is None else f"{speaker}: {text}\n\n"
