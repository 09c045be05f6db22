"""`turnbench plan RUN...`: from pilot runs, how long must a level be, and how many runs show a difference?

Until the 95 % interval of a number is within 5 %: a standard error falls with the root of time, so a window
of T seconds whose interval is within h has to be T (h / 5 %)^2 long.

Until a change of 5 % shows against a baseline: there runs are the unit (`turnbench compare`), and the log
median of a run has the variance within / T + between, the latter whatever its length. Runs of one server at
different hours differ by more than their turns say. One run knows nothing of that, so it has to be said
(--between) or shown by several runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.text import Text

from analysis.compare.baseline import ALPHA_MEDIANS
from analysis.measures.censored import is_censored, ranked
from analysis.tables import terminal
from analysis.tables.rows import TextTable
from analysis.tables.writing import NONE, for_terminal, number, seconds, stamp, tenths
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study, study_run
from turnbench import exits
from turnbench.cleaning import printable
from turnbench.command_line import CommandParser
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED
from turnbench.run_directory import RunError, read_run
from turnbench.stats.distributions import t_quantile
from turnbench.stats.known import KEYS, TPS, KnownNumber, SentTurns, known
from turnbench.stats.percentiles import LEAST_N, QUANTILES, effective_at
from turnbench.units import duration, share

POWER = 0.80
MEDIANS = ("ttft_p50", "ttg_p50")
"""What `turnbench compare` judges of those that can be asked here."""
_JUDGED = 4
"""Medians that a comparison judges of each cell."""
_MOST_RUNS = 60
LEAST_WINDOW_S = 20.0
_T = 1.96
"""Half an interval's width in standard errors."""
FEW_BATCHES = (0.6, 2.2)
"""Eight in ten forecasts from about ten batches lie between these multiples of the truth (chi-square)."""


@dataclass(frozen=True)
class PilotCell:
    """What the pilot runs say of one number at one load."""

    load: str
    key: str
    runs: list[KnownNumber]
    window_s: float
    """Mean length of their windows."""
    overhead_s: float
    """What a level takes besides its window: people's coming, warm-up and drain."""
    more_turns: float
    """How many times the turns a percentile would need; at most 1 where it has enough."""

    @property
    def number(self) -> float | None:
        found = [run.number for run in self.runs if run.number is not None]
        return float(np.exp(np.mean(np.log(found)))) if len(found) == len(self.runs) else None

    @property
    def within(self) -> float | None:
        """Standard error of the log of one run's number, by what differs within a run."""
        shares = [run.share for run in self.runs]
        if None in shares or not shares:
            return None
        return math.sqrt(float(np.mean([(one or 0.0) ** 2 for one in shares]))) / _T

    @property
    def between(self) -> float | None:
        """Standard deviation of the log from run to run beyond what differs within; None with one run."""
        if len(self.runs) < 2 or self.number is None or self.within is None:
            return None
        logs = np.log([run.number or 1.0 for run in self.runs])
        return math.sqrt(max(float(logs.var(ddof=1)) - self.within**2, 0.0))

    def window_for(self, asked: float) -> float | None:
        """Seconds of a window whose interval is within `asked` of the number."""
        if self.within is None:
            return None
        return max(self.window_s * (self.within * _T / asked) ** 2, LEAST_WINDOW_S)


@dataclass(frozen=True)
class RunsNeeded:
    """How a difference is found: so many runs a side, each with windows so long."""

    runs: int
    window_s: float
    total_s: float
    """Of both sides, with what a level takes besides."""


def runs_needed(cell: PilotCell, detect: float, between: float, tests: int) -> RunsNeeded | None:
    """The quickest way to find a change of `detect` in 8 of 10 tries; None where no 60 runs a side do.

    A t-test of the mean log numbers of the runs, as `compare` makes it; its level is shared by `tests`.
    """
    if cell.within is None:
        return None
    found: list[RunsNeeded] = []
    for runs in range(2, _MOST_RUNS + 1):
        df = 2 * runs - 2
        reach = t_quantile(1 - ALPHA_MEDIANS / tests / 2, df) + t_quantile(POWER, df)
        allowed = (math.log1p(detect) / reach) ** 2 * runs / 2 - between**2
        if allowed > 0:
            window_s = max(cell.window_s * cell.within**2 / allowed, LEAST_WINDOW_S)
            found.append(RunsNeeded(runs, window_s, 2 * runs * (window_s + cell.overhead_s)))
    return min(found, key=lambda one: one.total_s, default=None)


def pilot_cells(studies: Sequence[Study]) -> list[PilotCell]:
    """Every load and number of runs that played the same levels; raises RunError where they did not."""
    loads = [[level.load for level in study.levels] for study in studies]
    if any(other != loads[0] for other in loads):
        raise RunError("these runs played different levels; plan from runs of one kind")
    return [cell for index in range(len(loads[0])) for cell in _at_level(studies, index)]


def _at_level(studies: Sequence[Study], index: int) -> Iterator[PilotCell]:
    levels = [study.levels[index] for study in studies]
    turns = [_sent_turns(study, level) for study, level in zip(studies, levels, strict=True)]
    window_s = float(np.mean([level.window_s for level in levels]))
    whole_s = float(np.mean([(level.end_ns - level.start_ns) / 1e9 for level in levels]))
    if any(one is None for one in turns) or window_s <= 0:
        return
    for key in KEYS:
        numbers = [known(key, one) for one in turns if one is not None]
        more = max(_more_turns(key, one) for one in turns if one is not None)
        yield PilotCell(levels[0].load, key, numbers, window_s, max(whole_s - window_s, 0.0), more)


def _sent_turns(study: Study, level: Level) -> SentTurns | None:
    """The level's answered and censored turns; None where it has none."""
    rows = study.measured[study.measured["level"] == level.index]
    rows = rows[rows["outcome"].isin(ANSWERED).to_numpy() | is_censored(rows)]
    if rows.empty:
        return None
    ttft_ms, ttg_ms = (ranked(rows, METRICS[key]) for key in ("ttft_ms", "ttg_ms"))
    talks = pd.factorize(rows["talk"])[0]
    return SentTurns(floats(rows["position"]), talks, ttft_ms, ttg_ms, floats(rows["tokens"]))


def _more_turns(key: str, turns: SentTurns) -> float:
    if (asked := KEYS[key]) is None:
        return 0.0
    values = getattr(turns, asked[0])
    has = ~np.isnan(values)
    return LEAST_N[asked[1]] / max(effective_at(values[has], turns.talks[has], QUANTILES[asked[1]]), 1e-9)


# --- the command ---


def command_parser(prog: str) -> CommandParser:
    """What a plan takes."""
    parser = CommandParser(
        prog=prog,
        description="From pilot runs: how long a level must be until a number is known to within a share, "
        "and how long\nand how often to run until a change of so much shows in a comparison.",
        example=f"{prog} runs/LATEST --detect 0.05 --between 0.03",
    )
    parser.add_argument("run", type=Path, metavar="RUN", nargs="+", help="a pilot run; several are repeats")
    parser.add_argument("--within", metavar="SHARE", default="5%", help="how near intervals must come (0.05)")
    parser.add_argument("--detect", metavar="SHARE", default="5%", help="the change that must show (0.05)")
    parser.add_argument("--between", metavar="SHARE", help="how much runs of one server differ")
    return parser


def main(arguments: list[str], prog: str = "turnbench plan") -> int:
    """Print both forecasts; 0, or 2 for what can't be read."""
    parser = command_parser(prog)
    options = parser.parse_args(arguments)
    asked = {}
    for name in ("within", "detect", "between"):
        text = getattr(options, name)
        try:
            asked[name] = None if text is None else share(text)
        except ValueError as error:
            parser.error(f"--{name}: {error}")
    try:
        studies = [study_run(read_run(path)) for path in options.run]
        cells = pilot_cells(studies)
    except RunError as error:
        print(printable(error), file=sys.stderr)
        return exits.BAD_CONFIGURATION
    if not cells:
        print("no level of this run has turns that were answered; play a longer one", file=sys.stderr)
        return exits.BAD_CONFIGURATION
    _show(studies, cells, asked["within"] or 0.05, asked["detect"] or 0.05, asked["between"])
    return exits.OK


def _show(
    studies: Sequence[Study], cells: list[PilotCell], within: float, detect: float, between: float | None
) -> None:
    out, mark = terminal.console(), stamp(any(study.emulated for study in studies))
    rows = [[cell.load, cell.key, _number(cell), _known(cell), *_window(cell, within)] for cell in cells]
    caption = f"Window until the 95% interval is within {tenths(within)}"
    heads: tuple[str, ...] = ("people", "number", "now", "within", "needs", "8 in 10")
    out.print(terminal.plain_table(TextTable(caption, heads, rows, (1,)), mark))
    several = studies[0].measured.groupby(["model", "task", "level"]).ngroups
    tests = _JUDGED * several
    rows = []
    for cell in cells:
        if cell.key in MEDIANS:
            used = between if between is not None else cell.between
            needed = runs_needed(cell, detect, used or 0.0, tests)
            rows.append([cell.load, cell.key, _between(cell, between), *_runs(needed)])
    caption = f"Runs a side until a change of {tenths(detect)} shows in 8 of 10 comparisons"
    heads = ("people", "number", "between runs", "runs a side", "window", "both sides take")
    out.print(terminal.plain_table(TextTable(caption, heads, rows, (1,)), mark))
    notes = [
        f"Compare with --threshold {detect / 2:g}: one as large as the threshold shows in half of all tries.",
        f"A comparison of such runs judges {tests} medians together, and so does this plan.",
    ]
    if between is None and len(studies) == 1:
        unknown = "How much runs differ is not known from one run: these are the least, as if they did not."
        notes[:0] = [unknown, "Give several runs of the same server, or --between 3%."]
    elif between is None:
        notes.insert(0, f"How much runs differ is estimated from {len(studies)}, which is rough below ten.")
    for note in notes:
        out.print(Text(for_terminal(note), style="dim"))


def _number(cell: PilotCell) -> str:
    if cell.number is None:
        return NONE
    return f"{number(cell.number)}/s" if cell.key == TPS else seconds(cell.number)


def _known(cell: PilotCell) -> str:
    return NONE if cell.within is None else tenths(cell.within * _T)


def _window(cell: PilotCell, within: float) -> tuple[str, str]:
    """The window that is needed, and the range of that forecast."""
    needed_s = cell.window_for(within)
    if needed_s is None:
        if cell.more_turns > 1:
            return f"over {duration(cell.window_s * cell.more_turns)}", "too few turns"
        return NONE, "not known"
    if needed_s <= LEAST_WINDOW_S:
        return duration(LEAST_WINDOW_S), "the least"
    low, high = (max(needed_s * factor, LEAST_WINDOW_S) for factor in FEW_BATCHES)
    return duration(needed_s), f"{duration(low)} to {duration(high)}"


def _between(cell: PilotCell, given: float | None) -> str:
    if given is not None:
        return f"{tenths(given)} as given"
    return "not known" if cell.between is None else f"{tenths(cell.between)} of {len(cell.runs)} runs"


def _runs(needed: RunsNeeded | None) -> tuple[str, str, str]:
    if needed is None:
        return f"over {_MOST_RUNS}", NONE, NONE
    return str(needed.runs), duration(needed.window_s), duration(needed.total_s)
