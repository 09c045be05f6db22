"""Real runs: a real emulator, a real Locust, real sockets, real signals."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import below, kill
from tests.verdicts import exit_code_of
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
    """An emulator as one test sees it; others may have used it before."""

    process: subprocess.Popen[str]
    url: str
    truth_path: Path
    seen_bytes: int = 0
    """The length of its truth log when the test got it: what others asked."""

    def truth(self) -> dict[str, dict[str, Any]]:
        """Its truth log since the test got it, by request id, once it answers nobody any more."""
        self.wait_until_idle()
        written = self.truth_path.read_bytes()[self.seen_bytes :] if self.truth_path.exists() else b""
        return {entry["request_id"]: entry for entry in map(json.loads, written.splitlines())}

    def running(self) -> float:
        """How many requests it is answering now."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as page:
            text = page.read().decode()
        found = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
        return float(found[0].rpartition(" ")[2])

    def wait_until_idle(self) -> None:
        wait_until(lambda: self.running() == 0, "the server to be idle", 20)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate(timeout=10)


def start_server(truth: Path, options: tuple[str, ...]) -> Server:
    """Start an emulator, with a fixed schedule if the options don't say otherwise."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serve.emulator", "--schedule", "fixed", "--port", "0"]
        + ["--truth", str(truth), *(options or ("--ttft", "50ms", "--itl", "5ms", "--tokens", "20"))],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    url = process.stdout.readline().removeprefix("ready: ").strip()
    return Server(process, url, truth)


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[dict[tuple[str, ...], Server]]:
    """The emulators that tests share, by their options; all end with the session."""
    running: dict[tuple[str, ...], Server] = {}
    yield running
    for one in running.values():
        one.stop()


@pytest.fixture(scope="session")
def server(
    shared_servers: dict[tuple[str, ...], Server], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Server]:
    """An emulator with these options, shared with other tests: only ask it, neither stop nor signal it."""

    def start(*options: str) -> Server:
        one = shared_servers.get(options)
        if one is None or one.process.poll() is not None:
            one = start_server(tmp_path_factory.mktemp("server") / "truth.jsonl", options)
            shared_servers[options] = one
        one.wait_until_idle()
        size = one.truth_path.stat().st_size if one.truth_path.exists() else 0
        return replace(one, seen_bytes=size)

    return start


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """An emulator of the test's own: to be killed, or with faults that count its requests."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(start_server(tmp_path / f"truth-{len(started)}.jsonl", options))
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

    def end_as_judged(self, limit_s: float = END_S) -> None:
        """Wait for its end; its exit code must be the one that its own summary stands for.

        For tests of anything but the verdict: on a busy machine it may well say that the client was late.
        """
        assert self.end(limit_s) == exit_code_of(self.where / "summary.json"), self.said

    def run(self) -> RunDirectory:
        return read_run(self.where)

    def findings(self) -> list[str]:
        """What the run found, without a note on the clock: engines of other tests may hold the wire clock's
        ports."""
        return [each.check for each in self.run().manifest.findings if each.check != "clock"]

    def engines(self) -> list[psutil.Process]:
        """Engine processes among its descendants."""
        return below(self.process.pid, "loadgen.engine")

    def wait_for_turns(self, count: int = 1) -> None:
        def enough() -> bool:
            files = self.where.glob("turns-*.jsonl")
            return sum(file.read_bytes().count(b"\n") for file in files) >= count

        wait_until(enough, f"{count} turns in {self.where}")


@contextmanager
def launcher(home: Path) -> Iterator[Callable[..., Load]]:
    """Starts Locust with our locustfile in this folder; kills whatever is left of it and its children."""
    started: list[Load] = []

    def start(
        *options: str,
        where: Path | None = None,
        env: dict[str, str] | None = None,
        own_port: bool = True,
        rlimit_files: tuple[int, int] | None = None,
        **popen: Any,
    ) -> Load:
        folder = where or home / f"run-{uuid.uuid4().hex[:8]}"  # request ids begin with it
        worker = "--worker" in options
        run_dir = [] if worker else ["--run-dir", str(folder)]
        if rlimit_files is not None:
            popen["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, rlimit_files)
        if "--processes" in options and own_port:  # Locust's default port would be every test's
            port = str(free_port())
            options += ("--master-bind-port", port, "--master-port", port)
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), *options, *run_dir],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
            env=os.environ | {"COLUMNS": "120"} | (env or {}),
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
def locust(tmp_path: Path) -> Iterator[Callable[..., Load]]:
    """Starts Locust with our locustfile."""
    with launcher(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def locust_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Load]]:
    """The same for runs that several tests look at; tests/conftest.py names their files."""
    with launcher(tmp_path_factory.mktemp("runs")) as start:
        yield start


@pytest.fixture
def headless(locust: Callable[..., Load], server: Callable[..., Server]) -> Callable[..., Load]:
    """A short headless run of `choose` against the server given."""

    def start(at: Server, *options: str, **more: Any) -> Load:
        return locust("--headless", "-H", at.url, "--scenario", "choose", *options, **more)

    return start


def free_port() -> int:
    """A free port below those that the kernel hands out, so that no other test gets it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def request_ids(run: RunDirectory) -> set[str]:
    """Ids of the requests that reached the wire."""
    return {f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}" for t in run.turns() if t.sent_ns is not None}


def ledger_of(run: RunDirectory) -> dict[str, int]:
    """The last cumulative counts of every worker, added up."""
    last = {sample.worker: sample for sample in run.health()}
    return {
        key: sum(getattr(s, key) for s in last.values())
        for key in ("planned", "dropped", "begun", "finished")
    }


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
