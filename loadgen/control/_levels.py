"""What a run does in which order: people arrive, warm up, are measured, drain, are cut; the next level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from loadgen._ramp import mean_rate_per_s
from loadgen.control._clock_offset import measure_offsets
from loadgen.control._conductor import Conductor
from loadgen.control._files import write_manifest
from loadgen.control._guard import spawn_guarded
from loadgen.control._loads import Load, first_users, loads_of, rest_s, spawn_rate_per_s, window_s
from loadgen.control._progress import Progress
from loadgen.control._punctuality import Arrivals, sentence
from loadgen.control._roll_call import lose, watch
from loadgen.control._state import Run, WorkerState
from loadgen.control._window import ANSWER_S, Watcher, drain, end_window, measure, measure_for_a_time
from turnbench.formats.turn import decode

_READY_S = 60.0
_ASK_AGAIN_S = 3.0
_ARRIVE_SPARE_S = 30.0
_LAST_BATCH_S = 0.6
"""Two of the workers' batches: what was open at the cut has come by then."""
_HEADSTART_NS = 500_000_000
"""From telling the workers of arrivals to the first of them."""

Search = Callable[[Conductor, Run, Progress], None]


def play_run(conductor: Conductor, run: Run, search: Search | None = None) -> None:
    """Play every level of a run, or those that `search` asks for; whoever called closes it."""
    ended = Event()
    progress = Progress(conductor.runner, run)
    beside = [
        spawn_guarded(run.fault, watch, conductor.runner, run, ended),
        spawn_guarded(run.fault, progress.keep, ended),
    ]
    try:
        _await_ready(conductor, run)
        measure_offsets(conductor, run)
        (search or _play_levels)(conductor, run, progress)
        if not run.hurry.is_set():
            measure_offsets(conductor, run)
    finally:
        ended.set()
        gevent.joinall(beside)


def _await_ready(conductor: Conductor, run: Run) -> None:
    """Until every worker is ready; one that connected in this very moment may have missed its job."""
    for _ in range(int(_READY_S / _ASK_AGAIN_S)):
        silent = conductor.wait_for(run, "ready", _ASK_AGAIN_S)
        if run.stop.is_set() or not silent:
            return
        for worker in silent:
            conductor.give_job(run, worker)
    for worker in silent:
        lose(run, worker)


def _play_levels(conductor: Conductor, run: Run, progress: Progress) -> None:
    settings = run.prepared.settings
    loads = loads_of(settings)
    for index, load in enumerate(loads):
        if run.stop.is_set():
            break
        progress.level(index + 1, f"of {len(loads)}", load, rest_s(settings, loads[index + 1 :]))
        play_level(conductor, run, index, load, progress)


def play_level(
    conductor: Conductor, run: Run, index: int, load: Load, progress: Progress, watcher: Watcher | None = None
) -> dict[str, Any]:
    """One level from its first person to its cut; its entry in the manifest."""
    level = _new_level(run, index, load)
    arrivals = Arrivals() if load.rate_per_s else None
    if watcher is not None or arrivals is not None:
        run.lookout = lambda worker, line: _look(worker, line, watcher, arrivals)
    _bring(conductor, run, level, load)
    if run.prepared.settings.once:
        measure(conductor, run, level, level["start_ns"], None)
        progress.phase("measuring")
        _wait_exhausted(conductor, run)
    else:
        measure_for_a_time(conductor, run, level, watcher, progress)
    end_window(conductor, run, level)
    progress.phase("waiting for measured turns")
    drain(conductor, run, index)
    _cut(conductor, run, level)
    if run.lookout is not None:
        gevent.sleep(_LAST_BATCH_S)
        run.lookout = None
    progress.over()
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
    if load.rate_per_s is not None and load.ramp_to_per_s is not None:
        settings = run.prepared.settings
        ends = load.rate_per_s, load.ramp_to_per_s
        level["arrival_ramp_per_s"] = list(ends)
        level["arrival_rate_per_s"] = mean_rate_per_s(*ends, settings.run_time_s or 0.0, settings.warmup_s)
    run.manifest["levels"].append(level)
    run.level = index
    return level


def _look(worker: WorkerState, line: bytes, watcher: Watcher | None, arrivals: Arrivals | None) -> None:
    if watcher is not None:
        watcher.add(worker, line)
    if arrivals is not None:
        arrivals.add(decode(line), worker.offset_ns)


def _bring(conductor: Conductor, run: Run, level: dict[str, Any], load: Load) -> None:
    """Have the level's people come, or its arrivals begin."""
    if load.rate_per_s is not None:
        _gather(conductor, run, len(run.workers))  # one user a worker asks its engine for the arrivals
        _open_arrivals(conductor, run, level, load)
        return
    users = load.users or 1
    if conductor.runner.user_count > users:  # who is too many must be gone before anybody begins
        _gather(conductor, run, users)
    conductor.tell_all(run, "level", level=level["index"], arrivals=None)
    _gather(conductor, run, users)


def _open_arrivals(conductor: Conductor, run: Run, level: dict[str, Any], load: Load) -> None:
    """Tell every worker from when arrivals come, on its own clock, and with which number they begin."""
    settings = run.prepared.settings
    measured_s = window_s(settings)
    spans_s = [settings.warmup_s] + ([] if measured_s is None else [measured_s])
    first = max((worker.answers.get("was_cut", {}).get("next", 0) for worker in run.alive()), default=0)
    level["start_ns"] = run.timeline.now_ns() + _HEADSTART_NS
    for worker in run.alive():
        arrivals = {
            "start_ns": level["start_ns"] + worker.offset_ns,
            "first": first,
            "rate_per_s": load.rate_per_s,
            "ramp_to_per_s": load.ramp_to_per_s,
            "spans_s": spans_s,
        }
        conductor.tell(worker, "level", level=level["index"], arrivals=arrivals)


def _gather(conductor: Conductor, run: Run, users: int) -> None:
    """Have Locust bring the people of this level, and wait until all are there."""
    runner, settings = conductor.runner, run.prepared.settings
    rate = spawn_rate_per_s(settings, users)
    if first_users(settings) is not None and runner.target_user_count != users:
        _wait(run, lambda: runner.state == "running", _ARRIVE_SPARE_S)
        gevent.spawn(runner.start, users, rate)  # it blocks while they come, and a signal must be heard
    limit_s = users / rate + _ARRIVE_SPARE_S
    if not _wait(run, lambda: runner.user_count == users and runner.state == "running", limit_s):
        run.finding(
            "invalid", "people_missing", f"{runner.user_count} of {users} people came within {limit_s:g} s",
            "start fewer people, a higher -r, or more workers",
        )  # fmt: skip


def _wait_exhausted(conductor: Conductor, run: Run) -> None:
    while sum(run.exhausted.values()) < conductor.runner.user_count and not run.stop.wait(0.1):
        pass


def _cut(conductor: Conductor, run: Run, level: dict[str, Any]) -> None:
    index = level["index"]
    for worker in conductor.ask(run, "cut", "was_cut", ANSWER_S, level=index):
        what = f"worker {worker.index} had not ended level {index} in {ANSWER_S:g} s"
        run.finding("invalid", "cut_late", what,
                    "its old streams load the level after it; use more workers")  # fmt: skip
    level["end_ns"] = run.timeline.now_ns()


def _wait(run: Run, condition: Any, limit_s: float) -> bool:
    """Wait for a condition of Locust's runner; True if it came, or the run is ending anyway."""
    until_ns = run.timeline.now_ns() + int(limit_s * 1e9)
    while not condition():
        if run.stop.wait(0.05):
            return True
        if run.timeline.now_ns() > until_ns:
            return False
    return True
