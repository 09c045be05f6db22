"""Plays a sweep: serves each model, loads it, and has all runs analysed as one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from loadgen.control._run_files import new_run_dir, point_latest
from turnbench import exits
from turnbench.files import regular_file
from turnbench.formats import SweepEntry, SweepManifest
from turnbench.sweep.forecast import forecasts_of, starts_at_once
from turnbench.sweep.plan import PlanError, SweepPlan, plan_of_sweep
from turnbench.sweep.processes import (
    Process,
    SweepBusy,
    SweepLock,
    ready_url,
    signal_process,
    start_run,
    start_server,
    stop_server,
)
from turnbench.sweep.progress import SweepProgress
from turnbench.sweep.record import INDEX_NAME, SweepRecord, has_level, played_s_of, status_of
from turnbench.sweep.runs import (
    ServedModel,
    client_command,
    next_of,
    require_ready,
    runs_of,
    served_for,
    server_command,
)

_TAIL_LINES = 15
_LOOK_S = 0.1
_GENTLE_SIGNALS = 2
"""Signals after which the next one means: by force."""


def run_sweep(plan: SweepPlan, folder: str | None = None) -> int:
    """Play it in this new directory, or in runs/TIME-NAME, and analyse it.

    The exit code is the analysis's, 3 if a run has no result, 130 or 143 stopped. Raises PlanError, before
    anything is made, for what can be seen to fail.
    """
    runs = runs_of(plan)
    require_ready(plan, runs)
    where = new_run_dir(folder, plan.name, datetime.now(UTC))
    return _play(SweepRecord(where, plan, runs), {})


def resume_sweep(path: str) -> int:
    """Play what a stopped sweep has left; raises PlanError if there is none in that directory."""
    folder = Path(path).resolve()  # runs/LATEST is a link, and about to be made anew
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    try:
        written = msgspec.json.decode(regular_file(folder / "sweep.json").read_bytes(), type=SweepManifest)
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise PlanError.of_lines(
            [f"{path}: no sweep that can be resumed ({why}); name its directory"]
        ) from None
    plan = plan_of_sweep(written.plan, f"{path}/sweep.json")
    took_s = {run.dir: run.took_s for run in written.cells if run.took_s is not None}
    return _play(SweepRecord(folder, plan, runs_of(plan)), took_s)


def _play(record: SweepRecord, took_s: dict[str, float]) -> int:
    try:
        lock = SweepLock(record.folder, lambda text: print(text, flush=True))
    except SweepBusy:
        raise PlanError.of_lines(
            [f"{record.folder}: is being played by another process; stop that one first"]
        ) from None
    record.settle(took_s)
    record.write()
    point_latest(record.folder)
    sweep = SweepRunner(record, lock)
    asyncio.run(sweep.play())
    unlike = sweep.unlike_planned()
    if sweep.signal is not None:
        return exits.OF_SIGNAL[sweep.signal]
    for number in _heard():
        if number != signal.SIGINT:
            signal.signal(number, _end_with_analysis)
    try:
        code = subprocess.run(
            [sys.executable, "-P", "-m", "analysis", str(record.folder)], check=False
        ).returncode
    except KeyboardInterrupt:
        print(f"interrupted; the report: turnbench report {record.folder}", file=sys.stderr)
        return exits.OF_SIGNAL[signal.SIGINT]
    return exits.INVALID if code in (exits.OK, exits.MISSED) and (sweep.failed or unlike) else code


def _heard() -> list[signal.Signals]:
    """The signals that end a sweep in good order; under nohup the end of the terminal is none."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in exits.OF_SIGNAL if not (nohup and number == signal.SIGHUP)]


def _end_with_analysis(number: int, _frame: object) -> None:
    """As an exception: whoever waits for the analysis then ends it too."""
    raise SystemExit(exits.OF_SIGNAL[signal.Signals(number)])


class SweepRunner:
    """One sweep under way."""

    def __init__(self, record: SweepRecord, lock: SweepLock) -> None:
        self.record = record
        self.plan = record.plan
        self.lock = lock
        self.failed = False
        self.signal: signal.Signals | None = None
        self._signals = 0
        self._runs: set[Process] = set()
        self._starting: set[Process] = set()
        self._servers = 0
        self._state = record.folder / "servers"
        waiting = [run for run in record.runs if run.status == "waiting"]
        self.progress = SweepProgress(record, forecasts_of(record.plan, record.runs))
        self._starts = asyncio.Semaphore(starts_at_once(len(waiting), self.plan.parallel))
        self._waiting = self.progress.in_order(waiting)

    async def play(self) -> None:
        """Until every run has been played, or the first signal: then runs drain, then servers stop."""
        loop = asyncio.get_running_loop()
        for number in _heard():
            loop.add_signal_handler(number, self._on_signal, number)
        self.progress.begin()
        ticking = loop.create_task(self.progress.tick())
        lanes = min(self.plan.parallel, len(self._waiting))
        try:
            await asyncio.gather(*(Lane(self).play() for _ in range(lanes)))
        finally:
            ticking.cancel()
            for number in _heard():
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        """First: drain. Second: don't wait for answers. Third: by force."""
        self._signals += 1
        if self.signal is None:
            self.progress.say("stopping: runs drain, then their servers stop; once more ends them at once")
            self.signal = signal.Signals(number)
            self.progress.stopping = True
        for process in [*self._runs, *self._starting]:
            self._stop_process(process)

    def _stop_process(self, process: Process) -> None:
        # Not SIGINT: in Python's own start it is an exception anywhere, which once left Locust's log locked.
        signal_process(process, signal.SIGTERM if self._signals <= _GENTLE_SIGNALS else signal.SIGKILL)

    def next_run(self, served: ServedModel | None) -> SweepEntry | None:
        """What to play next where this is served; None when there is nothing, or no more."""
        if self.signal is not None or not self._waiting:
            return None
        run = next_of(self._waiting, served)
        self._waiting.remove(run)
        return run

    async def serve(self, run: SweepEntry) -> tuple[Process, str] | None:
        """Start the server of this run; None, and the run has failed, if it does not come up."""
        self._servers += 1
        log = self.record.folder / f"server-{self._servers}.log"
        async with self._starts:
            began_s = time.monotonic()
            self.progress.starting_server(run)
            with log.open("ab") as file:
                server = await start_server(server_command(self.plan, run), file, self.lock, self._state)
            self._starting.add(server)
            if self.signal is not None:
                self._stop_process(server)
            url = await ready_url(server)
            self._starting.discard(server)
        if url is not None:
            self.progress.server_started(time.monotonic() - began_s)
            return server, url
        await stop_server(server)
        if self.signal is not None:
            self.note(run, "interrupted")
        else:
            self._fail(run, log, "its server did not start")
            for other in [each for each in self._waiting if served_for(each) == served_for(run)]:
                self._waiting.remove(other)
                self.note(other, "failed")
        return None

    async def load(self, run: SweepEntry, url: str) -> None:
        """One run against this server, to its end."""
        folder, log = self.record.folder / run.dir, self.record.folder / f"{run.dir}.log"
        async with self._starts:
            began_s = time.monotonic()
            self.note(run, "running")
            with log.open("wb") as file:
                command = client_command(self.plan, run, url, self.record.folder)
                state = None if run.model in self.plan.endpoints else self._state
                process = await start_run(command, file, self.lock, state)
            self._runs.add(process)
            if self.signal is not None:
                self._stop_process(process)
            while process.returncode is None and not has_level(folder):
                await asyncio.sleep(_LOOK_S)
        await process.wait()
        self._runs.discard(process)
        run.took_s = round(time.monotonic() - began_s, 3)
        status = status_of(folder)
        if status in ("finished", "failed") or (status and self.signal is not None):
            self.note(run, status, played_s_of(folder))
        elif self.signal is not None:
            self.note(run, "interrupted")
        else:
            what = "end" if status else "start"
            self._fail(run, log, f"its run did not {what} (exit code {process.returncode})")

    def _fail(self, run: SweepEntry, log: Path, why: str) -> None:
        self.failed = True
        self.note(run, "failed")
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join([f"{run.model}: {why}; the end of {log}:", *tail]), file=sys.stderr)

    def note(self, run: SweepEntry, status: str, played_s: float | None = None) -> None:
        """Write down, and say, what became of a run."""
        run.status = status
        self.record.write()
        self.progress.note(run, played_s)

    def unlike_planned(self) -> bool:
        """Write the index, say what it holds and how to go on; True if turns that became due are missing."""
        rows = [row for row in self.record.write_index() if row["turns"] is not None]
        turns, planned = (sum(row[key] or 0 for row in rows) for key in ("turns", "planned"))
        print(f"{self.progress.so_far(self.signal.name if self.signal else None)}: {turns} turns recorded, "
              f"{planned} planned; listed in {self.record.folder / INDEX_NAME}", flush=True)  # fmt: skip
        if any(run.status != "finished" for run in self.record.runs):
            print(f"to play the others: turnbench sweep --resume {self.record.folder}", file=sys.stderr)
        return turns != planned and self.signal is None


class Lane:
    """Where one run goes on after the other, on a server that stays as long as the next run needs it."""

    def __init__(self, sweep: SweepRunner) -> None:
        self._sweep = sweep
        self._server: tuple[Process, str] | None = None
        self._served: ServedModel | None = None

    async def play(self) -> None:
        """Until no run waits any more."""
        try:
            while (run := self._sweep.next_run(self._served)) is not None:
                if (url := await self._url(run)) is not None:
                    await self._sweep.load(run, url)
        finally:
            await self._stop()

    async def _url(self, run: SweepEntry) -> str | None:
        """Where this run's model is served, by us or by somebody else."""
        if (url := self._sweep.plan.endpoints.get(run.model)) is not None:
            return url
        gone = self._server is None or self._server[0].returncode is not None
        if gone or self._served != served_for(run):
            await self._stop()
            self._server = await self._sweep.serve(run)
            self._served = served_for(run) if self._server else None
        return self._server[1] if self._server else None

    async def _stop(self) -> None:
        if self._server is not None:
            await stop_server(self._server[0])
        self._server = self._served = None
