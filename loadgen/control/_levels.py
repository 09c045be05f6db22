"""What a run does in which order: people arrive, warm up, are measured, drain, are cut; the next level."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event

from loadgen._messages import ArrivalSchedule, BeginLevel, CloseLevel, CutLevel, MeasureWindow, StopTurns
from loadgen.control._capacity import CapacitySearch, Judge
from loadgen.control._controller import RunController
from loadgen.control._progress import Progress
from loadgen.control._state import RunState, WorkerState, spawn_guarded
from loadgen.options._shape import Load
from turnbench.formats import ArrivalsSummary, Finding, LevelEntry, TurnRecord
from turnbench.formats.turn import decode

_LOOK_S = 0.25
_ANSWER_S = 10.0
_ARRIVE_SPARE_S = 30.0
_LAST_BATCH_S = 0.6
"""Two of the workers' batches: what was open at the cut has come by then."""
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
        _play_levels(controller, run, progress)
        if not run.end_at_once.is_set():
            controller.measure_offsets(run)
    finally:
        ended.set()
        gevent.joinall(beside)


def _play_levels(controller: RunController, run: RunState, progress: Progress) -> None:
    shape = run.prepared.shape
    search = CapacitySearch(run) if shape.ends == "decided" else None
    played: list[tuple[Load, bool | None]] = []
    while not run.stop.is_set() and (load := shape.next_load(played)) is not None:
        progress.level(len(played) + 1, shape.how_many, load, shape.rest_s(len(played) + 1))
        judge = None if search is None else Judge(run)
        level = _play_level(controller, run, len(played), load, progress, judge)
        if run.stop.is_set():
            break  # cut short: its limits were not judged
        held = None if search is None or judge is None else search.add(level, load, judge)
        played.append((load, held))
    if search is not None:
        search.finish()


def _play_level(
    controller: RunController, run: RunState, index: int, load: Load, progress: Progress, judge: Judge | None
) -> LevelEntry:
    """One level from its first person to its cut; its entry in the manifest."""
    level = _new_level(run, index, load)
    arrivals = Arrivals() if run.prepared.shape.open_loop else None
    if judge is not None or arrivals is not None:

        def on_record(worker: WorkerState, line: bytes) -> None:
            record = decode(line)
            if judge is not None:
                judge.add(record, worker.offset_ns)
            if arrivals is not None:
                arrivals.add(record, worker.offset_ns)

        run.on_record = on_record
    _begin_load(controller, run, level, load)
    if run.prepared.shape.ends == "exhausted":
        _open_window(controller, run, level, level.start_ns or 0, None)
        progress.phase("measuring")
        while sum(run.exhausted.values()) < controller.runner.user_count and not run.stop.wait(0.1):
            pass
    else:
        _measure_for_a_time(controller, run, level, judge, progress)
    if level.window_start_ns is not None:  # close the window now, if it is open longer than that
        now_ns, planned_end_ns = run.timeline.now_ns(), level.window_end_ns
        end_ns = now_ns if planned_end_ns is None else min(now_ns, planned_end_ns)
        _open_window(controller, run, level, level.window_start_ns, end_ns)
    progress.phase("waiting for measured turns")
    _drain(controller, run, index)
    _cut(controller, run, level)
    if run.on_record is not None:
        gevent.sleep(_LAST_BATCH_S)
        run.on_record = None
    progress.over()
    if arrivals is not None and level.window_start_ns is not None and level.window_end_ns is not None:
        level.arrivals = summary = arrivals.summary(level.window_start_ns, level.window_end_ns)
        print(sentence(level.arrival_rate_per_s or 0.0, summary), flush=True)
    run.save()
    return level


def _new_level(run: RunState, index: int, load: Load) -> LevelEntry:
    level = LevelEntry(
        index=index,
        users=load.users,
        arrival_rate_per_s=run.prepared.shape.mean_rate_per_s(load),
        start_ns=run.timeline.now_ns(),
    )
    if load.rate_per_s is not None and load.ramp_to_per_s is not None:
        level.arrival_ramp_per_s = [load.rate_per_s, load.ramp_to_per_s]
    run.manifest.levels.append(level)
    run.level = index
    return level


# --- people and arrivals ---


def _begin_load(controller: RunController, run: RunState, level: LevelEntry, load: Load) -> None:
    """Have the level's people come, or its arrivals begin."""
    if run.prepared.shape.open_loop:
        _gather(controller, run, len(run.workers))  # one user a worker asks its engine for the arrivals
        _announce_arrivals(controller, run, level, load)
        return
    users = load.users or 1
    if controller.runner.user_count > users:  # who is too many must be gone before anybody begins
        _gather(controller, run, users)
    for worker in run.alive():
        controller.send(worker, BeginLevel(level.index))
    _gather(controller, run, users)


def _announce_arrivals(controller: RunController, run: RunState, level: LevelEntry, load: Load) -> None:
    """Send every worker when arrivals begin, on its own clock, and with which number."""
    shape = run.prepared.shape
    spans_s = [shape.warmup_s] + ([] if shape.window_s is None else [shape.window_s])
    first = max((worker.answers.get("was_cut", {}).get("next", 0) for worker in run.alive()), default=0)
    level.start_ns = start_ns = run.timeline.now_ns() + _HEADSTART_NS
    for worker in run.alive():
        schedule = ArrivalSchedule(
            start_ns=start_ns + worker.offset_ns,
            first=first,
            rate_per_s=load.rate_per_s or 0.0,
            spans_s=spans_s,
            ramp_to_per_s=load.ramp_to_per_s,
            replay_speed=load.replay_speed,
        )
        controller.send(worker, BeginLevel(level.index, schedule))


def _gather(controller: RunController, run: RunState, users: int) -> None:
    """Have Locust start or stop users until there are so many, and wait until there are."""
    runner = controller.runner
    rate = run.prepared.shape.spawn_rate_per_s(users)
    if runner.target_user_count != users:
        _wait(run, lambda: runner.state == "running", _ARRIVE_SPARE_S)
        gevent.spawn(runner.start, users, rate)  # it blocks while they come, and a signal must be heard
    limit_s = users / rate + _ARRIVE_SPARE_S
    if not _wait(run, lambda: runner.user_count == users and runner.state == "running", limit_s):
        what = f"{runner.user_count} of {users} people came within {limit_s:g} s"
        remedy = "start fewer people, a higher -r, or more workers"
        run.report(Finding("invalid", "people_missing", what, remedy))


def _wait(run: RunState, condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait for a condition of Locust's runner; True if it came, or the run is ending anyway."""
    until_ns = run.timeline.now_ns() + int(limit_s * 1e9)
    while not condition():
        if run.stop.wait(0.05):
            return True
        if run.timeline.now_ns() > until_ns:
            return False
    return True


# --- the window ---


def _open_window(
    controller: RunController, run: RunState, level: LevelEntry, start_ns: int, end_ns: int | None
) -> None:
    """Write the window down and send it to each worker, on its own clock."""
    level.window_start_ns, level.window_end_ns = start_ns, end_ns
    run.save()
    for worker in run.alive():
        end = None if end_ns is None else end_ns + worker.offset_ns
        controller.send(worker, MeasureWindow(start_ns + worker.offset_ns, end))


def _measure_for_a_time(
    controller: RunController, run: RunState, level: LevelEntry, judge: Judge | None, progress: Progress
) -> None:
    """Wait for the warm-up, open the window, and wait for its end or what ends it before."""
    shape, start_of_level_ns = run.prepared.shape, level.start_ns or 0
    # Arrivals have a clock of their own; people begin when all are there.
    from_ns = start_of_level_ns if shape.open_loop else run.timeline.now_ns()
    start_ns = from_ns + int(shape.warmup_s * 1e9)
    progress.phase("warm-up", start_ns)
    if run.stop.wait(max(start_ns - run.timeline.now_ns(), 0) / 1e9):
        return  # ended before anything was measured
    end_ns = shape.window_end_ns(start_of_level_ns, start_ns)
    _open_window(controller, run, level, start_ns, end_ns)
    progress.phase("measuring", end_ns)
    if judge is None:
        run.stop.wait(None if end_ns is None else max(end_ns - run.timeline.now_ns(), 0) / 1e9)
        return
    while not run.stop.wait(_LOOK_S) and run.timeline.now_ns() < (end_ns or 0):
        if judge.decided(start_ns, run.timeline.now_ns()):
            return


def _drain(controller: RunController, run: RunState, index: int) -> None:
    """Until every measured turn has ended: under load at a level's end, without new turns at an early end."""
    drain_s = run.prepared.settings.drain_s
    if not run.stop.is_set():
        controller.ask(run, CloseLevel(index, drain_s), "closed", drain_s + _ANSWER_S)
    if run.stop.is_set() and not run.end_at_once.is_set():
        controller.ask(run, StopTurns(drain_s), "is_quiet", drain_s + _ANSWER_S)


def _cut(controller: RunController, run: RunState, level: LevelEntry) -> None:
    """End every conversation of the level, so that the next one begins with fresh ones."""
    for worker in controller.ask(run, CutLevel(level.index), "was_cut", _ANSWER_S):
        what = f"worker {worker.index} had not ended level {level.index} in {_ANSWER_S:g} s"
        remedy = "its old streams load the level after it; use more workers"
        run.report(Finding("invalid", "cut_late", what, remedy))
    level.end_ns = run.timeline.now_ns()


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
