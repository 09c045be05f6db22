"""What models compared with each other, and runs compared with a baseline, leave in files.

`ModelComparison` and `StudyTables` are the parts `comparison` and `study` of summary.json; `ComparisonFile`
is compare.json. Intervals (`*_ci95`) are [low, high] at 95%; null where there are too few conversations.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Ends = list[float]
"""Both ends of an interval."""


class RankedModel(msgspec.Struct, kw_only=True):
    """One model in both rankings of one task at one load; equal values share the mean of their ranks."""

    name: str
    turns: int
    """Turns that got a complete answer."""
    conversations: int
    tps: float
    """All tokens of its answers over the sum of their times to generate, per second."""
    time_ms: float | None
    """Mean time to generate, milliseconds; restricted to the cell's `horizon_ms` where there is one."""
    tokens_mean: float
    """Mean output tokens of an answer, by the model's own tokenizer."""
    words_per_s: float
    s_per_100_words: float | None
    """Seconds to generate a hundred words; null without any word."""
    rank_tps: float = 0.0
    """1: the most tokens per second."""
    rank_time: float = 0.0
    """1: the shortest time."""


class ModelPair(msgspec.Struct, kw_only=True):
    """Two models in opposite orders: one faster in tokens per second, the other sooner complete."""

    faster: str
    sooner: str
    swaps: bool
    """Whether that is so in the sample; if not, only in some resamples."""
    p: float | None
    """Share of the resamples in which it is so; null with too few conversations."""
    p_value: float | None = None
    """Of it not being so, by a normal tail of the resamples."""
    p_adjusted: float | None = None
    """The same, adjusted for all pairs, tasks and loads shown (Holm 1979)."""


class TimeShares(msgspec.Struct, kw_only=True):
    """Where the variance of log(TTFT + M TPOT) comes from: Shapley values (1953) over the whole variance.
    They sum to one and may be negative."""

    verbosity: float
    """M, the tokens after the first event."""
    time_per_token: float
    first_token: float
    variance: float
    ci95: dict[str, list[float | None]] | None
    """Interval of each share."""

    def of(self, part: str) -> float:
        """One of the shares by its name."""
        return float(getattr(self, part))


class SwapTable(msgspec.Struct, kw_only=True):
    """Mean time to generate with one model's speed and another's answer lengths."""

    names: list[str]
    time_ms: list[list[float | None]]
    """Row: the model whose TTFT and time per token are used; column: the one whose lengths are."""


class RankingCell(msgspec.Struct, kw_only=True):
    """Both rankings of the models in one task at one load."""

    task: str = ""
    """"all": the turns of every task."""
    load: str = ""
    setting: str = ""
    """What the compared models share (precision, hardware, length of answers); "" where there is only one."""
    models: list[RankedModel]
    tau: float | None
    """Kendall's tau-b (1945) of both rankings: +1 the same, -1 the reverse; null where all are tied."""
    tau_shuffled: float | None = None
    """Mean of tau where each model takes another one's lengths of answers: the benchmark for what verbosity
    does to the order."""
    tau_shuffled_ci95: Ends | None = None
    """The middle 95 % of those."""
    horizon_ms: float | None = None
    """Where a turn never finished: the time to which times to generate are restricted, for all models."""
    pairs_agreeing: int
    pairs_in_all: int
    tau_ci95: Ends | None
    p_value: float | None
    """Of both rankings being unrelated."""
    least_p_value: float
    """What perfect agreement would give: the most that so many models can prove."""
    pairs: list[ModelPair]
    shares: TimeShares | None = None
    swap: SwapTable | None = None


class Effect(msgspec.Struct, kw_only=True):
    """One term of the analysis of variance of log TTG: one mean per conversation, type II sums of squares."""

    term: str
    df: int
    """Degrees of freedom."""
    omega_squared: float
    """Effect size (Hays 1963)."""
    p_value: float


class ModelComparison(msgspec.Struct, kw_only=True):
    """How models differ, task by task and load by load."""

    cells: list[RankingCell]
    effects: list[Effect] | None
    words: str = ""
    """What the cells say, as a paragraph."""


class TaskRatio(msgspec.Struct, kw_only=True):
    """A task against the one that the same model completed fastest at the same load."""

    n: int
    time_ms: float
    """Mean time, milliseconds."""
    ratio: float
    """That over the fastest task's."""
    ci95: Ends | None
    quickest: str
    """Which task was fastest."""


class TaskRatios(msgspec.Struct, kw_only=True):
    """One task of one model at one load, at natural length and at 256 tokens; null where it isn't known."""

    name: str
    load: str
    task: str
    natural: TaskRatio | None
    at_256: TaskRatio | None

    def of(self, length: str) -> TaskRatio | None:
        """At "natural" length or "at_256"."""
        return self.natural if length == "natural" else self.at_256


class PrecisionAgreement(msgspec.Struct, kw_only=True):
    """Rankings of the models at a lower precision against those at 16 bits, as Kendall's tau-b."""

    task: str
    load: str
    precision: str
    models: int
    """Models that were played at both."""
    tau_tps: float | None
    tau_tps_ci95: Ends | None
    tau_time: float | None
    tau_time_ci95: Ends | None


class StudyTables(msgspec.Struct, kw_only=True):
    """The study's own comparisons (Conde et al., IEEE Computer 2024)."""

    ratios: list[TaskRatios]
    precisions: list[PrecisionAgreement]


ChangeVerdict = Literal["worse", "better", "same", "not judged", "lengths differ"]


class MedianChange(msgspec.Struct, kw_only=True):
    """The median of one metric in one cell, run A against baseline B."""

    model: str
    """"" where each side has one model only."""
    task: str
    load: str
    """Simulated people at the same time, or conversations arriving per second as in `5/s`."""
    metric: str
    """ttft_ms, tpot_ms, ttg_ms, or ttg_equal_ms: A's TTFT and TPOT with the baseline's lengths of answers."""
    a_ms: float | None
    """Median of A, milliseconds; null where it falls among turns that never finished."""
    b_ms: float | None
    """Median of B, in the same way."""
    ratio: float | None
    """A over B; of turns in pairs the median of their ratios."""
    ci: list[float | None]
    """Interval of the ratio, adjusted for the number of cells (Holm 1979); null: open, or not judged."""
    verdict: ChangeVerdict
    """worse and better: by more than the threshold, with an interval that excludes 1. lengths differ: answers
    changed by over 5 %, so ttg_equal_ms decides."""


class ShareChange(msgspec.Struct, kw_only=True):
    """A share of one cell's turns, run A against baseline B."""

    model: str
    task: str
    load: str
    share: Literal["failed", "unfinished", "goodput"]
    """failed: turns that failed. unfinished: those that did not, and still ran when they were last seen.
    goodput: of the turns with limits, those that met them all."""
    a: float
    b: float
    a_turns: int
    """Turns that the share is of."""
    b_turns: int
    ci: list[float]
    """Interval of a - b, adjusted for the number of shares."""
    verdict: Literal["worse", "better", "same"]


class LengthChange(msgspec.Struct, kw_only=True):
    """A cell in which the mean length of an answer changed by more than 5 %."""

    model: str
    task: str
    load: str
    a_tokens: float
    """Mean output tokens of an answer."""
    b_tokens: float
    ttg_equal_ratio: float | None
    """Time to generate with the baseline's lengths of answers, A over B."""


class ComparisonFile(msgspec.Struct, kw_only=True):
    """Runs A against their baseline B: `python -m analysis A --compare B` writes it into the first A."""

    emulated: bool
    """Whether any of the runs is an emulator's."""
    exit_code: int = 0
    """1: a regression; 4: something could not be judged; 0: neither."""
    outcome: str = ""
    """What came of it, in words."""
    single: bool = False
    """Whether medians were judged within one run a side, because `--single` asked for that."""
    changes: list[MedianChange]
    """One for each cell and metric."""
    shares: list[ShareChange] = []
    """Failed shares and goodput."""
    lengths: list[LengthChange] = []
    """Where answers changed by more than 5 %."""
    vanished: list[str] = []
    """Cells of the baseline that A did not play."""
    unjudged: dict[str, str] = {}
    """Cells of which something could not be judged, with the reason."""
