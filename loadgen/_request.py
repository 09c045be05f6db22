"""What is sent for one turn: the request's body and headers, from the plan and the settings."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from loadgen._settings import Job, Settings
from scenarios import Conversation, Turn

_SHORTEST_SECRET = 4
"""A header's value of less is no secret, and hiding it would garble every message."""

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


def headers_of(settings: Settings) -> dict[str, str]:
    """Headers of every request of this worker; the key and `$VAR` values come from its own environment.

    Raises ValueError naming a variable that is not set.
    """
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    headers["Accept-Encoding"] = "identity"
    if key := _variable(settings.api_key_env):
        headers["Authorization"] = f"Bearer {key}"
    for name, value in settings.headers.items():
        ours = next((known for known in headers if known.lower() == name.lower()), name)
        headers[ours] = _from_environment(name, value)
    return headers


def secrets_of(settings: Settings, headers: dict[str, str]) -> list[str]:
    """What must never be written down, longest first: keys, header values, the password of the URL.

    A server may repeat a key with or without `Bearer` before it.
    """
    typed = {name.lower() for name in settings.headers}
    values = [value for name, value in headers.items() if name.lower() in typed]
    values += [headers["Authorization"]] if "Authorization" in headers else []
    parts = urlsplit(settings.host)
    if parts.password is not None:
        password = unquote(parts.password)
        pair = f"{unquote(parts.username or '')}:{password}"
        values += [password, parts.password, b64encode(pair.encode()).decode()]
    found = {word for value in values for word in (value, value.rpartition(" ")[2])}
    return sorted((word for word in found if len(word) >= _SHORTEST_SECRET), key=len, reverse=True)


def _from_environment(name: str, value: str) -> str:
    if not value.startswith("$"):
        return value
    found = _variable(value[1:])
    if found is None:
        raise ValueError(f"--header {name}: the environment variable {value[1:]} is not set on this machine")
    return found


def _variable(name: str) -> str | None:
    """A variable without the line end of the file it may come from; ValueError if no header can carry it."""
    value = os.environ.get(name)
    if value is not None and not value.strip().isprintable():
        raise ValueError(f"the environment variable {name} has a control character; take it out")
    return value if value is None else value.strip()
