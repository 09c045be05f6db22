"""What a test holds of a run on several machines."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.net.namespaces import Machine
from turnbench.run_directory import RunDirectory, read_run

WORKERS = 4


@dataclass
class Fleet:
    """A run of several machines under way."""

    machines: dict[str, Machine]
    master: subprocess.Popen[str]
    workers: list[subprocess.Popen[str]]
    server: subprocess.Popen[str]
    where: Path
    truth_path: Path
    said: str = ""

    def end(self, limit_s: float = 60) -> int:
        """Wait for the master's end; its exit code."""
        self.said, _ = self.master.communicate(timeout=limit_s)
        return self.master.returncode

    def run(self) -> RunDirectory:
        return read_run(self.where)

    def truth(self) -> list[dict[str, Any]]:
        """What the server says of every request, after it has been stopped."""
        self.server.send_signal(signal.SIGTERM)
        self.server.communicate(timeout=10)
        return [json.loads(line) for line in self.truth_path.read_text().splitlines()]

    def turns(self, worker: int) -> int:
        path = self.where / f"turns-{worker}.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"waited {limit_s} s for {what}")
        time.sleep(0.05)
