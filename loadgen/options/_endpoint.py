"""The endpoint: its URL as typed and as asked, and what the probe found out about it."""

from __future__ import annotations

from typing import Any

import msgspec


class Endpoint(msgspec.Struct, kw_only=True):
    """What the probe found. `problem` is a sentence where the endpoint could not be asked."""

    url: str
    models: list[str] = []
    max_model_len: int | None = None
    """Tokens of the model's context, where the server says."""
    version: str | None = None
    emulated: bool = False
    usage_in_events: bool = False
    """Whether it is known to understand stream_options.continuous_usage_stats (vLLM and its like)."""
    server: dict[str, Any] = {}
    problem: str | None = None


def base_url(host: str) -> str:
    """The API's root, with /v1, of an endpoint typed with or without it."""
    root = host.strip().rstrip("/")
    return root if root.endswith("/v1") else root + "/v1"


def without_userinfo(url: str) -> str:
    """The URL with `user:password@` replaced by `***@`."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    authority, slash, path = rest.partition("/")
    if "@" not in authority:
        return url
    return f"{scheme}{separator}***@{authority.rpartition('@')[2]}{slash}{path}"
