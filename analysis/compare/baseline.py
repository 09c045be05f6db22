"""Is run A worse than baseline B? Waits, failures, goodput, and cells that are gone.

Medians are adjusted for their number (Holm 1979) and held to a practical threshold. Runs, not turns, are the
unit: with one run a side, what differs between runs is not known, and medians are judged only if that is
asked for, as a test within these two runs. A rise of the failed share, and a fall of goodput that no drift
between runs explains, are judged always.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

import pandas as pd

from analysis.compare.shares import SHARES, ShareKind, ShareSides
from analysis.compare.sides import SidePair, matched
from analysis.compare.variants import with_waits
from turnbench import exits
from turnbench.formats.comparison import ChangeVerdict, LengthChange, MedianChange, ShareChange

METRICS = ("ttft_ms", "tpot_ms", "ttg_ms", "ttg_equal_ms")
THRESHOLD = 0.05
LENGTHS_DIFFER = 0.05
"""Change of the mean length of an answer above which TTG at equal length decides, and TTG does not."""
ONE_RUN = "differences between runs are not known with one run a side"
ALPHA_MEDIANS, _ALPHA_SHARES = 0.04, 0.01
"""5 % in all, divided between both kinds of tests."""

CellKey = tuple[str, str, str]
"""Model ("" where each side has only one), task and load."""


@dataclass
class Comparison:
    """What was judged of every cell, what could not be, and why."""

    single: bool
    """Whether medians of one run a side are judged, within these runs."""
    changes: list[MedianChange] = field(default_factory=list)
    shares: list[ShareChange] = field(default_factory=list)
    lengths: list[LengthChange] = field(default_factory=list)
    """Cells in which the mean length of an answer changed by more than 5 %."""
    vanished: list[str] = field(default_factory=list)
    """Cells of the baseline that A did not play."""
    unjudged: dict[str, str] = field(default_factory=dict)
    """Why, by cell."""
    one_run: bool = False
    """Whether a cell has only one run on each side."""
    emulated: tuple[bool, bool] = (False, False)
    """Whether a run of A, or of B, is an emulator's."""

    @property
    def judged(self) -> list[MedianChange]:
        return [change for change in self.changes if change.verdict in ("worse", "better", "same")]

    @property
    def regressions(self) -> list[MedianChange]:
        return [change for change in self.changes if change.verdict == "worse"]

    @property
    def worse_shares(self) -> list[ShareChange]:
        return [change for change in self.shares if change.verdict == "worse"]

    @property
    def exit_code(self) -> int:
        """1 if anything is a regression, else 4 if anything was not judged, else 0."""
        if self.regressions or self.worse_shares or self.vanished:
            return exits.MISSED
        return exits.NOT_JUDGED if self.unjudged or not self.judged else exits.OK


def compare(
    a: list[pd.DataFrame], b: list[pd.DataFrame], threshold: float = THRESHOLD, *, single: bool = False
) -> Comparison:
    """Compare the measured turns of runs A, a table each as `side_by_side` has them, with baseline B's.

    `threshold`: the share by which a median has to be worse. `single`: judge medians with one run a side too,
    by what differs within these two runs.
    """
    found = Comparison(single)
    medians: list[tuple[CellKey, str, SidePair]] = []
    shares: list[tuple[CellKey, ShareKind, ShareSides]] = []
    for key, (of_a, of_b) in _cells(a, b).items():
        name = cell_name(*key)
        if not of_a:
            found.vanished.append(name)
        elif not of_b:
            found.unjudged[name] = "the baseline did not play it"
        else:
            found.one_run |= len(of_a) == len(of_b) == 1
            shares += [(key, kind, kind.sides(of_a, of_b)) for kind in SHARES if kind.known(of_a + of_b)]
            medians += _judgeable_medians(found, key, of_a, of_b)
    found.changes += _judged_medians(medians, threshold)
    found.changes.sort(key=lambda c: (c.model, c.task, len(c.load), c.load, METRICS.index(c.metric)))
    found.shares = _judged_shares(shares)
    return found


def cell_name(model: str, task: str, load: str) -> str:
    """A cell in words."""
    return f"{model} {task} at {load}".strip()


def _cells(
    a: list[pd.DataFrame], b: list[pd.DataFrame]
) -> dict[CellKey, tuple[list[pd.DataFrame], list[pd.DataFrame]]]:
    """The turns of each cell, a table a run. Cells pair by model too, unless each side has one model: then
    those two are compared."""
    models = [{name for frame in side for name in frame["name"].unique()} for side in (a, b)]
    keys = ["task", "load"] if all(len(names) == 1 for names in models) else ["name", "task", "load"]
    found: dict[CellKey, tuple[list[pd.DataFrame], list[pd.DataFrame]]] = {}
    for side, frames in enumerate((a, b)):
        for frame in frames:
            for names, rows in frame.groupby(keys, sort=False):
                model, task, load = (*[""] * (3 - len(keys)), *map(str, names))
                found.setdefault((model, task, load), ([], []))[side].append(rows)
    return dict(sorted(found.items()))


def _judgeable_medians(
    found: Comparison, key: CellKey, of_a: list[pd.DataFrame], of_b: list[pd.DataFrame]
) -> list[tuple[CellKey, str, SidePair]]:
    """The medians of a cell that a test can judge; the others are noted with the reason."""
    name = cell_name(*key)
    waits = matched(*([with_waits(rows) for rows in side] for side in (of_a, of_b)))
    if not all(len(rows) for rows in [*waits.a, *waits.b]):
        found.unjudged[name] = "a run has no turn that was answered"
        return []
    tokens = waits.tokens()
    grown = tokens[0] / tokens[1] if all(tokens) else 1.0
    differ = max(grown, 1 / grown) > 1 + LENGTHS_DIFFER
    judgeable = []
    for metric in METRICS:
        pair = waits.pair(metric)
        if not (pair.a.runs and pair.b.runs):
            continue  # no turn has it, such as TPOT where every answer is one event
        why = None
        if not (pair.a.judgeable() and pair.b.judgeable()):
            why = "too few turns or conversations for a median"
        elif not (pair.repeated or found.single):
            why = ONE_RUN
        if metric == "ttg_equal_ms" and differ:
            found.lengths.append(
                LengthChange(
                    model=key[0],
                    task=key[1],
                    load=key[2],
                    a_tokens=tokens[0],
                    b_tokens=tokens[1],
                    ttg_equal_ratio=_finite(pair.ratio),
                )
            )
        if metric == "ttg_ms" and differ:
            found.changes.append(_change(key, metric, pair, "lengths differ"))
        elif why:
            found.changes.append(_change(key, metric, pair, "not judged"))
            found.unjudged.setdefault(name, why)
        else:
            judgeable.append((key, metric, pair))
    return judgeable


def _judged_medians(medians: list[tuple[CellKey, str, SidePair]], threshold: float) -> list[MedianChange]:
    """Holm's steps: the clearest change against alpha / m, the next against alpha / (m - 1) and so on."""
    changes, still_clear = [], True
    for step, (key, metric, pair) in enumerate(sorted(medians, key=lambda one: -one[2].clearness())):
        confidence = 1 - ALPHA_MEDIANS / (len(medians) - step)
        ends, ratio = pair.interval(confidence), pair.ratio
        still_clear = still_clear and (ends[0] > 1 or ends[1] < 1)
        verdict: ChangeVerdict = "same"
        if still_clear and (ratio > 1 + threshold or ratio < 1 / (1 + threshold)):
            verdict = "worse" if ratio > 1 else "better"
        changes.append(_change(key, metric, pair, verdict, confidence))
    return changes


def _change(
    key: CellKey, metric: str, pair: SidePair, verdict: ChangeVerdict, confidence: float = 0.95
) -> MedianChange:
    """As compare.json has it: null for what isn't finite, and for the interval of what was not judged."""
    judged = verdict in ("worse", "better", "same")
    ends = pair.interval(confidence) if judged else (None, None)
    return MedianChange(
        model=key[0],
        task=key[1],
        load=key[2],
        metric=metric,
        a_ms=_finite(pair.a.median()),
        b_ms=_finite(pair.b.median()),
        ratio=_finite(pair.ratio),
        ci=[_finite(end) for end in ends],
        verdict=verdict,
    )


def _judged_shares(shares: list[tuple[CellKey, ShareKind, ShareSides]]) -> list[ShareChange]:
    """Holm's steps as well, over failed shares and goodput of all cells together."""
    changes, still_clear = [], True
    for step, (key, kind, sides) in enumerate(sorted(shares, key=lambda one: -one[2].clearness)):
        ends = sides.interval(1 - _ALPHA_SHARES / (len(shares) - step))
        still_clear = still_clear and (ends[0] > 0 or ends[1] < 0)
        changes.append(
            ShareChange(
                model=key[0],
                task=key[1],
                load=key[2],
                share=kind.name,
                a=sides.a,
                b=sides.b,
                a_turns=sides.turns[0],
                b_turns=sides.turns[1],
                ci=list(ends),
                verdict=kind.verdict(sides, still_clear),
            )
        )
    return sorted(changes, key=lambda c: (c.model, c.task, len(c.load), c.load, c.share))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None
