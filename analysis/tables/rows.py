"""The tables as text, ready for any place: captions, heads and rows. Terminal, page, Markdown and spreadsheet
show them, each escaping and aligning as it must.

To add a table, write a function here (or in `comparisons`, what sets things against each other) that returns
a TextTable, and a term in the glossary for each new head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UnsetType

from analysis.compare.variants import load_order
from analysis.measures.cells import ALL
from analysis.tables.writing import (
    NONE,
    interval,
    middle,
    milliseconds,
    number,
    percent,
    seconds,
    task,
    tenths,
)
from turnbench.formats.summary import (
    CellSummary,
    Distribution,
    GrowthRow,
    Interval,
    LevelSummary,
    ServerWait,
    Summary,
)
from turnbench.limits import DOUBT

Rows = list[list[str]]
_HIDDEN = 0.1
"""Share of the tokens that nobody saw (more than the stop token of a short answer) from which both stand."""
MOST_FAILED = 0.01
"""Share of failed turns up to which a wait need not say of how many it is."""
SERVER_WAITS = {"ttft": "TTFT", "itl": "inter-event", "queue": "queue", "e2e": "TTG"}
"""What the server's waits are called, by their names in the summary."""


@dataclass(frozen=True)
class TextTable:
    """A table as text. Its caption does not say that a run was emulated: whoever shows it does."""

    caption: str
    heads: tuple[str, ...]
    rows: Rows
    names: tuple[int, ...] = (0,)
    """The columns that hold names, not numbers."""
    note: str = ""
    """What is said under it."""


@dataclass(frozen=True)
class LevelCell:
    """The cell of one model at one level, with what tables call its run and its model."""

    cell: CellSummary
    level: LevelSummary

    @property
    def run(self) -> str:
        """ "" in the summary of a single run."""
        return run_of(self.cell)

    @property
    def name(self) -> str:
        """What the model is called: in a sweep with what distinguishes its run."""
        return name_of(self.cell)

    @property
    def task(self) -> str:
        return self.cell.task

    @property
    def load(self) -> str:
        return self.level.load

    @property
    def setting(self) -> str:
        """What runs that can fairly be compared share; "" in the summary of a single run."""
        return "" if isinstance(self.cell.setting, UnsetType) else self.cell.setting

    @property
    def missed(self) -> int:
        """Turns that got no complete answer."""
        return self.cell.failed + self.cell.unfinished

    def of(self, metric: str) -> Distribution:
        """The distribution of one metric, such as ttg_ms."""
        return self.cell.values[metric]


def run_of(item: CellSummary | LevelSummary | GrowthRow) -> str:
    """The run that a part of a summary is of; "" in the summary of a single run."""
    return "" if isinstance(item.run, UnsetType) else item.run


def name_of(cell: CellSummary) -> str:
    """What the cell's model is called: in a sweep with what distinguishes its run."""
    return cell.model if isinstance(cell.name, UnsetType) else cell.name


def cells_at_levels(summary: Summary) -> list[LevelCell]:
    """Cells of one model and one level in order of load."""
    levels = {(run_of(level), level.index): level for level in summary.levels}
    cells = [
        LevelCell(cell, levels[run_of(cell), int(cell.level)])
        for cell in summary.cells
        if cell.model != ALL and cell.level != ALL
    ]
    return sorted(cells, key=lambda cell: load_order(cell.load))


def typical_ms(cell: LevelCell | None) -> float:
    """A cell's median time to generate, else its mean, to put models in order; infinite where it has none."""
    if cell is None:
        return float("inf")
    times = cell.of("ttg_ms")
    middles = [value for value in (times.p50, times.mean) if value is not None]
    return middles[0] if middles else float("inf")


def waits_table(summary: Summary) -> TextTable:
    """The headline: model, task and level, never summed over levels; also over tasks if there are several."""
    cells = cells_at_levels(summary)
    played: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        played.setdefault((cell.run, cell.cell.model), set()).add(cell.task)
    shown = [c for c in cells if c.task != ALL or len(played[c.run, c.cell.model]) > 2]
    shown.sort(key=lambda c: (c.name, c.task == ALL, c.task, load_order(c.load)))
    rows = [
        [
            cell.name,
            task(cell.task),
            cell.load,
            str(cell.cell.turns),
            middle(cell.of("ttft_ms"), seconds, cell.cell.turns),
            middle(cell.of("ttg_ms"), seconds, cell.cell.turns),
            middle(cell.of("tpot_ms"), milliseconds, cell.cell.turns),
            number(cell.cell.tps) + _seen(cell.cell),
            number(cell.cell.aggregate_tps),
            number(cell.level.streams_mean),
            str(cell.missed) + _failed(cell.cell),
        ]
        for cell in shown
    ]
    heads = ("model", "task", "people", "n", "TTFT p50", "TTG p50", "TPOT p50", "tps", "agg. TPS", "streams")
    note = (
        "m: mean of the n turns (or of the number in brackets), too few for a median. "
        "*: some never ended, and no wait counts beyond the longest that was watched. "
        "≥, ∞: too many turns did not finish to give the number; it is at least what was seen of them."
    )
    return TextTable("Waiting times by model, task and load", (*heads, "failed"), rows, (0, 1), note)


def _seen(cell: CellSummary) -> str:
    """Tokens per second that a person saw, where they are not all."""
    if cell.tps is None or cell.visible_tps is None or cell.visible_tps > (1 - _HIDDEN) * cell.tps:
        return ""
    return f" ({number(cell.visible_tps)} seen)"


def _failed(cell: CellSummary) -> str:
    """The share of failed turns, from 1 % on."""
    return f" ({percent(cell.failed_share)} failed)" if cell.failed_share >= MOST_FAILED else ""


def accuracy_table(summary: Summary) -> TextTable:
    """One row a model, task and load whose answers have a key."""
    rows = []
    for one in scored_cells(summary):
        cell, right = one.cell, one.cell.right_share or 0.0
        right_ends, time_ends = cell.ci95.get("right_share"), cell.ci95.get("seconds_per_right")
        rows.append(
            [
                one.name,
                one.task,
                one.load,
                str(cell.scored),
                percent(right) + _both(right_ends, percent),
                percent(cell.read_share or 0.0),
                number(cell.seconds_per_right) + _both(time_ends, number),
                middle(one.of("ttg_ms"), seconds, cell.turns),
                number(cell.tps),
                percent(cell.failed_share),
            ]
        )
    heads = ("model", "task", "people", "scored", "right", "read", "s per right answer", "TTG p50", "tps")
    note = (
        "right: of the answers that came; failed turns stand apart. "
        "read: out of which an answer could be read; the others are wrong."
    )
    return TextTable("Right answers, and what one takes", (*heads, "failed share"), rows, (0, 1), note)


def scored_cells(summary: Summary) -> list[LevelCell]:
    """Cells of one task with a known share of right answers, by task, model and load."""
    cells = [cell for cell in cells_at_levels(summary) if cell.task != ALL]
    cells = [cell for cell in cells if cell.cell.right_share is not None]
    return sorted(cells, key=lambda cell: (cell.task, cell.name, load_order(cell.load)))


def _both(ends: Interval, write: Callable[[float], str]) -> str:
    """Both ends of an interval in brackets, where they are known."""
    if not ends or ends[0] is None or ends[1] is None:
        return ""
    return f" ({interval((ends[0], ends[1]), write)})"


def levels_table(summary: Summary) -> TextTable:
    """One row a level: what was played, whether it was steady, and what its findings say of it."""
    rows = []
    for level in summary.levels:
        talks = level.conversations
        duration_ms = talks.duration_ms.p50
        rows.append(
            [
                run_of(level) or summary.run,
                str(level.index),
                level.load,
                f"{number(level.window_s)} s{_known(level)}",
                number(level.streams_mean),
                number(level.little),
                str(talks.begun),
                str(talks.completed),
                NONE if duration_ms is None else seconds(duration_ms),
                level.status,
                {True: "met", False: "missed", None: "none set"}[level.holds_limits]
                + f" ({DOUBT})" * (level.limits_sure is False),
            ]
        )
    heads = ("run", "level", "people", "window", "streams", "Little", "conversations", "completed")
    return TextTable("Load levels", (*heads, "duration p50", "status", "limits"), rows, (0, 9, 10))


def _known(level: LevelSummary) -> str:
    """What --until reached."""
    if (until := level.until) is None:
        return ""
    share = "not known" if until.reached is None else f"± {tenths(until.reached)}"
    return f", {until.key} {share} ({tenths(until.share)} asked)"


def energy_table(summary: Summary) -> TextTable:
    """One row a level whose energy or cost is known."""
    rows = []
    for level in summary.levels:
        if (found := level.energy) is not None:
            pairs = (
                (found.joules_per_answer, found.joules_per_answer_ci95),
                (found.joules_per_1000_tokens, found.joules_per_1000_tokens_ci95),
                (found.cost_per_1000_answers, found.cost_per_1000_answers_ci95),
                (found.cost_per_million_tokens, found.cost_per_million_tokens_ci95),
            )
            cells = [
                number(value) + (f" ({number(ci95[0])} to {number(ci95[1])})" if ci95 else "")
                for value, ci95 in pairs
            ]
            rows.append([run_of(level) or summary.run, level.load, number(found.mean_power_w), *cells])
    heads = ("run", "people", "mean power W", "J per answer", "J per 1,000 tokens", "cost of 1,000 answers")
    return TextTable("Energy and cost", (*heads, "cost of a million tokens"), rows, (0,))


def server_waits_table(summary: Summary) -> TextTable:
    """One row a level and wait that the server measures too."""
    rows = []
    for level in summary.levels:
        for name in SERVER_WAITS if level.server else ():
            wait: ServerWait | None = getattr(level.server, name)
            if wait is not None:
                pairs = (
                    (wait.p50, wait.client_p50),
                    (wait.p90, wait.client_p90),
                    (wait.p99, wait.client_p99),
                )
                cells = [text for theirs, ours in pairs for text in (_bucket(theirs), number(ours))]
                first = (run_of(level) or summary.run, level.load, SERVER_WAITS[name], str(wait.n))
                ours_n = NONE if wait.client_n is None else str(wait.client_n)
                means = [number(each) for each in (wait.mean_ms, wait.client_mean_ms, wait.difference_ms)]
                rows.append([*first, ours_n, *means, *cells])
    heads = ("run", "people", "wait", "n of server", "n of client", "server, mean", "client, mean")
    sides = tuple(f"{side} {name}" for name in ("p50", "p90", "p99") for side in ("server", "client"))
    note = (
        "Between the same two looks at the server's /metrics, of every turn, measured or not. A percentile "
        "of the server is known as the bounds of its bucket."
    )
    caption = "The server's own times beside the client's, in milliseconds"
    return TextTable(caption, (*heads, "difference", *sides), rows, (0, 2), note)


def _bucket(ends: Interval) -> str:
    if ends is None or ends[0] is None:
        return NONE
    return f"over {number(ends[0])}" if ends[1] is None else f"{number(ends[0])} to {number(ends[1])}"


def server_counts_table(summary: Summary) -> TextTable:
    """One row a level in which the server counted something."""
    rows = []
    for level in summary.levels:
        if found := level.server:
            shares = [
                NONE if s is None else tenths(s) for s in (found.cache_hit_share, found.acceptance_share)
            ]
            counts = (found.prompt_tokens, found.output_tokens, found.preemptions)
            texts = [NONE if count is None else f"{count:,.0f}" for count in counts]
            rows.append(
                [run_of(level) or summary.run, level.load, f"{number(found.seconds)} s", *texts, *shares]
            )
    heads = ("run", "people", "time", "prompt tokens", "output tokens", "preemptions", "cache hits")
    return TextTable("What the server counted", (*heads, "drafts accepted"), rows, (0,))
