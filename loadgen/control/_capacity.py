"""--find-capacity: the highest load at which the limits hold, every point a level of the same run."""

from __future__ import annotations

from typing import Any

from loadgen.control._conductor import Conductor
from loadgen.control._files import write_manifest
from loadgen.control._levels import play_level
from loadgen.control._limits import meets
from loadgen.control._loads import Load
from loadgen.control._progress import Progress
from loadgen.control._search import MOST_POINTS, bracket, next_load
from loadgen.control._sequential import SURE, Answer, answer
from loadgen.control._state import Run, WorkerState
from loadgen.control._window import LONGEST_HOLDS
from turnbench.formats.turn import decode

_SHARE = 0.95
_LEAST_TURNS = 20
_LEAST_NS = 2_000_000_000
_UNMEASURED = ("cut", "lost", "dropped")


class Judge:
    """Watches the turns of one level, and says when it is clear whether they meet their limits."""

    def __init__(self, run: Run, open_loop: bool) -> None:
        self._slo = run.prepared.slo
        self._share = asked_share(run)
        self._hold_ns = int(run.prepared.settings.hold_s * 1e9)
        self._open_loop = open_loop
        self._turns: dict[tuple[int, int], tuple[int, bool]] = {}
        self._longest_ns = 0

    def add(self, worker: WorkerState, line: bytes) -> None:
        record = decode(line)
        if record.outcome in _UNMEASURED:
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


def asked_share(run: Run) -> float:
    """The share of turns that must meet their limits: --slo's, else the scenario's strictest, else 0.95."""
    return max((limits["share"] for limits in run.prepared.slo.values() if "share" in limits), default=_SHARE)


def find_capacity(conductor: Conductor, run: Run, progress: Progress) -> None:
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
        point = _play_point(conductor, run, len(points), asked, progress)
        if run.stop.is_set():
            break  # cut short: it says nothing
        tried[load] = point["holds"]
        points.append(point)
        run.manifest["capacity"] = _capacity(run, tried, points, whole, found=False)
        print(_of_point(point, whole), flush=True)
    run.manifest["capacity"] = told = _capacity(run, tried, points, whole, not run.stop.is_set())
    write_manifest(run)
    print(_of_all(told), flush=True)


def _play_point(conductor: Conductor, run: Run, index: int, load: Load, progress: Progress) -> dict[str, Any]:
    judge = Judge(run, open_loop=load.rate_per_s is not None)
    level = play_level(conductor, run, index, load, progress, judge)
    start_ns, end_ns = level["window_start_ns"] or 0, level["window_end_ns"] or 0
    met, turns = judge.counts(start_ns, end_ns)
    sure = judge.answer(start_ns, end_ns)
    likely = turns > 0 and met / turns >= asked_share(run)
    holds = likely if sure == "open" else sure == "holds"
    asked = load.rate_per_s if load.users is None else load.users
    return {"level": index, "load": asked, "turns": turns, "met": met, "holds": holds, "sure": sure != "open"}


def _capacity(
    run: Run, tried: dict[float, bool], points: list[dict[str, Any]], whole: bool, found: bool
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


def _of_all(told: dict[str, Any]) -> str:
    unit = " people" if told["unit"] == "people" else " conversations/s"
    value, fails, points = told["value"], told["lowest_that_fails"], len(told["points"])
    if value is None:
        return f"capacity: none: the limits did not hold at any of {points} loads"
    above = f"{fails:g} fails" if fails is not None else "nothing above was seen to fail"
    return f"capacity: {value:g}{unit} ({above}; share {told['share']:g}, {points} points)"
