"""Real runs: a real emulator, a real Locust, real sockets, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import below, kill
from turnbench.run_directory import RunDirectory, read_run

ROOT = Path(__file__).parents[2]
END_S = 120


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 60.0) -> Any:
    """Poll until it holds; fails the test with `what` if it does not in time."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {limit_s} s for {what}")


@dataclass
class Server:
    """An emulator with a fixed schedule."""

    process: subprocess.Popen[str]
    url: str
    truth_path: Path

    def truth(self) -> dict[str, dict[str, Any]]:
        """Its truth log by request id, after it has been stopped."""
        self.stop()
        lines = self.truth_path.read_text().splitlines() if self.truth_path.exists() else []
        return {entry["request_id"]: entry for entry in map(json.loads, lines)}

    def running(self) -> float:
        """How many requests it is answering now."""
        import urllib.request

        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as page:
            text = page.read().decode()
        found = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
        return float(found[0].rpartition(" ")[2])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate(timeout=10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*options: str) -> Server:
        truth = tmp_path / f"truth-{len(started)}.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "serve.emulator", "--schedule", "fixed", "--port", "0"]
            + ["--truth", str(truth), *(options or ("--ttft", "50ms", "--itl", "5ms", "--tokens", "20"))],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("ready: ").strip()
        started.append(Server(process, url, truth))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@dataclass
class Load:
    """A running `locust -f loadgen/`, and the run directory it was told to make."""

    process: subprocess.Popen[str]
    where: Path
    said: str = field(default="")

    def end(self, limit_s: float = END_S) -> int:
        """Wait for its end; its exit code."""
        self.said, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode

    def run(self) -> RunDirectory:
        return read_run(self.where)

    def engines(self) -> list[psutil.Process]:
        """Engine processes among its descendants."""
        return below(self.process.pid, "loadgen.engine")

    def wait_for_turns(self, count: int = 1) -> None:
        def enough() -> bool:
            files = self.where.glob("turns-*.jsonl")
            return sum(file.read_bytes().count(b"\n") for file in files) >= count

        wait_until(enough, f"{count} turns in {self.where}")


@pytest.fixture
def locust(tmp_path: Path) -> Iterator[Callable[..., Load]]:
    """Starts Locust with our locustfile; kills whatever is left of it and its children."""
    started: list[Load] = []

    def start(*options: str, where: Path | None = None, **popen: Any) -> Load:
        folder = where or tmp_path / f"run-{len(started)}"
        worker = "--worker" in options
        run_dir = [] if worker else ["--run-dir", str(folder)]
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), *options, *run_dir],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120"},
            start_new_session=True,
            **popen,
        )
        started.append(Load(process, folder))
        return started[-1]

    yield start
    for load in started:
        if load.process.poll() is None:
            kill(below(load.process.pid))
            load.process.kill()
        if load.process.stdout is not None and not load.process.stdout.closed:
            load.process.communicate()


@pytest.fixture
def headless(locust: Callable[..., Load], server: Callable[..., Server]) -> Callable[..., Load]:
    """A short headless run of `choose` against the server given."""

    def start(at: Server, *options: str, **more: Any) -> Load:
        return locust("--headless", "-H", at.url, "--scenario", "choose", *options, **more)

    return start


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def request_ids(run: RunDirectory) -> set[str]:
    """Ids of the requests that reached the wire."""
    return {f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}" for t in run.turns() if t.sent_ns is not None}


def ledger_of(run: RunDirectory) -> dict[str, int]:
    """The last cumulative counts of every worker, added up."""
    last = {sample["worker"]: sample for sample in run.health()}
    return {key: sum(s[key] for s in last.values()) for key in ("planned", "dropped", "begun", "finished")}


@pytest.fixture
def tools() -> Any:
    """The helpers above, for tests: importlib mode gives test files no way to import a conftest."""

    class Tools:
        root = ROOT
        now_ns = staticmethod(time.time_ns)
        wait_until = staticmethod(wait_until)
        free_port = staticmethod(free_port)
        request_ids = staticmethod(request_ids)
        ledger_of = staticmethod(ledger_of)

    return Tools
