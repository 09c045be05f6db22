"""A master, four workers and a server, each on a machine of its own: `make test-net`, or `-m net` as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.net.fleet import WORKERS, Fleet
from tests.net.namespaces import Machine, network

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts the server, the master with these options, and its workers; everything ends with the test."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.fail("network namespaces need root and the command `ip`: make test-net, as root")
    started: list[subprocess.Popen[str]] = []

    def begin(machine: Machine, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            machine.command(sys.executable, "-m", *command), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    names = ["server", "master", *(f"worker{number}" for number in range(WORKERS))]
    with network(*names) as machines:

        def start(*options: str) -> Fleet:
            at, truth, where = machines["server"].address, tmp_path / "truth.jsonl", tmp_path / "run"
            served = ["--ttft", "50ms", "--itl", "5ms", "--tokens", "20", "--truth", str(truth)]
            server = begin(machines["server"], "serve.emulator", "--schedule", "fixed", "--host", at, *served)
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("ready: ").strip()
            assert url.startswith(f"http://{at}:"), url
            master = begin(
                machines["master"], "locust", "-f", "loadgen/", "--headless", "--master",
                "--master-bind-host", machines["master"].address, "--expect-workers", str(WORKERS),
                "-H", url, "--scenario", "choose", "--run-dir", str(where), *options,
            )  # fmt: skip
            join = ["locust", "-f", "loadgen/", "--worker", "--master-host", machines["master"].address]
            workers = [begin(machines[f"worker{number}"], *join) for number in range(WORKERS)]
            return Fleet(machines, master, workers, server, where, truth)

        yield start
    for process in started:  # the network killed what was left
        process.communicate(timeout=10)


@pytest.fixture
def running_requests() -> Callable[[Fleet], float]:
    """How many requests the server answers now, asked from the machine it is on."""

    def ask(fleet: Fleet) -> float:
        machine = fleet.machines["server"]
        code = f"import urllib.request as u; print(u.urlopen('http://{machine.address}:8000/metrics').read().decode())"
        said = subprocess.run(
            machine.command(sys.executable, "-c", code), capture_output=True, text=True, check=True
        )
        (line,) = [x for x in said.stdout.splitlines() if x.startswith("vllm:num_requests_running")]
        return float(line.rpartition(" ")[2])

    return ask
