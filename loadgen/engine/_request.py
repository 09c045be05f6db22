"""What is sent for one turn: the request's body, from the plan and the settings."""

from __future__ import annotations

from typing import Any

import msgspec

from loadgen._settings import Job, Settings
from scenarios import Conversation, Turn, think_after

EXACT_TOKENS = 256
"""Length of an answer under --exact-tokens without --max-tokens."""

encode_body = msgspec.json.Encoder().encode


def body_of_turn(
    job: Job, conversation: Conversation, turn: Turn, messages: list[dict[str, Any]]
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
    if conversation.tools:
        body["tools"] = list(conversation.tools)
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.top_p is not None:
        body["top_p"] = settings.top_p
    return body | settings.body


def _length(settings: Settings, turn: Turn) -> dict[str, Any]:
    tokens = length_of(settings, turn)
    if settings.exact_tokens:
        return {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
    return {"max_tokens": tokens} | ({"stop": list(turn.stop)} if turn.stop else {})


def length_of(settings: Settings, turn: Turn) -> int:
    """Tokens of the longest answer that is asked for; a replay keeps to the trace's lengths."""
    one_length = settings.exact_tokens and settings.replay_speed is None
    return settings.max_tokens or (EXACT_TOKENS if one_length else turn.max_tokens)


def think_s(settings: Settings, turn: Turn, reply_words: int) -> float:
    """Seconds between the end of a reply of so many words and the turn after it, under --think-time."""
    if turn.call is not None:  # a tool's result: nobody reads or types
        return 0.0
    scale = human_scale(settings)
    if scale is None:
        return 0.0
    return think_after(turn, reply_words) * scale if _as_planned(settings) else float(settings.think_time)


def human_scale(settings: Settings) -> float | None:
    """What all human time, pauses and patience, is multiplied by; None: nobody pauses, and nobody leaves."""
    if settings.think_time == "none":
        return None
    factor = float(settings.think_time.partition("*")[2] or 1) if _as_planned(settings) else 1.0
    return factor or None


def _as_planned(settings: Settings) -> bool:
    return settings.think_time.startswith("scenario")
