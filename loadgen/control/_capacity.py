"""--find-capacity: does a load hold its limits, and what is written down of it; `_shapes` says what is next.

The test is that of `turnbench.limits`, over the most points that a search may have: all its points are right
together in 95 % of searches. It takes conversations for independent, which those of one overloaded moment are
not: the levels' least times are against that.
"""

from __future__ import annotations

from loadgen.control._state import RunState
from loadgen.options._shape import Load
from loadgen.options._shapes import LEAST_TURNS, bracket
from turnbench.formats import CapacityPoint, CapacitySummary, LevelEntry, TurnRecord
from turnbench.limits import DEFAULT_SHARE, DOUBT, MOST_POINTS, SURE, answer, limits_by_task, meets
from turnbench.outcomes import NOT_MEASURED
from turnbench.turns import counts_stop_token, turns_of

_LEAST_NS = 2_000_000_000


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
        match answer(conversations, self.share, MOST_POINTS):
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
        sure = answer(conversations, judge.share, MOST_POINTS)
        likely = turns > 0 and met / turns >= judge.share
        holds = likely if sure == "open" else sure == "holds"
        asked = load.value if load.users is None else load.users
        point = CapacityPoint(level.index, asked, turns, met, holds, sure != "open")
        self._summary.points.append(point)
        held, fails = bracket({each.load: each.holds for each in self._summary.points})
        self._summary.value, self._summary.lowest_that_fails = held, fails
        self._run.manifest.capacity = self._summary
        verdict = ("holds" if holds else "fails") + ("" if point.sure else f" ({DOUBT})")
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
            above = f"{fails:g} fails" + (f", {DOUBT}" if fails in unsure else "")
        print(
            f"capacity: {value:g}{self._unit}{f', {DOUBT}' * (value in unsure)} ({above}; share "
            f"{summary.share:g}, {points} points)",
            flush=True,
        )
