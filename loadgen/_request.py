"""What is sent for one turn: the request's body, from the plan and the settings."""

from __future__ import annotations

from typing import Any

import msgspec

from loadgen._settings import Job, Settings
from scenarios import Conversation, Turn

EXACT_TOKENS = 256
"""Length of an answer under --exact-tokens without --max-tokens."""

encode_body = msgspec.json.Encoder().encode


def body_of_turn(
    job: Job, conversation: Conversation, turn: Turn, messages: list[dict[str, str]]
) -> dict[str, Any]:
    """The chat completion request of a turn; --body is merged last, so that a person can override all."""
    settings = job.settings
    stream_options = {"include_usage": True}
    if job.usage_in_events:
        stream_options["continuous_usage_stats"] = True
    body: dict[str, Any] = {
        "model": job.model,
        "messages": messages,
        "stream": True,
        "stream_options": stream_options,
        **conversation.sampling,
        **_length(settings, turn),
    }
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.top_p is not None:
        body["top_p"] = settings.top_p
    return body | settings.body


def _length(settings: Settings, turn: Turn) -> dict[str, Any]:
    if settings.exact_tokens:
        tokens = settings.max_tokens or EXACT_TOKENS
        return {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
    length: dict[str, Any] = {"max_tokens": settings.max_tokens or turn.max_tokens}
    if turn.stop:
        length["stop"] = list(turn.stop)
    return length


def think_s(settings: Settings, turn: Turn) -> float:
    """Seconds between the end of a reply and the turn after it, under --think-time."""
    choice = settings.think_time
    if choice == "none":
        return 0.0
    if choice.startswith("scenario"):
        return turn.think_s * float(choice.partition("*")[2] or 1)
    return float(choice)
