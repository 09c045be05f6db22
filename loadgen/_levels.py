"""What a run does in which order: people arrive, warm up, are measured, drain, are cut; the next level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from gevent.event import Event

from loadgen._clock_offset import measure_offsets
from loadgen._conductor import Conductor
from loadgen._punctuality import Arrivals, sentence
from loadgen._records import decode
from loadgen._roll_call import lose, watch
from loadgen._run_files import write_manifest
from loadgen._run_state import Run, WorkerState
from loadgen._settings import Settings

_READY_S = 60.0
_LONGEST_HOLDS = 4
"""A point of --find-capacity that is not clear may take so many times --hold."""
_LOOK_S = 0.25
_ARRIVE_SPARE_S = 30.0
_ANSWER_S = 10.0
_LAST_BATCH_S = 0.6
"""Two of the workers' batches: what was open at the cut has come by then."""
_HEADSTART_NS = 500_000_000
"""From telling the workers of arrivals to the first of them."""


@dataclass(frozen=True)
class Load:
    """What a level asks of the server: so many people, or so many arrivals."""

    users: int | None = None
    rate_per_s: float | None = None


def _loads(settings: Settings) -> list[Load]:
    if settings.arrival_rate_per_s is not None:
        return [Load(rate_per_s=settings.arrival_rate_per_s)]
    return [Load(users) for users in settings.levels or [settings.users]]


def first_users(settings: Settings) -> int | None:
    """How many users Locust starts with where the run says so itself; None: as -u asks."""
    if settings.arrival_rate_per_s is not None:
        return 1
    if settings.find_capacity:
        return settings.users
    return settings.levels[0] if settings.levels else None


class Watcher(Protocol):
    """Sees every turn of a level, and may end its window before its time."""

    def add(self, worker: WorkerState, line: bytes) -> None: ...

    def decided(self, start_ns: int, now_ns: int) -> bool: ...


def play_run(conductor: Conductor, run: Run, search: Callable[[Conductor, Run], None] | None = None) -> None:
    """Play every level of a run, or those that `search` asks for, and close it in any case."""
    ended = Event()
    beside = gevent.spawn(watch, conductor.runner, run, ended)
    try:
        silent = conductor.wait_for(run, "ready", _READY_S)
        for worker in silent:
            lose(run, worker)
        measure_offsets(conductor, run)
        (search or _play_levels)(conductor, run)
        if not run.hurry.is_set():
            measure_offsets(conductor, run)
    finally:
        ended.set()
        beside.join()
        conductor.close_run(run)


def _play_levels(conductor: Conductor, run: Run) -> None:
    for index, load in enumerate(_loads(run.prepared.settings)):
        if run.stop.is_set():
            break
        play_level(conductor, run, index, load)


def play_level(
    conductor: Conductor, run: Run, index: int, load: Load, watcher: Watcher | None = None
) -> dict[str, Any]:
    """One level from its first person to its cut; its entry in the manifest."""
    settings = run.prepared.settings
    level = _new_level(run, index, load)
    arrivals = Arrivals() if load.rate_per_s else None
    if watcher is not None or arrivals is not None:
        run.lookout = lambda worker, line: _look(worker, line, watcher, arrivals)
    if load.rate_per_s is None:
        users = load.users or 1
        if conductor.runner.user_count > users:  # who is too many must be gone before anybody begins
            _gather(conductor, run, users)
        conductor.tell_all(run, "level", level=index, arrivals=None)
        _gather(conductor, run, users)
    else:
        _gather(conductor, run, len(run.workers))  # one user a worker asks its engine for the arrivals
        _open_arrivals(conductor, run, level, load.rate_per_s)
    if settings.once:
        _measure(conductor, run, level, level["start_ns"], None)
        _wait_exhausted(conductor, run)
    else:
        _measure_for_a_time(conductor, run, level, watcher)
    if level["window_start_ns"] is not None:
        now_ns = run.timeline.now_ns()
        planned_end_ns = level["window_end_ns"]
        end_ns = now_ns if planned_end_ns is None else min(now_ns, planned_end_ns)
        _measure(conductor, run, level, level["window_start_ns"], end_ns)
    _drain(conductor, run, index)
    for worker in conductor.ask(run, "cut", "was_cut", _ANSWER_S, level=index):
        what = f"worker {worker.index} had not ended level {index} in {_ANSWER_S:g} s"
        run.finding("invalid", "cut_late", what,
                    "its old streams load the level after it; use more workers")  # fmt: skip
    level["end_ns"] = run.timeline.now_ns()
    if run.lookout is not None:
        gevent.sleep(_LAST_BATCH_S)
        run.lookout = None
    if arrivals is not None and level["window_start_ns"] is not None:
        told = level["arrivals"] = arrivals.summary(level["window_start_ns"], level["window_end_ns"])
        print(sentence(level["arrival_rate_per_s"], told), flush=True)
    write_manifest(run)
    return level


def _new_level(run: Run, index: int, load: Load) -> dict[str, Any]:
    level: dict[str, Any] = {
        "index": index,
        "users": load.users,
        "arrival_rate_per_s": load.rate_per_s,
        "start_ns": run.timeline.now_ns(),
        "window_start_ns": None,
        "window_end_ns": None,
        "end_ns": None,
    }
    run.manifest["levels"].append(level)
    run.level = index
    return level


def _look(worker: WorkerState, line: bytes, watcher: Watcher | None, arrivals: Arrivals | None) -> None:
    if watcher is not None:
        watcher.add(worker, line)
    if arrivals is not None:
        arrivals.add(decode(line), worker.offset_ns)


def _open_arrivals(conductor: Conductor, run: Run, level: dict[str, Any], rate_per_s: float) -> None:
    """Tell every worker from when arrivals come, on its own clock, and with which number they begin."""
    settings = run.prepared.settings
    window_s = None if settings.run_time_s is None else settings.run_time_s - settings.warmup_s
    if settings.find_capacity:
        window_s = settings.hold_s
    spans_s = [settings.warmup_s] + ([] if window_s is None else [window_s])
    first = max((worker.answers.get("was_cut", {}).get("next", 0) for worker in run.alive()), default=0)
    level["start_ns"] = run.timeline.now_ns() + _HEADSTART_NS
    for worker in run.alive():
        start_ns = level["start_ns"] + worker.offset_ns
        arrivals = {"start_ns": start_ns, "first": first, "rate_per_s": rate_per_s, "spans_s": spans_s}
        conductor.tell(worker, "level", level=level["index"], arrivals=arrivals)


def _gather(conductor: Conductor, run: Run, users: int) -> None:
    """Have Locust bring the people of this level, and wait until all are there."""
    runner, settings = conductor.runner, run.prepared.settings
    rate = settings.spawn_rate or (1 if first_users(settings) is None else min(users, 100))
    if first_users(settings) is not None and runner.target_user_count != users:
        _wait(run, lambda: runner.state == "running", _ARRIVE_SPARE_S)
        gevent.spawn(runner.start, users, rate)  # it blocks while they come, and a signal must be heard
    limit_s = users / rate + _ARRIVE_SPARE_S
    if not _wait(run, lambda: runner.user_count == users and runner.state == "running", limit_s):
        run.finding(
            "invalid", "people_missing", f"{runner.user_count} of {users} people came within {limit_s:g} s",
            "start fewer people, a higher -r, or more workers",
        )  # fmt: skip


def _measure_for_a_time(
    conductor: Conductor, run: Run, level: dict[str, Any], watcher: Watcher | None
) -> None:
    settings = run.prepared.settings
    # Arrivals have a clock of their own; people begin when all are there.
    from_ns = run.timeline.now_ns() if level["arrival_rate_per_s"] is None else level["start_ns"]
    start_ns = from_ns + int(settings.warmup_s * 1e9)
    end_ns: int | None = None
    if watcher is not None:
        end_ns = start_ns + int(_LONGEST_HOLDS * settings.hold_s * 1e9)
    elif settings.levels:
        end_ns = start_ns + int(settings.hold_s * 1e9)
    elif settings.run_time_s is not None:
        end_ns = max(level["start_ns"] + int(settings.run_time_s * 1e9), start_ns)
    if run.stop.wait((start_ns - run.timeline.now_ns()) / 1e9):
        return  # ended before anything was measured
    _measure(conductor, run, level, start_ns, end_ns)
    if watcher is None:
        run.stop.wait(None if end_ns is None else max(end_ns - run.timeline.now_ns(), 0) / 1e9)
        return
    while not run.stop.wait(_LOOK_S) and run.timeline.now_ns() < (end_ns or 0):
        if watcher.decided(start_ns, run.timeline.now_ns()):
            return


def _measure(
    conductor: Conductor, run: Run, level: dict[str, Any], start_ns: int, end_ns: int | None
) -> None:
    """Write the window down and tell each worker, on its own clock."""
    level["window_start_ns"], level["window_end_ns"] = start_ns, end_ns
    write_manifest(run)
    for worker in run.alive():
        end = None if end_ns is None else end_ns + worker.offset_ns
        conductor.tell(worker, "measure", start_ns=start_ns + worker.offset_ns, end_ns=end)


def _drain(conductor: Conductor, run: Run, index: int) -> None:
    """Until every measured turn has ended: under load at a level's end, without new turns at an early end."""
    drain_s = run.prepared.settings.drain_s
    if not run.stop.is_set():
        conductor.ask(run, "close", "closed", drain_s + _ANSWER_S, level=index, drain_s=drain_s)
    if run.stop.is_set() and not run.hurry.is_set():
        conductor.ask(run, "quiet", "is_quiet", drain_s + _ANSWER_S, drain_s=drain_s)


def _wait_exhausted(conductor: Conductor, run: Run) -> None:
    while sum(run.exhausted.values()) < conductor.runner.user_count and not run.stop.wait(0.1):
        pass


def _wait(run: Run, condition: Any, limit_s: float) -> bool:
    """Wait for a condition of Locust's runner; True if it came, or the run is ending anyway."""
    until_ns = run.timeline.now_ns() + int(limit_s * 1e9)
    while not condition():
        if run.stop.wait(0.05):
            return True
        if run.timeline.now_ns() > until_ns:
            return False
    return True
