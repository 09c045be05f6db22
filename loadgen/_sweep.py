"""Plays a sweep: serves each model, loads it with Locust, and has all runs analysed as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadgen._options import OPTIONS
from loadgen._runwriter import new_run_dir, point_latest, slug
from loadgen._sweep_plan import SweepPlan

SWEEP_FORMAT = "turnbench-sweep/1"
_SWITCHES = {option.name for option in OPTIONS if option.metavar is None}
_STOP_S = 20.0
_TAIL_LINES = 15


def run_sweep(plan: SweepPlan) -> int:
    """Play it, analyse it; the exit code is the analysis's, 3 if a run has none, 130 after Ctrl-C."""
    folder = new_run_dir(None, plan.name, datetime.now(UTC))
    sweep = Sweep(plan, folder)
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
        self._plan = plan
        self._folder = folder
        self._started_s = time.monotonic()
        self._cells = [{"dir": slug(model), "model": model, "status": "waiting"} for model in plan.models]
        self.failed = False
        self._write()
        point_latest(folder)

    async def play(self) -> None:
        places = asyncio.Semaphore(self._plan.parallel)

        async def one(cell: dict[str, str]) -> None:
            async with places:
                await self._cell(cell)

        await asyncio.gather(*(one(cell) for cell in self._cells))

    async def _cell(self, cell: dict[str, str]) -> None:
        """Serve one model, run the load, stop the server; a failure is shown and the others go on."""
        self._note(cell, "running")
        log = self._folder / f"{cell['dir']}.log"
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
        status = _status(self._folder / cell["dir"])
        if status is None:
            self._fail(cell, log, f"its run did not start (exit code {client.returncode})")
        else:
            self._note(cell, status)

    def _serve_options(self, model: str) -> list[str]:
        return [model, "--backend", self._plan.backend, "--hardware", self._plan.hardware, "--port", "0"]

    def _client_options(self, cell: dict[str, str], url: str) -> list[str]:
        options = ["-f", str(Path(__file__).parent), "--headless", "-H", url]
        options += ["--run-dir", str(self._folder / cell["dir"]), "--no-analysis"]
        for name, value in self._plan.run.items():
            if name not in _SWITCHES:
                options += [f"--{name}", value]
            elif value.lower() in ("true", "yes", "on"):
                options.append(f"--{name}")
        return options

    def _fail(self, cell: dict[str, str], log: Path, why: str) -> None:
        self.failed = True
        self._note(cell, "failed")
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join([f"{cell['model']}: {why}; the end of {log}:", *tail]), file=sys.stderr)

    def _note(self, cell: dict[str, str], status: str) -> None:
        cell["status"] = status
        self._write()
        print(f"  {time.monotonic() - self._started_s:5.0f} s  {cell['model']}: {status}", flush=True)

    def _write(self) -> None:
        content = {"format": SWEEP_FORMAT, "name": self._plan.name, "cells": self._cells}
        temporary = self._folder / "sweep.json.new"
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._folder / "sweep.json")


async def _start(module: str, *options: str, **pipes: Any) -> asyncio.subprocess.Process:
    pipes.setdefault("stdout", asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *options, stdin=asyncio.subprocess.DEVNULL, **pipes
    )


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
