"""summary.json: what analysis found in a run, or in several runs together.

`null` stands wherever a number is not known or has too few turns behind it. In the summary of several runs
(a sweep), levels, cells, findings and rows carry the `run` that they are of.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from turnbench.formats.comparison import ModelComparison, StudyTables
from turnbench.formats.run import Finding, UntilEntry

SUMMARY_FORMAT = "turnbench-summary/2"

Status = Literal["valid", "suspect", "invalid"]
Interval = list[float | None] | None
"""Both ends; null where the interval, or that end of it, is not known."""


class Distribution(msgspec.Struct):
    """One metric over the turns of a cell, in the metric's own unit."""

    n: int
    """How many values: turns, or gaps between events."""
    mean: float | None
    """Arithmetic mean; a restricted mean where `mean_to` is given; null for a rate of which a turn never
    ended."""
    p50: float | None
    """Median of pooled raw turns; null below 11 effective turns."""
    p90: float | None
    """null below 64 effective turns."""
    p95: float | None
    """null below 130 effective turns."""
    p99: float | None
    """null below 662 effective turns."""
    p999: float | None
    """null below 6,636 effective turns."""
    max: float | None
    """The greatest value of the n; null where a turn never ended."""
    mean_to: float | None
    """Where some turns never ended, the mean is that of min(value, mean_to), by Kaplan and Meier; else
    null."""
    bound: dict[str, float]
    """Of each number above that is null because it falls among turns that never ended: what it is at least
    (of a rate: at most), by the time for which they were watched."""
    ci95: dict[str, Interval]
    """The 95 % interval of each of these, the wider of two: over conversations, and over batches of time."""


class CellSummary(msgspec.Struct, kw_only=True):
    """The measured turns of one model, task and level; each of the three may be "all"."""

    model: str
    """The model as requests name it."""
    task: str
    """The task of the scenario."""
    level: int | str
    """Index of the level."""
    turns: int
    """Measured turns, however they ended."""
    conversations: int
    """Conversations that these turns are of."""
    ok: int
    """Turns that got their whole answer."""
    failed: int
    """Turns that failed, by the server or by this machine."""
    unfinished: int
    """Turns that did not fail and whose wait is known only to have been longer: those that still ran when the
    drain was over, that a deadline or their person ended, and those that stalled."""
    failed_share: float
    """Failed turns as a share of all."""
    values: dict[str, Distribution]
    """A distribution for each metric, by its key. In the file they stand beside the other fields."""
    tps: float | None = None
    """Tokens of the answers over the sum of their times to generate: tokens per second, for rankings."""
    visible_tps: float | None = None
    """The same of the tokens that came with events: without reasoning that was counted and never streamed."""
    normalised_latency_s: float | None = None
    """Mean over the answers of time to generate per output token, seconds (Yu et al. 2022, Orca)."""
    chars_per_s: float | None = None
    """Characters over the sum of the times to generate."""
    words_per_s: float | None = None
    """Words over the sum of the times to generate."""
    cached_share: float | None = None
    """Share of prompt tokens from the server's prefix cache, where it says."""
    fluidity: float | None = None
    """Share of the tokens' deadlines that were met."""
    scored: int = 0
    """Answers that are right or wrong by a key."""
    right_share: float | None = None
    """Share of these that are right; null where there is none, and of emulated answers, which say nothing."""
    read_share: float | None = None
    """Share of these out of which an answer could be read."""
    seconds_per_right: float | None = None
    """Sum of the scored answers' times to generate over the right ones, seconds."""
    aggregate_tps: float | None = None
    """Tokens of all turns that arrived in the window, per second."""
    turn_goodput_per_s: float | None = None
    """Turns per second that met all limits; null without limits."""
    conversation_goodput_per_s: float | None = None
    """Conversations per second that ended by plan and of which every turn met all limits."""
    conversations_cut: int | None = None
    """Conversations cut by the level's end, which are neither good nor bad."""
    ci95: dict[str, Interval] = {}
    """The 95 % interval of the rates and shares above, the wider of two as in a distribution."""
    intervals: Literal["both", "batches"] | None = None
    """batches: under 20 conversations intervals are over batches of time alone; null: none."""
    run: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    """In a sweep: what the model is called, with what distinguishes its run from others."""
    setting: str | msgspec.UnsetType = msgspec.UNSET
    """In a sweep: what runs that can fairly be compared share, such as precision and hardware."""


class ConversationCounts(msgspec.Struct):
    """The conversations that began in a level's window."""

    begun: int
    """All of them."""
    completed: int
    """Those that ended by their plan."""
    failed: int
    """Those that a failed turn ended."""
    cut: int
    """Those that the level's end cut."""
    duration_ms: Distribution
    """From when the first turn was due to the end of the last, of the completed ones."""


class LevelEnergy(msgspec.Struct, kw_only=True):
    """Energy and cost of one level's window. null: power or price is not known."""

    answers: float
    """Answered turns, each by the share of it that lies in the window."""
    tokens: float
    """Tokens that arrived in the window."""
    joules: float | None = None
    """Energy of all GPUs that were sampled."""
    mean_power_w: float | None = None
    """Over the window."""
    joules_per_answer: float | None = None
    joules_per_answer_ci95: Interval | None = None
    """Its 95 % interval, over twentieths of the window; so are the next ones."""
    joules_per_1000_tokens: float | None = None
    joules_per_1000_tokens_ci95: Interval | None = None
    cost_per_1000_answers: float | None = None
    """In the currency of --gpu-price."""
    cost_per_1000_answers_ci95: Interval | None = None
    cost_per_million_tokens: float | None = None
    cost_per_million_tokens_ci95: Interval | None = None


class ServerWait(msgspec.Struct, kw_only=True):
    """One wait as the server measured it, and as the client did, between the same two moments."""

    n: int
    """Values in the server's histogram."""
    mean_ms: float | None = None
    """Their mean, exact; null where the server gives no sum."""
    p50: Interval = None
    """Bounds of the bucket in which the server's median lies, milliseconds; the upper one null: no bound.
    null below 11 values; so the next ones."""
    p90: Interval = None
    """The same of the 90th percentile, from 64 values on."""
    p99: Interval = None
    """The same of the 99th percentile, from 662 values on."""
    client_n: int | None = None
    """Values of the client, of every turn between the two moments, measured or not; null where it can't see
    this wait, as the next ones."""
    client_mean_ms: float | None = None
    client_p50: float | None = None
    """Milliseconds; so the next ones."""
    client_p90: float | None = None
    client_p99: float | None = None
    difference_ms: float | None = None
    """The client's mean less the server's: what lies between the two."""


class ServerMeasures(msgspec.Struct, kw_only=True):
    """What the server said of itself by its /metrics in one level; null: it does not say."""

    seconds: float
    """Time between the two looks at its page, around the window."""
    ttft: ServerWait | None = None
    """Time to first token."""
    itl: ServerWait | None = None
    """Time from token to token; the client sees that from event to event."""
    queue: ServerWait | None = None
    """Wait in the server's queue, which no client sees."""
    e2e: ServerWait | None = None
    """The whole request; of the client the time to generate."""
    prompt_tokens: float | None = None
    """Tokens of prompts that it took in."""
    output_tokens: float | None = None
    """Tokens that it made."""
    preemptions: float | None = None
    """Requests that it computed again for want of memory."""
    cache_hit_share: float | None = None
    """Share of prompt tokens from its prefix cache."""
    acceptance_share: float | None = None
    """Share of the tokens drafted by speculation that it accepted."""


class LevelSummary(msgspec.Struct, kw_only=True):
    """One load that was held."""

    index: int
    """Its number in the run."""
    users: int | None
    """Simulated people in closed loop."""
    arrival_rate_per_s: float | None
    """Conversations per second in open loop."""
    load: str
    """The load in words, for tables."""
    status: Status
    """By the findings about this level, and those that make the whole run invalid."""
    window_s: float
    """Length of the window."""
    streams_mean: float | None
    """Mean number of answers in flight in the window."""
    little: float | None
    """streams_mean over turns per second times their mean time: 1 by Little's law in a steady level."""
    conversations: ConversationCounts
    """What became of its conversations."""
    holds_limits: bool | None
    """Whether enough of its turns met all limits; null without limits."""
    limits_sure: bool | None
    """Whether that is certain, so that all levels of the run are judged rightly together at 95 %; if not,
    `holds_limits` is the likelier answer."""
    until: UntilEntry | None = None
    """What --until reached."""
    energy: LevelEnergy | None = None
    """null where neither the GPUs' power nor their price is known."""
    server: ServerMeasures | None = None
    """What the server measured of itself; null where it has no metrics."""
    run: str | msgspec.UnsetType = msgspec.UNSET


class GrowthRow(msgspec.Struct, kw_only=True):
    """Answered turns of one number in their conversations, or of one length of prompt."""

    level: int
    """Index of the level."""
    turn: int | msgspec.UnsetType = msgspec.UNSET
    """In `by_turn`: number of the turn in its conversation, from 1; where that has branches, its place in the
    line of turns whose history it has."""
    context_tokens: list[int] | msgspec.UnsetType = msgspec.UNSET
    """In `by_context`: prompt tokens, from the first up to but without the second."""
    prefix: Literal["cached", "computed"] | msgspec.UnsetType = msgspec.UNSET
    """In `by_context`, where usage says: whether at least half of the prompt came from the prefix cache."""
    n: int
    """How many turns."""
    ttft_ms: Distribution
    """Time to first token."""
    ttg_ms: Distribution
    """Time to generate."""
    prompt_tokens_mean: float | None
    """Mean length of the prompt."""
    cached_tokens_mean: float | None
    """Mean of what the server took from its prefix cache, where it says."""
    expected_cached_mean: float | None
    """Mean of what the turn before left there: its prompt and its answer."""
    run: str | msgspec.UnsetType = msgspec.UNSET


class LoadCurve(msgspec.Struct):
    """Throughput against load, of a run with several levels."""

    saturation: str | None
    """The lowest load that no higher one beats by over 5 % of throughput; null: above all that were tried."""
    saturation_ci95: list[str | None]
    """Its interval over resampled parts of each window."""
    capacity: str | None
    """The highest load up to which every level holds its limits."""
    capacity_sure: bool | None = None
    """Whether it is certain at 95 % that this load holds and the next one that was tried does not."""


class ClientSummary(msgspec.Struct, kw_only=True):
    """The client itself, in the windows of all levels."""

    clock: str | None
    """Where arrivals were stamped; every clock that was used."""
    clock_shares: dict[str, float]
    """Share of the measured turns by the clock of their arrivals: wire, kernel, user."""
    sent_by_kernel_share: float | None
    """Share of the measured turns whose moment of sending is the kernel's transmit stamp."""
    write_after_sent_ms: float | None
    """How long after a request had left the client's own call returned, p99."""
    late_ms: float | None
    """How long after they were due turns were sent, p99."""
    read_after_packet_ms: float | None
    """How much later than its packet the first token was read, p99: the kernel clock would have added it."""
    lag_ms: float | None
    """How late the client saw data, p99."""
    coalesced_share: float | None
    """Share of events that arrived in one read with an earlier one."""
    cpu_share: float | None
    """Mean of the engines' use of a core."""
    lag_max_ms: float | None
    """The longest lag."""
    stolen_share: float | None
    """Mean share of a CPU's time that the machine's host took."""
    cpu_share_max: float | None
    """The busiest second of an engine."""


class TurnLedger(msgspec.Struct, frozen=True):
    """Planned turns against what became of them: planned = begun + dropped,
    begun = recorded + missing + lost. Counts are turns, not attempts."""

    planned: int = 0
    """Turns that became due."""
    dropped: int = 0
    """Turns that were never sent."""
    begun: int = 0
    """Turns that were begun."""
    recorded: int = 0
    """Turns with a record here."""
    missing: int = 0
    """Turns that an engine says it finished but whose records are not here."""
    lost: int = 0
    """Turns that were open when their engine ended."""

    def plus(self, other: TurnLedger) -> TurnLedger:
        return TurnLedger(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))


class Verdict(msgspec.Struct):
    """Whether this is a measurement of the server."""

    status: Status
    """The worst of the findings."""
    findings: list[Finding]
    """Everything that is wrong or worth knowing."""


class RunInShort(msgspec.Struct, kw_only=True):
    """One run of several, beside its levels and cells."""

    run: str
    """Its name."""
    emulated: bool
    """Whether an emulator answered."""
    client: ClientSummary | None
    """null where the run can't be read."""
    curve: LoadCurve | None
    """null with one level."""
    verdict: Status
    """Its status."""
    variant: dict[str, str]
    """What distinguishes it from other runs of the model: precision, hardware, backend, answers, variant."""


class Summary(msgspec.Struct, kw_only=True):
    """summary.json, of one run or of several."""

    format: str = SUMMARY_FORMAT
    run: str
    """Name of the run directory, or of the sweep."""
    emulated: bool
    """Whether an emulator answered, in any run."""
    answer_lengths: str | None = None
    """Where lengths of emulated answers are from: assumed, or a run; null where real or forced."""
    partial: bool
    """Whether a run did not finish."""
    verdict: Verdict
    """Whether this is a measurement, and what is wrong with it."""
    levels: list[LevelSummary] = []
    """The loads."""
    curve: LoadCurve | msgspec.UnsetType | None = msgspec.UNSET
    """Of one run: throughput against load."""
    by_turn: list[GrowthRow] = []
    """How waiting grows with the turns of a conversation."""
    by_context: list[GrowthRow] = []
    """How waiting grows with the length of the prompt."""
    cells: list[CellSummary] = []
    """Every model, task and level, and all of them together."""
    reading_words_per_min: float | msgspec.UnsetType = msgspec.UNSET
    """Of one run: the reading speed that stall time is for."""
    client: ClientSummary | None = None
    """The client; of several runs the worst of each number."""
    outcomes: dict[str, int] = {}
    """Turns by outcome, over the whole run."""
    ledger: TurnLedger | msgspec.UnsetType = msgspec.UNSET
    """Of one run: planned turns against what became of them."""
    variant: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Of one run: what distinguishes it from other runs of the model."""
    runs: list[RunInShort] | msgspec.UnsetType = msgspec.UNSET
    """Of several runs: each of them."""
    comparison: ModelComparison | msgspec.UnsetType | None = msgspec.UNSET
    """How the models differ; null with one model."""
    study: StudyTables | msgspec.UnsetType = msgspec.UNSET
    """The study's tables."""


def summary_json(summary: Summary) -> dict[str, Any]:
    """The summary as it stands in the file: a cell's distributions beside its other fields."""
    plain: dict[str, Any] = msgspec.to_builtins(summary)
    plain["cells"] = [_flat(cell) for cell in plain["cells"]]
    for part in (plain, *plain.get("runs", [])):
        part["client"] = part["client"] or {}
    return plain


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in cell.items():
        flat |= value if key == "values" else {key: value}
    return flat
