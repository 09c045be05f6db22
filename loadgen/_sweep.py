"""Plays a sweep: serves each model, loads it with Locust, and has all runs analysed as one."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadgen import _option_values as values
from loadgen._options import OPTIONS
from loadgen._runwriter import new_run_dir, point_latest
from loadgen._sweep_plan import PlanError, SweepPlan, cells_of
from loadgen._times import seconds

SWEEP_FORMAT = "turnbench-sweep/1"
_SWITCHES = {option.name for option in OPTIONS if option.metavar is None}
_STOP_S = 20.0
_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1


def run_sweep(plan: SweepPlan) -> int:
    """Play it, analyse it; the exit code is the analysis's, 3 if a run has none, 130 after Ctrl-C."""
    return _play(Sweep(plan, new_run_dir(None, plan.name, datetime.now(UTC))))


def resume_sweep(path: str) -> int:
    """Play what a stopped sweep has left; raises PlanError if there is none in that directory."""
    folder = Path(path)
    try:
        written = json.loads((folder / "sweep.json").read_bytes())
        plan = SweepPlan(**written["plan"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError([f"{path}: no sweep that can be resumed ({error}); name its directory"]) from None
    return _play(Sweep(plan, folder))


def _play(sweep: Sweep) -> int:
    plan, folder = sweep.plan, sweep.folder
    if least_s := sweep.least_s():
        print(
            f"this takes at least {least_s:.0f} s; a better guess comes with the first run done", flush=True
        )
    print(f"sweep {folder}: {', '.join(plan.models)} ({plan.backend})", flush=True)
    try:
        asyncio.run(sweep.play())
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        return 130
    code = _analyse(folder)
    return 3 if code == 0 and sweep.failed else code


class Sweep:
    """One sweep under way: its cells and their state, in sweep.json."""

    def __init__(self, plan: SweepPlan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self._started_s = time.monotonic()
        self._cells = [asdict(cell) | {"status": "waiting"} for cell in cells_of(plan)]
        for cell in self._cells:
            if _status(folder / cell["dir"]) == "finished":
                cell["status"] = "finished"
            else:
                _put_aside(folder, cell["dir"])
        self._waiting: int = sum(cell["status"] == "waiting" for cell in self._cells)
        self._played = 0
        self.failed = False
        self._write()
        point_latest(folder)

    def least_s(self) -> float | None:
        """Warm-ups and windows of what is left, without starts and drains; None where the plan can't say."""
        run = self.plan.run
        try:
            levels = len(values.levels(run["levels"]))
            one_s: float = levels * (seconds(run.get("warmup", "5s")) + seconds(run.get("hold", "60s")))
        except (KeyError, ValueError):  # its first run says what is wrong
            return None
        return self._waiting * one_s / self.plan.parallel

    async def play(self) -> None:
        places = asyncio.Semaphore(self.plan.parallel)

        async def one(cell: dict[str, Any]) -> None:
            async with places:
                await self._cell(cell)

        await asyncio.gather(*(one(cell) for cell in self._cells if cell["status"] == "waiting"))

    async def _cell(self, cell: dict[str, Any]) -> None:
        """Serve one model, run the load, stop the server; a failure is shown and the others go on."""
        self._note(cell, "running")
        log = self.folder / f"{cell['dir']}.log"
        if (url := self.plan.endpoints.get(cell["model"])) is not None:
            with log.open("wb") as said:
                client = await _start("locust", *self._client_options(cell, url), stdout=said, stderr=said)
                await _until_ended(client)
            self._conclude(cell, log, client)
            return
        with log.open("wb") as said:
            server = await _start("serve", "up", *self._serve_options(cell["model"]), stderr=said)
            try:
                url = await _ready_url(server)
                if url is None:
                    self._fail(cell, log, "its server did not start")
                    return
                client = await _start("locust", *self._client_options(cell, url), stdout=said, stderr=said)
                await _until_ended(client)
            finally:
                await _stop(server)
        self._conclude(cell, log, client)

    def _conclude(self, cell: dict[str, Any], log: Path, client: asyncio.subprocess.Process) -> None:
        status = _status(self.folder / cell["dir"])
        if status is None:
            self._fail(cell, log, f"its run did not start (exit code {client.returncode})")
        else:
            self._note(cell, status)

    def _serve_options(self, model: str) -> list[str]:
        return [model, "--backend", self.plan.backend, "--hardware", self.plan.hardware, "--port", "0"]

    def _client_options(self, cell: dict[str, Any], url: str) -> list[str]:
        options = ["-f", str(Path(__file__).parent), "--headless", "-H", url]
        options += ["--run-dir", str(self.folder / cell["dir"]), "--no-analysis"]
        options += ["--scenario", cell["scenario"]] if cell["scenario"] else []
        for name, value in self.plan.run.items():
            if name == "scenario" and cell["scenario"]:
                continue
            if name not in _SWITCHES:
                options += [f"--{name}", value]
            elif value.lower() in ("true", "yes", "on"):
                options.append(f"--{name}")
        return options

    def _fail(self, cell: dict[str, Any], log: Path, why: str) -> None:
        self.failed = True
        self._note(cell, "failed")
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join([f"{cell['model']}: {why}; the end of {log}:", *tail]), file=sys.stderr)

    def _note(self, cell: dict[str, Any], status: str) -> None:
        cell["status"] = status
        self._write()
        passed_s = time.monotonic() - self._started_s
        self._played += status != "running"
        left = self._waiting - self._played
        ahead = ""
        if left and self._played and status != "running":  # from what a run has taken so far, nothing else
            ahead = f"; {left} of {self._waiting} left, about {passed_s / self._played * left:.0f} s"
        print(f"  {passed_s:5.0f} s  {cell['dir']}: {status}{ahead}", flush=True)

    def _write(self) -> None:
        content: dict[str, Any] = {"format": SWEEP_FORMAT, "name": self.plan.name, "cells": self._cells}
        content["plan"] = asdict(self.plan)
        temporary = self.folder / "sweep.json.new"
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self.folder / "sweep.json")


def _put_aside(folder: Path, name: str) -> None:
    """A half-done run is kept, but where no analysis counts it: it is played again from its beginning."""
    if (folder / name).exists():
        number = 1
        while (aside := folder / "half-done" / f"{name}-{number}").exists():
            number += 1
        aside.parent.mkdir(exist_ok=True)
        (folder / name).rename(aside)


async def _start(module: str, *options: str, **pipes: Any) -> asyncio.subprocess.Process:
    pipes.setdefault("stdout", asyncio.subprocess.PIPE)
    if sys.platform == "linux":
        pipes["preexec_fn"] = _end_with_parent
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *options, stdin=asyncio.subprocess.DEVNULL, **pipes
    )


def _end_with_parent() -> None:
    """Have the kernel end this child if the sweep is killed: it must not write into a resumed one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _ready_url(server: asyncio.subprocess.Process) -> str | None:
    """The URL of the line `ready: URL`, or None if the server ended first."""
    assert server.stdout is not None
    async for line in server.stdout:
        if line.startswith(b"ready: "):
            return line.removeprefix(b"ready: ").decode().strip()
    return None


async def _until_ended(client: asyncio.subprocess.Process) -> None:
    """Wait for a run; if the sweep is cancelled, let the run drain and report first."""
    try:
        await client.wait()
    except asyncio.CancelledError:
        client.send_signal(signal.SIGINT)
        await client.wait()
        raise


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _status(folder: Path) -> str | None:
    """The status that the run itself recorded."""
    try:
        status = json.loads((folder / "run.json").read_bytes()).get("status")
    except (OSError, ValueError):
        return None
    return str(status)


def _analyse(folder: Path) -> int:
    import subprocess

    return subprocess.run([sys.executable, "-m", "analysis", str(folder)], check=False).returncode
