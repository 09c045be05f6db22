"""Plays a sweep: serves each model, loads it with Locust, and has all runs analysed as one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from loadgen.control._run_files import new_run_dir, point_latest
from turnbench.sweep.book import INDEX_NAME, Book, Entry, has_level, played_s_of, status_of
from turnbench.sweep.cells import cells_of, client_command, next_of, server_command
from turnbench.sweep.forecast import guesses_of, starts_at_once
from turnbench.sweep.plan import PlanError, SweepPlan, plan_of_sweep
from turnbench.sweep.processes import (
    Lock,
    Process,
    SweepBusy,
    ready_url,
    signal_process,
    start_run,
    start_server,
    stop_server,
)
from turnbench.sweep.progress import Progress
from turnbench.sweep.ready import require_ready
from turnbench.units import duration

_TAIL_LINES = 15
_EXIT_OF_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143}
_INVALID = 3
_LOOK_S = 0.1
_PATIENCE = 2
"""Signals after which the next one means: by force."""


def run_sweep(plan: SweepPlan) -> int:
    """Play it, analyse it; the exit code is the analysis's, 3 if a run has no result, 130 or 143 stopped.

    Raises PlanError, before anything is made, for what can be seen to fail.
    """
    cells = cells_of(plan)
    require_ready(plan, cells)
    folder = new_run_dir(None, plan.name, datetime.now(UTC))
    return _play(Book(folder, plan, [Entry(cell) for cell in cells]), {})


def resume_sweep(path: str) -> int:
    """Play what a stopped sweep has left; raises PlanError if there is none in that directory."""
    folder = Path(path).resolve()  # runs/LATEST is a link, and about to be made anew
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    try:
        written = json.loads((folder / "sweep.json").read_bytes())
        plan = plan_of_sweep(written["plan"], f"{path}/sweep.json")
        took_s = {cell["dir"]: cell["took_s"] for cell in written["cells"] if cell.get("took_s")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise PlanError([f"{path}: no sweep that can be resumed ({why}); name its directory"]) from None
    return _play(Book(folder, plan, [Entry(cell) for cell in cells_of(plan)]), took_s)


def _play(book: Book, took_s: dict[str, float]) -> int:
    try:
        lock = Lock(book.folder, lambda text: print(text, flush=True))
    except SweepBusy:
        raise PlanError([f"{book.folder}: is being played by another process; stop that one first"]) from None
    book.settle(took_s)
    book.write()
    point_latest(book.folder)
    sweep = Sweep(book, lock)
    asyncio.run(sweep.play())
    unlike = sweep.unlike_planned()
    if sweep.signal is not None:
        print(f"interrupted; to go on: python -m loadgen sweep --resume {book.folder}", file=sys.stderr)
        return _EXIT_OF_SIGNAL[sweep.signal]
    signal.signal(signal.SIGTERM, _end_with_analysis)
    try:
        code = subprocess.run(
            [sys.executable, "-P", "-m", "analysis", str(book.folder)], check=False
        ).returncode
    except KeyboardInterrupt:
        print(f"interrupted; the report: python -m analysis {book.folder}", file=sys.stderr)
        return _EXIT_OF_SIGNAL[signal.SIGINT]
    return _INVALID if code in (0, 1) and (sweep.failed or unlike) else code


def _end_with_analysis(number: int, _frame: object) -> None:
    """As an exception: whoever waits for the analysis then ends it too."""
    raise SystemExit(_EXIT_OF_SIGNAL[signal.Signals(number)])


class Sweep:
    """One sweep under way."""

    def __init__(self, book: Book, lock: Lock) -> None:
        self.book = book
        self.plan = book.plan
        self.lock = lock
        self.failed = False
        self.signal: signal.Signals | None = None
        self._signals = 0
        self._runs: set[Process] = set()
        self._starting: set[Process] = set()
        self._servers = 0
        self.progress = Progress(book, guesses_of(book.plan, [entry.cell for entry in book.entries]))
        runs = sum(entry.status == "waiting" for entry in book.entries)
        self._starts = asyncio.Semaphore(starts_at_once(runs, self.plan.parallel))
        self._waiting = self.progress.in_order([e for e in book.entries if e.status == "waiting"])

    async def play(self) -> None:
        """Until every run has been played, or the first signal: then runs drain, then servers stop."""
        loop = asyncio.get_running_loop()
        for number in _EXIT_OF_SIGNAL:
            loop.add_signal_handler(number, self._on_signal, number)
        self.progress.begin()
        ticking = loop.create_task(self.progress.tick())
        places = min(self.plan.parallel, len(self._waiting))
        try:
            await asyncio.gather(*(Place(self).play() for _ in range(places)))
        finally:
            ticking.cancel()
            for number in _EXIT_OF_SIGNAL:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        """First: drain. Second: don't wait for answers. Third: by force."""
        self._signals += 1
        if self.signal is None:
            self.progress.say("stopping: runs drain, then their servers stop; once more ends them at once")
            self.signal = signal.Signals(number)
        for process in [*self._runs, *self._starting]:
            self._tell_to_end(process)

    def _tell_to_end(self, process: Process) -> None:
        # Not SIGINT: in Python's own start it is an exception anywhere, which once left Locust's log locked.
        signal_process(process, signal.SIGTERM if self._signals <= _PATIENCE else signal.SIGKILL)

    def next_entry(self, served: tuple[str, str | None] | None) -> Entry | None:
        """What to play next at a place that serves this; None when there is nothing, or no more."""
        if self.signal is not None or not self._waiting:
            return None
        cell = next_of([entry.cell for entry in self._waiting], served)
        entry = next(entry for entry in self._waiting if entry.cell is cell)
        self._waiting.remove(entry)
        return entry

    async def serve(self, entry: Entry) -> tuple[Process, str] | None:
        """Start the server of this run; None, and the run has failed, if it does not come up."""
        self._servers += 1
        log = self.book.folder / f"server-{self._servers}.log"
        async with self._starts:
            began_s = time.monotonic()
            self.progress.serving(entry)
            with log.open("ab") as said:
                server = await start_server(server_command(self.plan, entry.cell), said, self.lock)
            self._starting.add(server)
            if self.signal is not None:
                self._tell_to_end(server)
            url = await ready_url(server)
            self._starting.discard(server)
        if url is not None:
            self.progress.server_started(time.monotonic() - began_s)
            return server, url
        await stop_server(server)
        if self.signal is not None:
            self.note(entry, "interrupted")
        else:
            self._fail(entry, log, "its server did not start")
            for other in [each for each in self._waiting if each.cell.server == entry.cell.server]:
                self._waiting.remove(other)
                self.note(other, "failed")
        return None

    async def load(self, entry: Entry, url: str) -> None:
        """One run against this server, to its end."""
        cell = entry.cell
        log = self.book.folder / f"{cell.dir}.log"
        async with self._starts:
            began_s = time.monotonic()
            self.note(entry, "running")
            with log.open("wb") as said:
                run = await start_run(client_command(self.plan, cell, url, self.book.folder), said, self.lock)
            self._runs.add(run)
            if self.signal is not None:
                self._tell_to_end(run)
            while run.returncode is None and not has_level(self.book.folder / cell.dir):
                await asyncio.sleep(_LOOK_S)
        await run.wait()
        self._runs.discard(run)
        status = status_of(self.book.folder / cell.dir)
        entry.took_s = round(time.monotonic() - began_s, 3)
        entry.played_s = played_s_of(self.book.folder / cell.dir)
        if status in ("finished", "failed") or (status and self.signal is not None):
            self.note(entry, status)
        elif self.signal is not None:
            self.note(entry, "interrupted")
        else:
            what = "end" if status else "start"
            self._fail(entry, log, f"its run did not {what} (exit code {run.returncode})")

    def _fail(self, entry: Entry, log: Path, why: str) -> None:
        self.failed = True
        self.note(entry, "failed")
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join([f"{entry.cell.model}: {why}; the end of {log}:", *tail]), file=sys.stderr)

    def note(self, entry: Entry, status: str) -> None:
        entry.status = status
        self.book.write()
        self.progress.note(entry)

    def unlike_planned(self) -> bool:
        """Write the index and say what it holds; True if a finished run lacks turns that became due."""
        rows = [row for row in self.book.write_index() if row["turns"] is not None]
        turns, planned = (sum(row[key] or 0 for row in rows) for key in ("turns", "planned"))
        took = duration(self.progress.passed_s)
        print(f"{len(rows)} of {len(self.book.entries)} runs in {took}: {turns} turns recorded, "
              f"{planned} planned; all of them in {self.book.folder / INDEX_NAME}", flush=True)  # fmt: skip
        return turns != planned and self.signal is None


class Place:
    """Where one run goes on after the other, on a server that stays as long as the next run needs it."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._server: tuple[Process, str] | None = None
        self._served: tuple[str, str | None] | None = None

    async def play(self) -> None:
        try:
            while (entry := self._sweep.next_entry(self._served)) is not None:
                if (url := await self._url(entry)) is not None:
                    await self._sweep.load(entry, url)
        finally:
            await self._stop()

    async def _url(self, entry: Entry) -> str | None:
        """Where this run's model is served, by us or by somebody else."""
        if (url := self._sweep.plan.endpoints.get(entry.cell.model)) is not None:
            return url
        gone = self._server is None or self._server[0].returncode is not None
        if gone or self._served != entry.cell.server:
            await self._stop()
            self._server = await self._sweep.serve(entry)
            self._served = entry.cell.server if self._server else None
        return self._server[1] if self._server else None

    async def _stop(self) -> None:
        if self._server is not None:
            await stop_server(self._server[0])
        self._server = self._served = None
