"""--find-capacity: does a load hold its limits, and what is written down of it; `_shapes` says what is next.

Does a share hold? The test may be looked at after every turn and still errs in at most 5 % of searches. Let
conversation i have n_i turns of which x_i meet the limits, and m_i be the most turns of any up to it. For a
null share S, Z_i = (x_i - S n_i) / m_i has mean 0 whatever the turns of a conversation have in common, and
M = the mean over all shares p of one side of the product of 1 + (p - S) / (S (1 - S)) Z_i is a non-negative
martingale; by Ville's inequality it ever reaches 1 / a with a chance of at most a (Robbins 1970,
Waudby-Smith and Ramdas 2024). With one turn a conversation it is the binomial likelihood ratio. a is 5 % over
the most points of a search, so that all its points are right together in 95 % of searches. Conversations are
taken for independent, which those of one overloaded moment are not: the levels' least times are against that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from loadgen.control._state import RunState
from loadgen.options._shape import Load
from loadgen.options._shapes import LEAST_TURNS, MOST_POINTS, bracket
from turnbench.formats import CapacityPoint, CapacitySummary, LevelEntry, TurnRecord
from turnbench.limits import DEFAULT_SHARE, limits_by_task, meets
from turnbench.outcomes import NOT_MEASURED
from turnbench.turns import counts_stop_token, turns_of

Answer = Literal["holds", "fails", "open"]
SURE = 0.95
"""With which all points of a search are right together."""
_NEED = math.log(MOST_POINTS / (1 - SURE))
_DOUBT = "not sure at 95 %"
_STEPS = 400
_LEAST_NS = 2_000_000_000


def answer(conversations: Sequence[tuple[int, int]], share: float) -> Answer:
    """Whether at least `share` of turns meet the limits, as far as these conversations can tell.

    `conversations`: of each, in the order in which they began, (turns that meet the limits, turns). A share
    of 1 can't be shown by any number of turns: there the first miss decides.
    """
    counts = np.array(conversations, dtype=np.float64).reshape(-1, 2)
    met, turns = counts.sum(axis=0)
    if share >= 1:
        return "open" if met == turns else "fails"
    if share <= 0:
        return "holds"
    if not turns:
        return "open"
    apart = (counts[:, 0] - share * counts[:, 1]) / np.maximum.accumulate(np.maximum(counts[:, 1], 1))
    if met / turns >= share:
        return "holds" if _evidence(apart, share, share, 1.0) >= _NEED else "open"
    return "fails" if _evidence(apart, share, 0.0, share) >= _NEED else "open"


def _evidence(apart: npt.NDArray[np.float64], share: float, low: float, high: float) -> float:
    """Logarithm of M, the mean over shares in [low, high], by the midpoint rule."""
    shares = low + (high - low) * (np.arange(_STEPS) + 0.5) / _STEPS
    bets = (shares - share) / (share * (1 - share))
    kinds, times = np.unique(apart, return_counts=True)  # few: conversations are short
    logs = np.log1p(np.outer(bets, kinds)) @ times
    return float(logs.max() + np.log(np.exp(logs - logs.max()).mean()))


class Judge:
    """Gets the turns of one level, and says when it is clear whether they meet their limits."""

    def __init__(self, run: RunState) -> None:
        self.share = asked_share(run)
        self._limits = limits_by_task(run.prepared.slo)
        self._stop_counted = counts_stop_token(run.prepared.endpoint.server | run.prepared.facts)
        self._hold_ns = int((run.prepared.shape.hold_s or 0.0) * 1e9)
        self._open_loop = run.prepared.shape.open_loop
        self._new: list[tuple[TurnRecord, int]] = []
        self._turns: dict[tuple[int, int], tuple[int, bool]] = {}
        self._longest_ns = 0

    def add(self, record: TurnRecord, offset_ns: int) -> None:
        """`offset_ns`: how far the clock of the record's worker is ahead of ours."""
        if record.outcome not in NOT_MEASURED:
            self._new.append((record, offset_ns))

    def counts(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Of each conversation, (turns that met their limits, turns) of those sent in the window whose tasks
        have limits."""
        new, self._new = self._new, []  # limits are judged for many turns at once
        turns = turns_of([record for record, _ in new], stop_counted=self._stop_counted)
        met, limited = meets(turns, self._limits)
        for (record, offset_ns), kept, counts in zip(new, met.tolist(), limited.tolist(), strict=True):
            sent_ns = record.sent_ns or record.due_ns
            if counts:
                self._turns[record.conversation, record.turn] = (sent_ns - offset_ns, kept)
            if record.end_ns is not None:
                self._longest_ns = max(self._longest_ns, record.end_ns - sent_ns)
        found: dict[int, tuple[int, int]] = {}
        for (conversation, _), (sent_ns, kept) in self._turns.items():
            if start_ns <= sent_ns < end_ns:
                met_before, before = found.get(conversation, (0, 0))
                found[conversation] = (met_before + kept, before + 1)
        return list(found.values())

    def decided(self, start_ns: int, now_ns: int) -> bool:
        """Whether the window may end now.

        A failure is believed soon. That limits hold is believed after two of the longest turns; in open
        loop only after the whole --hold, since a queue that grows slowly begins with quick answers.
        """
        conversations = self.counts(start_ns, now_ns)
        passed_ns = now_ns - start_ns
        if sum(turns for _, turns in conversations) < LEAST_TURNS or passed_ns < _LEAST_NS:
            return False
        match answer(conversations, self.share):
            case "fails":
                return True
            case "holds":
                return passed_ns >= (self._hold_ns if self._open_loop else 2 * self._longest_ns)
        return False


def asked_share(run: RunState) -> float:
    """The share of turns that must meet their limits: --slo's, else the scenario's strictest, else 0.95."""
    shares = [limits["share"] for limits in run.prepared.slo.values() if "share" in limits]
    return max(shares, default=DEFAULT_SHARE)


class CapacitySearch:
    """The points of a search: written into run.json as `capacity` after each, and shown."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        open_loop = run.prepared.shape.open_loop
        self._unit = " conversations/s" if open_loop else " people"
        self._summary = CapacitySummary(
            unit="arrivals_per_s" if open_loop else "people", share=asked_share(run), confidence=SURE
        )

    def add(self, level: LevelEntry, load: Load, judge: Judge) -> bool:
        """One level's point; whether its limits held."""
        conversations = judge.counts(level.window_start_ns or 0, level.window_end_ns or 0)
        met, turns = (sum(column) for column in zip(*conversations, strict=True)) if conversations else (0, 0)
        sure = answer(conversations, judge.share)
        likely = turns > 0 and met / turns >= judge.share
        holds = likely if sure == "open" else sure == "holds"
        asked = load.value if load.users is None else load.users
        point = CapacityPoint(level.index, asked, turns, met, holds, sure != "open")
        self._summary.points.append(point)
        held, fails = bracket({each.load: each.holds for each in self._summary.points})
        self._summary.value, self._summary.lowest_that_fails = held, fails
        self._run.manifest.capacity = self._summary
        verdict = ("holds" if holds else "fails") + ("" if point.sure else f" ({_DOUBT})")
        unit = "/s" if load.users is None else " people"
        print(f"  {asked:g}{unit}: {met} of {turns} turns meet their limits: {verdict}", flush=True)
        return holds

    def finish(self) -> None:
        """Write down and show what was found."""
        summary, points = self._summary, len(self._summary.points)
        value, fails = summary.value, summary.lowest_that_fails
        summary.found = fails is not None and not self._run.stop.is_set()
        self._run.manifest.capacity = summary
        self._run.save()
        if value is None:
            print(f"capacity: none: the limits did not hold at any of {points} loads", flush=True)
            return
        unsure = {point.load for point in summary.points if not point.sure}
        above = "nothing above was seen to fail"
        if fails is not None:
            above = f"{fails:g} fails" + (f", {_DOUBT}" if fails in unsure else "")
        print(
            f"capacity: {value:g}{self._unit}{f', {_DOUBT}' * (value in unsure)} ({above}; share "
            f"{summary.share:g}, {points} points)",
            flush=True,
        )
