"""Everything that was asked for, in one place; what the run directory records as `settings`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """One run's settings. Times are seconds; None means: not asked for."""

    host: str
    """The endpoint as typed, with or without /v1."""
    scenario: str = "chat"
    model: str | None = None
    """Sent in requests; None: the endpoint's first."""
    levels: list[int] | None = None
    """Simulated people at each level of a sweep."""
    users: int = 1
    """Simulated people of a run without levels."""
    spawn_rate: float | None = None
    run_time_s: float | None = None
    hold_s: float = 60.0
    warmup_s: float = 5.0
    arrival_rate_per_s: float | None = None
    """Open loop: conversations that begin per second, over all workers."""
    arrival_steps_per_s: list[float] | None = None
    """Rates of a sweep in open loop, each a level; the first is `arrival_rate_per_s`."""
    arrival_ramp_to_per_s: float | None = None
    """The rate changes evenly to this one within the run's length."""
    burstiness: float = 1.0
    """Shape of the gamma gaps between arrivals."""
    replay_speed: float | None = None
    """A trace is replayed at this multiple of its own times; `arrival_rate_per_s` then follows from it."""
    once: bool = False
    find_capacity: bool = False
    think_time: str = "scenario"
    """none | scenario | scenario*X | seconds as a number."""
    max_tokens: int | None = None
    exact_tokens: bool = False
    temperature: float | None = None
    top_p: float | None = None
    body: dict[str, Any] = {}
    """Merged into every request, last."""
    slo: dict[str, float] = {}
    """Limits from the command line: ttft_ms, response_delay_ms, ttg_ms, tpot_ms, share."""
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0
    deadline_s: float = 600.0
    drain_s: float = 60.0
    retry: int = 0
    abort_errors: float = 1.0
    clock: Literal["kernel", "user"] = "kernel"
    seed: int = 0
    salt: str | None = None
    run_dir: str | None = None
    labels: dict[str, str] = {}
    keep_text: bool = False
    headers: dict[str, str] = {}
    """As typed: a value `$VAR` is taken from each worker's own environment."""
    insecure: bool = False
    trust_env: bool = False
    api_key_env: str = "OPENAI_API_KEY"
    server_facts: str | None = None

    @property
    def people(self) -> int:
        """The most people there are at once."""
        return max(self.levels or [self.users])


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """What one worker's engine has to know of a run; sent before the first person starts."""

    run: str
    worker: int
    workers: int
    """W: worker w plays conversations w, w + W, w + 2W, ..."""
    settings: Settings
    scenario: str
    """The scenario's text, whole."""
    salt: str
    model: str
    usage_in_events: bool
    """Whether the server knows stream_options.continuous_usage_stats."""
    context: int | None = None
    """Tokens of the model's context, where the server tells."""
    dialect: str = "chat"
    """Key of loadgen.dialects.DIALECTS: how the server is asked."""


class Endpoint(msgspec.Struct, kw_only=True):
    """What the probe found. `problem` is a sentence where the endpoint could not be asked."""

    url: str
    models: list[str] = []
    max_model_len: int | None = None
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
