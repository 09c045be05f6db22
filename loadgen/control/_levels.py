"""What a run does in which order: people arrive, warm up, are measured, drain, are cut; the next level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from loadgen._messages import ArrivalSchedule, BeginLevel, CloseLevel, CutLevel, MeasureWindow, StopTurns
from loadgen.control._capacity import CapacitySearch, Judge
from loadgen.control._controller import RunController
from loadgen.control._findings import CUT_LATE, PEOPLE_MISSING
from loadgen.control._live import DRAINING
from loadgen.control._progress import Progress
from loadgen.control._state import RunState, WorkerState, spawn_guarded
from loadgen.options._shape import EXACT_ARRIVALS, Load
from turnbench.formats import ArrivalsSummary, LevelEntry, TurnRecord, UntilEntry
from turnbench.formats.turn import decode

if TYPE_CHECKING:
    from loadgen.control._until import PrecisionWatch

_LOOK_S = 0.25
_ANSWER_S = 10.0
_ARRIVE_SPARE_S = 30.0
_HEADSTART_NS = 500_000_000
"""From announcing arrivals to the workers to the first of them."""


def play_run(controller: RunController, run: RunState) -> None:
    """Play every level that the shape of the load asks for; whoever called closes the run."""
    ended = Event()
    progress = Progress(controller.runner, run)
    beside = [
        spawn_guarded(run.fault, controller.watch_workers, run, ended),
        spawn_guarded(run.fault, progress.keep, ended),
    ]
    try:
        controller.await_ready(run)
        controller.measure_offsets(run)
        shape = run.prepared.shape
        search = CapacitySearch(run) if shape.ends == "decided" else None
        played: list[tuple[Load, bool | None]] = []
        while not run.stop.is_set() and (load := shape.next_load(played)) is not None:
            progress.level(len(played) + 1, shape, load)
            level = LevelRun(controller, run, progress, len(played), load)
            level.play()
            if run.stop.is_set():
                break  # cut short: its limits were not judged
            held = None if search is None else search.add(level.entry, load, level.judge)
            played.append((load, held))
            if run.last_level:
                run.end("level")
        if search is not None:
            search.finish()
        if not run.end_at_once.is_set():
            controller.measure_offsets(run)
    finally:
        ended.set()
        gevent.joinall(beside)


class LevelRun:
    """One level under way: its people or arrivals, its window, its drain and its cut."""

    def __init__(
        self, controller: RunController, run: RunState, progress: Progress, index: int, load: Load
    ) -> None:
        self._controller = controller
        self._run = run
        self._shape = run.prepared.shape
        self._progress = progress
        self._load = load
        self._start_ns = run.timeline.now_ns()
        self._arrivals = Arrivals()
        self.judge = Judge(run)
        """Whether its turns meet their limits; asked only by shapes whose levels end once that is decided."""
        until = run.prepared.settings.until
        self._precision: PrecisionWatch | None = None
        if until is not None:
            from loadgen.control._until import PrecisionWatch  # scipy: half a second that most need not wait

            self._precision = PrecisionWatch(until, run.prepared)
        self._ended_early = False
        self.entry = LevelEntry(
            index=index,
            users=load.users,
            arrival_rate_per_s=self._shape.mean_rate_per_s(load),
            start_ns=self._start_ns,
        )
        if load.rate_per_s is not None and load.ramp_to_per_s is not None:
            self.entry.arrival_ramp_per_s = [load.rate_per_s, load.ramp_to_per_s]
        run.manifest.levels.append(self.entry)
        run.level = index

    def play(self) -> None:
        """From the first person to the cut."""
        run = self._run
        by_turn = self._shape.open_loop or self._shape.ends == "decided" or self._precision is not None
        run.on_record = self._take if by_turn else None
        self._begin()
        if self._shape.ends == "exhausted":
            self._set_window(self._start_ns, None)
            self._progress.phase("measuring")
            while sum(run.exhausted.values()) < self._controller.runner.user_count:
                if run.stop.wait(0.1):
                    break
        else:
            self._measure()
        entry = self.entry
        if entry.window_start_ns is not None:  # it may be open for longer than the level went on
            end_ns = run.timeline.now_ns()
            if entry.window_end_ns is not None:
                end_ns = min(end_ns, entry.window_end_ns)
            self._set_window(entry.window_start_ns, end_ns)
        self._progress.phase(DRAINING)
        self._drain()
        self._cut()
        run.on_record = None
        self._progress.over()
        if self._shape.open_loop and entry.window_start_ns is not None and entry.window_end_ns is not None:
            entry.arrivals = summary = self._arrivals.summary(entry.window_start_ns, entry.window_end_ns)
            print(sentence(entry.arrival_rate_per_s or 0.0, summary), flush=True)
        if self._precision is not None and entry.window_start_ns is not None:
            entry.until = self._precision.entry(entry, early=self._ended_early)
            print(reached_in_words(entry.until), flush=True)
        run.save()

    def _take(self, worker: WorkerState, line: bytes) -> None:
        record = decode(line)
        if self._shape.ends == "decided":
            self.judge.add(record, worker.offset_ns)
        if self._shape.open_loop:
            self._arrivals.add(record, worker.offset_ns)
        if self._precision is not None:
            self._precision.add(record, worker.offset_ns)

    # --- people and arrivals ---

    def _begin(self) -> None:
        """Have the level's people come, or its arrivals begin."""
        run, index = self._run, self.entry.index
        if not self._shape.open_loop:
            users = self._load.users or 1
            if self._controller.runner.user_count > users:  # who is too many goes before anybody begins
                self._gather(users)
            for worker in run.alive():
                self._controller.send(worker, BeginLevel(index))
            self._gather(users)
            return
        self._gather(len(run.workers))  # one user a worker asks its engine for the arrivals
        shape = self._shape
        spans_s = [shape.warmup_s] + ([] if shape.window_s is None else [shape.window_s])
        planned = round((self.entry.arrival_rate_per_s or 0.0) * (shape.window_s or 0.0))
        if planned >= EXACT_ARRIVALS:
            self.entry.planned_arrivals = planned
        first = max((worker.answers.get("was_cut", {}).get("next", 0) for worker in run.alive()), default=0)
        self.entry.start_ns = self._start_ns = run.timeline.now_ns() + _HEADSTART_NS
        for worker in run.alive():
            schedule = ArrivalSchedule(
                start_ns=self._start_ns + worker.offset_ns,
                first=first,
                rate_per_s=self._load.rate_per_s or 0.0,
                spans_s=spans_s,
                ramp_to_per_s=self._load.ramp_to_per_s,
                replay_speed=self._load.replay_speed,
            )
            self._controller.send(worker, BeginLevel(index, schedule))

    def _gather(self, users: int) -> None:
        """Have Locust start or stop users until there are so many, and wait until there are."""
        runner = self._controller.runner
        rate = self._shape.spawn_rate_per_s(users)
        if runner.target_user_count != users:
            self._wait(lambda: runner.state == "running", _ARRIVE_SPARE_S)
            gevent.spawn(runner.start, users, rate)  # it blocks while they come, and a signal must be heard
        limit_s = users / rate + _ARRIVE_SPARE_S
        if not self._wait(lambda: runner.user_count == users and runner.state == "running", limit_s):
            self._run.report(PEOPLE_MISSING.finding(runner.user_count, users, limit_s))

    def _wait(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Wait for a condition of Locust's runner; True if it came, or the run is ending anyway."""
        until_ns = self._run.timeline.now_ns() + int(limit_s * 1e9)
        while not condition():
            if self._run.stop.wait(0.05):
                return True
            if self._run.timeline.now_ns() > until_ns:
                return False
        return True

    # --- the window ---

    def _set_window(self, start_ns: int, end_ns: int | None) -> None:
        """Write the window down and send it to each worker, on its own clock."""
        self.entry.window_start_ns, self.entry.window_end_ns = start_ns, end_ns
        self._run.save()
        for worker in self._run.alive():
            end = None if end_ns is None else end_ns + worker.offset_ns
            self._controller.send(worker, MeasureWindow(start_ns + worker.offset_ns, end))

    def _measure(self) -> None:
        """Wait for the warm-up, open the window, and wait for its end or what ends it before."""
        run = self._run
        # Arrivals have a clock of their own; people begin when all are there.
        from_ns = self._start_ns if self._shape.open_loop else run.timeline.now_ns()
        start_ns = from_ns + int(self._shape.warmup_s * 1e9)
        self._progress.phase("warm-up", start_ns)
        if run.stop.wait(max(start_ns - run.timeline.now_ns(), 0) / 1e9):
            return  # ended before anything was measured
        end_ns = self._shape.window_end_ns(self._start_ns, start_ns)
        self._set_window(start_ns, end_ns)
        asked = run.prepared.settings.until
        goal = "" if asked is None else f"{asked.key} is within {asked.share * 100:g}%"
        self._progress.phase("measuring", end_ns, goal)
        if self._shape.ends != "decided" and self._precision is None:
            run.stop.wait(None if end_ns is None else max(end_ns - run.timeline.now_ns(), 0) / 1e9)
            return
        while not run.stop.wait(_LOOK_S) and (end_ns is None or run.timeline.now_ns() < end_ns):
            now_ns = run.timeline.now_ns()
            if self._precision is None:
                if self.judge.decided(start_ns, now_ns):
                    return
            elif self._precision.reached(start_ns, now_ns):
                self._ended_early = True
                return
            else:
                self._progress.known(self._precision.in_words((now_ns - start_ns) / 1e9))

    def _drain(self) -> None:
        """Until every measured turn has ended: under load or, at an early end, without new turns."""
        run, drain_s, index = self._run, self._run.prepared.settings.drain_s, self.entry.index
        if not run.stop.is_set():
            self._controller.ask(run, CloseLevel(index, drain_s), "closed", drain_s + _ANSWER_S)
        if run.stop.is_set() and not run.end_at_once.is_set():
            self._controller.ask(run, StopTurns(drain_s), "is_quiet", drain_s + _ANSWER_S)

    def _cut(self) -> None:
        """End every conversation of the level, so that the next one begins with fresh ones."""
        index = self.entry.index
        for worker in self._controller.ask(self._run, CutLevel(index), "was_cut", _ANSWER_S):
            self._run.report(CUT_LATE.finding(worker.index, index, _ANSWER_S))
        self.entry.end_ns = self._run.timeline.now_ns()


# --- open loop: what became of the arrivals ---


class Arrivals:
    """First turns of a level's window, as their records come in."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[int, float | None, bool]] = {}

    def add(self, record: TurnRecord, offset_ns: int) -> None:
        """`offset_ns`: how far the clock of the record's worker is ahead of ours."""
        if record.turn == 1 and record.attempt == 1:
            late_ms = None if record.sent_ns is None else (record.sent_ns - record.due_ns) / 1e6
            dropped = record.outcome == "dropped"
            self._due[record.conversation] = (record.due_ns - offset_ns, late_ms, dropped)

    def summary(self, start_ns: int, end_ns: int) -> ArrivalsSummary:
        """Counts, rate and start lateness (sent - due) of those due in the window."""
        inside = [entry for entry in self._due.values() if start_ns <= entry[0] < end_ns]
        dropped = sum(entry[2] for entry in inside)
        late_ms = sorted(entry[1] for entry in inside if entry[1] is not None)
        window_s = (end_ns - start_ns) / 1e9
        return ArrivalsSummary(
            due=len(inside),
            dropped=dropped,
            begun_per_s=round((len(inside) - dropped) / window_s, 4) if window_s > 0 else None,
            late_p50_ms=_quantile(late_ms, 0.5),
            late_p99_ms=_quantile(late_ms, 0.99),
            late_max_ms=_quantile(late_ms, 1.0),
        )


def reached_in_words(until: UntilEntry) -> str:
    """One line for a person: what --until asked for and what was reached."""
    asked = f"--until {until.key}={until.share * 100:g}%"
    if until.reached is None:
        return f"{asked}: not known after {until.after_s:.0f} s, too few turns"
    ended = "" if until.early else ", the level's longest time"
    return f"{asked}: within {until.reached * 100:.1f}% after {until.after_s:.0f} s{ended}"


def sentence(asked_per_s: float, summary: ArrivalsSummary) -> str:
    """One line for a person."""
    reached = "nothing" if summary.begun_per_s is None else f"{summary.begun_per_s:.2f}/s"
    late = "none was sent"
    if summary.late_p99_ms is not None:
        late = f"start lateness p50 {summary.late_p50_ms:.2f} ms, p99 {summary.late_p99_ms:.2f} ms"
    return (
        f"arrivals: {summary.due} due in the window, {reached} begun of {asked_per_s:g}/s asked for, "
        f"{summary.dropped} dropped; {late}, max {summary.late_max_ms or 0:.2f} ms"
    )


def _quantile(ordered: Iterable[float], share: float) -> float | None:
    """Nearest rank from above: never below the true one."""
    values = list(ordered)
    return round(values[min(int(share * len(values)), len(values) - 1)], 3) if values else None
