"""run.json and health-W.jsonl: what a run directory says of the run itself.

All `*_ns` are integer nanoseconds since the Unix epoch. Those of run.json are on the clock of the process
that wrote it; those of a worker's files are on that worker's clock (see `WorkerEntry.clock_offset_ns`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from turnbench.formats.server import RecordedServer

RUN_FORMAT = "turnbench-run/1"

RunStatus = Literal["running", "finished", "interrupted", "failed"]
Severity = Literal["invalid", "suspect", "note"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with a run or worth knowing, with its remedy."""

    level: Severity
    """How much it matters: invalid, suspect, or a note, which changes no status."""
    check: str
    """Which check found it, one word."""
    what: str
    """What was seen, one sentence."""
    remedy: str
    """What to do about it."""
    at: int | None = None
    """Index of the load level it is about; null: the whole run."""


class ArrivalsSummary(msgspec.Struct, kw_only=True):
    """Open loop: what became of the conversations due in a level's window, and how late they began."""

    due: int
    """Conversations due in the window."""
    dropped: int
    """Those that could not begin before the level's end."""
    begun_per_s: float | None
    """Conversations begun per second of the window."""
    late_p50_ms: float | None
    """Start lateness, sent - due: median, milliseconds."""
    late_p99_ms: float | None
    late_max_ms: float | None


class LevelEntry(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One level of a run. A time is null where the level never came to it."""

    index: int = 0
    users: int | None = None
    """Simulated people in closed loop; null in open loop."""
    arrival_rate_per_s: float | None = None
    """Conversations per second that were asked for, in open loop; a ramp's mean over the window."""
    start_ns: int | None = None
    window_start_ns: int | None = None
    """A turn is measured if it was sent in [window_start_ns, window_end_ns)."""
    window_end_ns: int | None = None
    end_ns: int | None = None
    arrival_ramp_per_s: list[float] | msgspec.UnsetType = msgspec.UNSET
    """First and last rate of a ramp."""
    arrivals: ArrivalsSummary | msgspec.UnsetType = msgspec.UNSET


class WorkerEntry(msgspec.Struct, kw_only=True):
    """One load generator and its clock against the writer's."""

    index: int
    host: str = "local"
    clock_offset_ns: int | None = 0
    """How far its clock is ahead of the writer's; subtract it from its times."""
    clock_error_ns: int | None = None
    """Half the best round trip: the offset may be off by this much."""


class EndpointEntry(msgspec.Struct, kw_only=True):
    """Where requests went."""

    url: str = ""
    model: str = ""
    """The model named in requests."""


class CapacityPoint(msgspec.Struct):
    """One load that a search for the capacity tried."""

    level: int
    """Index of its level."""
    load: float
    """People, or conversations per second."""
    turns: int
    """Measured turns."""
    met: int
    """Those of them that met all their limits."""
    holds: bool
    """Whether enough did."""
    sure: bool
    """Whether that is sure; else it is only the likelier answer."""


class CapacitySummary(msgspec.Struct, kw_only=True):
    """Result of --find-capacity."""

    unit: Literal["people", "arrivals_per_s"]
    value: float | None = None
    """The highest load that holds below the lowest that fails; null where none did."""
    lowest_that_fails: float | None = None
    share: float
    """Share of the turns that must meet their limits."""
    confidence: float
    """With which a sure point is so."""
    found: bool = False
    """Whether the search came to its end with a load that fails."""
    points: list[CapacityPoint] = []


class RunManifest(msgspec.Struct, kw_only=True):
    """run.json."""

    format: str = RUN_FORMAT
    status: RunStatus = "running"
    started_at: str | None = None
    """ISO 8601, UTC."""
    ended_at: str | None = None
    exit_code: int | None = None
    settings: dict[str, Any] = {}
    """Everything that was asked for; values of headers and secrets are `***`."""
    seed: int = 0
    salt: str = ""
    """Keeps this run's prompts apart from others' in prefix caches."""
    versions: dict[str, str] = {}
    host: dict[str, Any] = {}
    """The machine that directed the run."""
    endpoint: EndpointEntry = msgspec.field(default_factory=EndpointEntry)
    server: RecordedServer = {}
    emulated: bool = False
    """Whether the answers came from an emulator."""
    workers: list[WorkerEntry] = []
    levels: list[LevelEntry] = []
    labels: dict[str, str] = {}
    slo: dict[str, dict[str, float]] = {}
    """Limits in force by task: ttft_ms, response_delay_ms, ttg_ms, tpot_ms, share."""
    skipped: dict[str, int] = {}
    """Tasks that were not played, with the context in tokens that they need."""
    findings: list[Finding] = []
    """What the run itself saw go wrong."""
    capacity: CapacitySummary | msgspec.UnsetType = msgspec.UNSET


class HealthLine(msgspec.Struct, kw_only=True):
    """One line a second of health-W.jsonl, about the engine itself; the counts are cumulative."""

    t_ns: int
    worker: int
    loop_lag_ms: float | None = None
    """How late the event loop woke a sleeper, the worst of the second."""
    cpu_share: float | None = None
    """Of one core."""
    stolen_share: float | None = None
    """Share of its time that the host took from the CPU that lost most; null where the system is silent."""
    rss_mb: float | None = None
    files: int | None = None
    """Open descriptors."""
    in_flight: int | None = None
    """Requests under way."""
    planned: int | None = None
    """Turns that became due: begun + dropped."""
    dropped: int | None = None
    begun: int | None = None
    finished: int | None = None
