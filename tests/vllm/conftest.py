"""One real vLLM with the tiny model for all tests of this folder. They run with `-m vllm` only."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
START_LIMIT_S = 900
"""The first start installs 3.5 GB; later ones take about 40 s."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keep these tests out of every run that does not ask for them."""
    asked = "vllm" in config.getoption("markexpr")
    return None if asked or not collection_path.is_relative_to(HERE) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the server."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(START_LIMIT_S))


@pytest.fixture(scope="session")
def tiny_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM that serves `tiny` on this machine's CPU; it must also stop cleanly in the end."""
    told = tmp_path_factory.mktemp("vllm") / "launcher.txt"
    # The client of the whole-run test has the other core: vLLM's threads would take every one they may.
    command = ["taskset", "-c", "0", sys.executable, "-m", "serve", "up", "tiny"]
    command += ["--backend", "vllm-cpu", "--port", "0"]
    with (
        told.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as launcher,
    ):
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            assert line.startswith("ready: "), told.read_text(encoding="utf-8")
            below = psutil.Process(launcher.pid).children(recursive=True)
            yield line.split()[1]
        finally:
            launcher.send_signal(signal.SIGTERM)
    assert launcher.returncode == 0, told.read_text(encoding="utf-8")
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
