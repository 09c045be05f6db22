"""--find-capacity: the highest load at which the limits hold, every point a level of the same run.

Does a share hold? The test may be looked at after every turn and still is right 95 % of the time. For a
null share S, M = the mean over all shares p of one side of L(p) / L(S), L the binomial likelihood, is a
non-negative martingale when the true share is S; by Ville's inequality it ever reaches 20 with a chance of at
most 5 %. So M >= 20 rejects S, whenever it is looked at (Robbins 1970, Howard et al. 2021). Turns are taken
for independent, which those of one overloaded moment are not: the levels' least times are against that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from loadgen.control._limits import meets
from loadgen.control._loads import Load
from loadgen.control._progress import Progress
from loadgen.control._state import RunState, WorkerState
from turnbench.formats.turn import decode
from turnbench.outcomes import CLASS_OF

if TYPE_CHECKING:  # the search itself needs neither Locust nor its patches
    from loadgen.control._controller import RunController

LONGEST_HOLDS = 4
"""A point that is not clear may take so many times --hold."""
Answer = Literal["holds", "fails", "open"]
SURE = 0.95
_STEPS = 400


def answer(met: int, turns: int, share: float) -> Answer:
    """Whether at least `share` of turns meet the limits, as far as `met` of `turns` can tell at 95 %.

    A share of 1 can't be shown by any number of turns: there the first miss decides.
    """
    if share >= 1:
        return "open" if met == turns else "fails"
    if share <= 0:
        return "holds"
    need = math.log(1 / (1 - SURE))
    if met / max(turns, 1) >= share:
        return "holds" if _evidence(met, turns, share, share, 1.0) >= need else "open"
    return "fails" if _evidence(met, turns, share, 0.0, share) >= need else "open"


def _evidence(met: int, turns: int, share: float, low: float, high: float) -> float:
    """Logarithm of M, the mean over shares in [low, high], by the midpoint rule."""
    missed = turns - met
    null = met * math.log(share) + missed * math.log(1 - share)
    logs = []
    for step in range(_STEPS):
        p = low + (high - low) * (step + 0.5) / _STEPS
        logs.append(met * math.log(p) + missed * math.log(1 - p) - null)
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / _STEPS)


MOST_POINTS = 12
NEAR = 1.08
"""Lowest load that fails over highest that holds at which the search ends."""
_STEP = 4.0


def next_load(tried: dict[float, bool], first: float, whole: bool, least: float = 0.0) -> float | None:
    """The load to try after these (load to whether its limits held), or None when the search is over.

    With `whole` a load is a number of people, at least 1. Below `least` too little would happen to judge by:
    a search that found nothing to hold would go down for ever, through ever emptier points.
    """
    if not tried:
        return first
    if len(tried) >= MOST_POINTS:
        return None
    holds, fails = bracket(tried)
    if fails is None:
        return _rounded((holds or first) * _STEP, whole)
    if holds is None:
        lower = _rounded(fails / _STEP, whole)
        return None if lower in tried or lower < least else lower
    if fails / holds <= NEAR or (whole and fails - holds <= 1):
        return None
    middle = _rounded(math.sqrt(holds * fails), whole)
    return None if middle in tried else middle


def bracket(tried: dict[float, bool]) -> tuple[float | None, float | None]:
    """The lowest load that fails, and the highest below it that holds."""
    fails = min((load for load, held in tried.items() if not held), default=None)
    holds = max(
        (load for load, held in tried.items() if held and (fails is None or load < fails)), default=None
    )
    return holds, fails


def _rounded(load: float, whole: bool) -> float:
    return float(max(round(load), 1)) if whole else float(f"{load:.4g}")


_SHARE = 0.95
_LEAST_TURNS = 20
_LEAST_NS = 2_000_000_000


class Judge:
    """Watches the turns of one level, and says when it is clear whether they meet their limits."""

    def __init__(self, run: RunState, open_loop: bool) -> None:
        self._slo = run.prepared.slo
        self._share = asked_share(run)
        self._hold_ns = int(run.prepared.settings.hold_s * 1e9)
        self._open_loop = open_loop
        self._turns: dict[tuple[int, int], tuple[int, bool]] = {}
        self._longest_ns = 0

    def add(self, worker: WorkerState, line: bytes) -> None:
        record = decode(line)
        if CLASS_OF[record.outcome] == "not_measured":
            return
        sent_ns = record.sent_ns or record.due_ns
        met = meets(record, self._slo.get(record.task, {}))
        self._turns[record.conversation, record.turn] = (sent_ns - worker.offset_ns, met)
        if record.end_ns is not None:
            self._longest_ns = max(self._longest_ns, record.end_ns - sent_ns)

    def counts(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """(turns that met their limits, turns) of those sent in the window."""
        inside = [met for sent_ns, met in self._turns.values() if start_ns <= sent_ns < end_ns]
        return sum(inside), len(inside)

    def answer(self, start_ns: int, end_ns: int) -> Answer:
        return answer(*self.counts(start_ns, end_ns), self._share)

    def decided(self, start_ns: int, now_ns: int) -> bool:
        """Whether the window may end now.

        A failure is believed soon. That limits hold is believed after two of the longest turns; in open
        loop only after the whole --hold, since a queue that grows slowly begins with quick answers.
        """
        _, turns = self.counts(start_ns, now_ns)
        passed_ns = now_ns - start_ns
        if turns < _LEAST_TURNS or passed_ns < _LEAST_NS:
            return False
        match self.answer(start_ns, now_ns):
            case "fails":
                return True
            case "holds":
                return passed_ns >= (self._hold_ns if self._open_loop else 2 * self._longest_ns)
        return False


def asked_share(run: RunState) -> float:
    """The share of turns that must meet their limits: --slo's, else the scenario's strictest, else 0.95."""
    return max((limits["share"] for limits in run.prepared.slo.values() if "share" in limits), default=_SHARE)


def find_capacity(controller: RunController, run: RunState, progress: Progress) -> None:
    """Play levels until the capacity is known; it goes into run.json as `capacity`, and on the screen."""
    settings = run.prepared.settings
    whole = settings.arrival_rate_per_s is None
    first = float(settings.users) if whole else settings.arrival_rate_per_s or 1.0
    tried: dict[float, bool] = {}
    points: list[dict[str, Any]] = []
    least = 0.0 if whole else _LEAST_TURNS / (LONGEST_HOLDS * settings.hold_s)
    while not run.stop.is_set() and (load := next_load(tried, first, whole, least)) is not None:
        asked = Load(users=int(load)) if whole else Load(rate_per_s=load)
        progress.level(len(points) + 1, f"of at most {MOST_POINTS}", asked, None)
        point = _play_point(controller, run, len(points), asked, progress)
        if run.stop.is_set():
            break  # cut short: it says nothing
        tried[load] = point["holds"]
        points.append(point)
        run.manifest.capacity = _capacity(run, tried, points, whole, found=False)
        print(_of_point(point, whole), flush=True)
    run.manifest.capacity = summary = _capacity(run, tried, points, whole, not run.stop.is_set())
    run.save()
    print(_of_all(summary), flush=True)


def _play_point(
    controller: RunController, run: RunState, index: int, load: Load, progress: Progress
) -> dict[str, Any]:
    from loadgen.control._levels import play_level

    judge = Judge(run, open_loop=load.rate_per_s is not None)
    level = play_level(controller, run, index, load, progress, judge)
    start_ns, end_ns = level.window_start_ns or 0, level.window_end_ns or 0
    met, turns = judge.counts(start_ns, end_ns)
    sure = judge.answer(start_ns, end_ns)
    likely = turns > 0 and met / turns >= asked_share(run)
    holds = likely if sure == "open" else sure == "holds"
    asked = load.rate_per_s if load.users is None else load.users
    return {"level": index, "load": asked, "turns": turns, "met": met, "holds": holds, "sure": sure != "open"}


def _capacity(
    run: RunState, tried: dict[float, bool], points: list[dict[str, Any]], whole: bool, found: bool
) -> dict[str, Any]:
    """`value` is the highest load that holds below the lowest that fails; null where none did."""
    holds, fails = bracket(tried)
    return {
        "unit": "people" if whole else "arrivals_per_s",
        "value": holds,
        "lowest_that_fails": fails,
        "share": asked_share(run),
        "confidence": SURE,
        "found": found and fails is not None,
        "points": points,
    }


def _of_point(point: dict[str, Any], whole: bool) -> str:
    share = f"{point['met']} of {point['turns']} turns meet their limits"
    verdict = ("holds" if point["holds"] else "fails") + ("" if point["sure"] else " (not sure at 95 %)")
    return f"  {point['load']:g}{' people' if whole else '/s'}: {share}: {verdict}"


def _of_all(summary: dict[str, Any]) -> str:
    unit = " people" if summary["unit"] == "people" else " conversations/s"
    value, fails, points = summary["value"], summary["lowest_that_fails"], len(summary["points"])
    if value is None:
        return f"capacity: none: the limits did not hold at any of {points} loads"
    above = f"{fails:g} fails" if fails is not None else "nothing above was seen to fail"
    return f"capacity: {value:g}{unit} ({above}; share {summary['share']:g}, {points} points)"
