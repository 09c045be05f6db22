"""run.json and health-W.jsonl: what a run directory says of the run itself.

All `*_ns` are integer nanoseconds since the Unix epoch. Those of run.json are on the clock of the process
that wrote it; those of a worker's files are on that worker's clock (see `WorkerEntry.clock_offset_ns`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from turnbench.formats.server import RecordedServer

RUN_FORMAT = "turnbench-run/1"

Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A time since the Unix epoch, or a difference of two, that can be computed with."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Rate = Annotated[float, msgspec.Meta(gt=0, lt=1e15)]
"""So many a second."""

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
    run: str | None = None
    """In the summary of several runs: the run that it is about."""


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
    """Its 99th percentile."""
    late_max_ms: float | None
    """Its maximum."""


class UntilEntry(msgspec.Struct, kw_only=True):
    """How well the number that --until names was known in the end, over all turns of a level."""

    key: str
    """The number: ttft_p50, ttft_p90, ttft_p99, ttg_p50, ttg_p90, ttg_p99 or tps."""
    share: float
    """How near the ends of its 95 % interval had to come, as a share of it."""
    reached: float | None
    """How far the further end was once every measured turn had ended; null where the number or an end of its
    interval is not known."""
    after_s: float
    """Length of the window."""
    early: bool
    """Whether the level ended because of it; else it lasted as long as it might."""
    looks: int
    """How often the interval was looked at on the way."""


class LevelEntry(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One level of a run. A time is null where the level never came to it."""

    index: Count = 0
    """Its number in the run, from 0."""
    users: Count | None = None
    """Simulated people in closed loop; null in open loop."""
    arrival_rate_per_s: Rate | None = None
    """Conversations per second that were asked for, in open loop; a ramp's mean over the window."""
    start_ns: Nanoseconds | None = None
    """When its first person or arrival began."""
    window_start_ns: Nanoseconds | None = None
    """A turn is measured if it was sent in [window_start_ns, window_end_ns)."""
    window_end_ns: Nanoseconds | None = None
    end_ns: Nanoseconds | None = None
    """When its last conversation had ended or was cut."""
    arrival_ramp_per_s: list[float] | msgspec.UnsetType = msgspec.UNSET
    """First and last rate of a ramp."""
    planned_arrivals: Count | msgspec.UnsetType = msgspec.UNSET
    """Open loop: conversations that come due in the window by plan, where it fixes their number (from 100 on;
    no run before 0.2.0 says so)."""
    arrivals: ArrivalsSummary | msgspec.UnsetType = msgspec.UNSET
    """Open loop: what became of the arrivals."""
    until: UntilEntry | msgspec.UnsetType = msgspec.UNSET
    """What --until reached."""


class WorkerEntry(msgspec.Struct, kw_only=True):
    """One load generator and its clock against the writer's."""

    index: Count
    """Its number, which names its files: turns-INDEX.jsonl."""
    host: str = "local"
    """The machine it ran on."""
    clock_offset_ns: Nanoseconds | None = 0
    """How far its clock is ahead of the writer's; subtract it from its times."""
    clock_error_ns: Nanoseconds | None = None
    """Half the best round trip: the offset may be off by this much."""


class EndpointEntry(msgspec.Struct, kw_only=True):
    """Where requests went."""

    url: str = ""
    """The base URL, without a key or a password."""
    model: str = ""
    """The model named in requests."""


class CapacityPoint(msgspec.Struct):
    """One load that --find-capacity tried."""

    level: int
    """Index of its level."""
    load: float
    """People, or conversations per second."""
    turns: int
    """Turns sent in its window."""
    met: int
    """Those that met their limits."""
    holds: bool
    """Whether the limits held."""
    sure: bool
    """Whether that is certain, so that all points of a search are right together at 95 %; if not, it is the
    likelier answer."""


class CapacitySummary(msgspec.Struct, kw_only=True):
    """What --find-capacity found."""

    unit: Literal["people", "arrivals_per_s"]
    """What a load is counted in."""
    value: float | None = None
    """The highest load that holds below the lowest that fails; null where none held."""
    lowest_that_fails: float | None = None
    """null where none was seen to fail."""
    share: float
    """The share of turns that had to meet their limits."""
    confidence: float
    """With which all its points are right together."""
    found: bool = False
    """Whether the search came to its end and saw a load fail."""
    points: list[CapacityPoint] = []
    """Every load that was tried, in that order."""


class RunManifest(msgspec.Struct, kw_only=True):
    """run.json."""

    format: str = RUN_FORMAT
    status: RunStatus = "running"
    """running also after a kill, which leaves no time to write another one."""
    started_at: str | None = None
    """ISO 8601, UTC."""
    ended_at: str | None = None
    """ISO 8601, UTC; null while it runs."""
    exit_code: int | None = None
    """Of the command that made the run, see `turnbench.exits`."""
    settings: dict[str, Any] = {}
    """Everything that was asked for; values of headers and secrets are `***`."""
    seed: int = 0
    """Of the plan: the same seed and scenario give the same conversations."""
    salt: str = ""
    """Keeps this run's prompts apart from others' in prefix caches."""
    versions: dict[str, str] = {}
    """Of turnbench, Python and the libraries that make the load."""
    host: dict[str, Any] = {}
    """The machine that directed the run."""
    endpoint: EndpointEntry = msgspec.field(default_factory=EndpointEntry)
    server: RecordedServer = {}
    """What is known of the server."""
    emulated: bool = False
    """Whether the answers came from an emulator."""
    workers: list[WorkerEntry] = []
    """The load generators."""
    levels: list[LevelEntry] = []
    """The loads that were held, one after the other."""
    labels: dict[str, str] = {}
    """What --label said of the run."""
    slo: dict[str, dict[str, float]] = {}
    """Limits in force by task: one for each limited metric, and the `share` of turns that must meet all."""
    skipped: dict[str, int] = {}
    """Tasks that were not played, with the context in tokens that they need."""
    findings: list[Finding] = []
    """What the run itself saw go wrong."""
    capacity: CapacitySummary | msgspec.UnsetType = msgspec.UNSET
    """Result of --find-capacity."""


_COUNTS_BYTES = 256
"""More than a line of counts has: one replaces the other in place."""


def counts_line(counts: HealthLine) -> bytes:
    """What counts-W.json holds: a worker's newest counts, always as many bytes, to be replaced in place."""
    return msgspec.json.encode(counts).ljust(_COUNTS_BYTES) + b"\n"


class HealthLine(msgspec.Struct, kw_only=True):
    """One line a second of health-W.jsonl, about the engine itself; the counts are cumulative."""

    t_ns: Nanoseconds
    """When the line was written."""
    worker: Count
    """Index of the load generator."""
    loop_lag_ms: float | None = None
    """How late the event loop woke a sleeper, the worst of the second."""
    cpu_share: float | None = None
    """Of one core."""
    stolen_share: float | None = None
    """Share of its time that the host took from the CPU that lost most; null where the system is silent."""
    rss_mb: float | None = None
    """Resident memory."""
    files: Count | None = None
    """Open descriptors."""
    in_flight: Count | None = None
    """Requests under way."""
    planned: Count | None = None
    """Turns that became due: begun + dropped."""
    dropped: Count | None = None
    """Turns that became due and were never sent."""
    begun: Count | None = None
    """Turns that were begun: finished, or still open."""
    finished: Count | None = None
    """Turns that ended, in whatever way."""
