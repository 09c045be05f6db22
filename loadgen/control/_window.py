"""The window of a level: when measuring begins and ends, and the wait for what was measured."""

from __future__ import annotations

from typing import Any, Protocol

from loadgen.control._conductor import Conductor
from loadgen.control._files import write_manifest
from loadgen.control._loads import window_s
from loadgen.control._progress import Progress
from loadgen.control._state import Run, WorkerState

LONGEST_HOLDS = 4
"""A point of --find-capacity that is not clear may take so many times --hold."""
_LOOK_S = 0.25
ANSWER_S = 10.0


class Watcher(Protocol):
    """Sees every turn of a level, and may end its window before its time."""

    def add(self, worker: WorkerState, line: bytes) -> None: ...

    def decided(self, start_ns: int, now_ns: int) -> bool: ...


def measure(conductor: Conductor, run: Run, level: dict[str, Any], start_ns: int, end_ns: int | None) -> None:
    """Write the window down and tell each worker, on its own clock."""
    level["window_start_ns"], level["window_end_ns"] = start_ns, end_ns
    write_manifest(run)
    for worker in run.alive():
        end = None if end_ns is None else end_ns + worker.offset_ns
        conductor.tell(worker, "measure", start_ns=start_ns + worker.offset_ns, end_ns=end)


def measure_for_a_time(
    conductor: Conductor, run: Run, level: dict[str, Any], watcher: Watcher | None, progress: Progress
) -> None:
    """Wait for the warm-up, open the window, and wait for its end or what ends it before."""
    settings = run.prepared.settings
    # Arrivals have a clock of their own; people begin when all are there.
    from_ns = run.timeline.now_ns() if level["arrival_rate_per_s"] is None else level["start_ns"]
    start_ns = from_ns + int(settings.warmup_s * 1e9)
    progress.phase("warm-up", start_ns)
    if run.stop.wait(max(start_ns - run.timeline.now_ns(), 0) / 1e9):
        return  # ended before anything was measured
    end_ns = _planned_end_ns(run, level, start_ns, watcher)
    measure(conductor, run, level, start_ns, end_ns)
    progress.phase("measuring", end_ns)
    if watcher is None:
        run.stop.wait(None if end_ns is None else max(end_ns - run.timeline.now_ns(), 0) / 1e9)
        return
    while not run.stop.wait(_LOOK_S) and run.timeline.now_ns() < (end_ns or 0):
        if watcher.decided(start_ns, run.timeline.now_ns()):
            return


def _planned_end_ns(run: Run, level: dict[str, Any], start_ns: int, watcher: Watcher | None) -> int | None:
    settings = run.prepared.settings
    if watcher is not None:
        return start_ns + int(LONGEST_HOLDS * settings.hold_s * 1e9)
    asked_s = window_s(settings)
    if asked_s is None:
        return None
    if settings.run_time_s is not None:  # it began with the first person, and the warm-up with the last
        return max(int(level["start_ns"] + settings.run_time_s * 1e9), start_ns)
    return start_ns + int(asked_s * 1e9)


def end_window(conductor: Conductor, run: Run, level: dict[str, Any]) -> None:
    """Close the window now, if it is open longer than that."""
    if level["window_start_ns"] is not None:
        now_ns, planned_end_ns = run.timeline.now_ns(), level["window_end_ns"]
        end_ns = now_ns if planned_end_ns is None else min(now_ns, planned_end_ns)
        measure(conductor, run, level, level["window_start_ns"], end_ns)


def drain(conductor: Conductor, run: Run, index: int) -> None:
    """Until every measured turn has ended: under load at a level's end, without new turns at an early end."""
    drain_s = run.prepared.settings.drain_s
    if not run.stop.is_set():
        conductor.ask(run, "close", "closed", drain_s + ANSWER_S, level=index, drain_s=drain_s)
    if run.stop.is_set() and not run.hurry.is_set():
        conductor.ask(run, "quiet", "is_quiet", drain_s + ANSWER_S, drain_s=drain_s)
