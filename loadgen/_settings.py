"""What a worker's engine has to know of a run, and names that moved to `loadgen.options`."""

from __future__ import annotations

import msgspec

from loadgen.options._endpoint import Endpoint, base_url, without_userinfo
from loadgen.options._settings import Settings
from loadgen.options._shapes import EngineLoad

__all__ = ["Endpoint", "Job", "Settings", "base_url", "without_userinfo"]


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """What one worker's engine has to know of a run; sent before the first person starts."""

    run: str
    worker: int
    workers: int
    """W: worker w plays conversations w, w + W, w + 2W, ..."""
    settings: Settings
    load: EngineLoad = EngineLoad()
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
