"""Real engines on this machine's CPU, started by the launcher. These tests run with `-m vllm` only."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.processes import alive, below

HERE = Path(__file__).parent
START_LIMIT_S = 900
"""The first start installs 3.5 GB; later ones take about 40 s."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the server."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(START_LIMIT_S))


@contextmanager
def launched(told: Path, *arguments: str, core: str | None = None) -> Iterator[str]:
    """The URL of a server of this machine's CPU, once it is ready; it must stop cleanly and leave nothing."""
    command = [sys.executable, "-m", "serve", "up", *arguments, "--port", "0"]
    # Where a client is to have the other core: a server's threads would take every one that they may.
    command = ["taskset", "-c", core, *command] if core else command
    with (
        told.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as launcher,
    ):
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            assert line.startswith("ready: "), told.read_text(encoding="utf-8")
            family = below(launcher.pid)
            yield line.split()[1]
        finally:
            launcher.send_signal(signal.SIGTERM)
    assert launcher.returncode == 0, told.read_text(encoding="utf-8")
    _, left = psutil.wait_procs(family, timeout=20)
    assert not [each for each in left if alive(each)]


@pytest.fixture(scope="session")
def serve_up(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[str]]:
    """`serve_up("tiny", "--backend", "vllm-cpu")` is a context in which that server answers at its URL."""
    folder, numbers = tmp_path_factory.mktemp("servers"), count()

    def up(*arguments: str, core: str | None = None) -> AbstractContextManager[str]:
        return launched(folder / f"told-{next(numbers)}.txt", *arguments, core=core)

    return up


@pytest.fixture(scope="session")
def tiny_url(serve_up: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of one vLLM that serves `tiny` to all tests that ask for it."""
    with serve_up("tiny", "--backend", "vllm-cpu", core="0") as url:
        yield url


@pytest.fixture(scope="module")
def smol_url(serve_up: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of a vLLM that serves a small model with trained weights, whose answers end by themselves."""
    with serve_up("smollm2-135m", "--backend", "vllm-cpu", "--precision", "bf16", core="0") as url:
        yield url


@pytest.fixture(scope="session")
def exact_stream() -> Callable[..., list[dict[str, Any]]]:
    """`exact_stream(url, model, messages, tokens)`: the events of one reply of exactly so many tokens."""
    return _exact_stream


def _exact_stream(url: str, model: str, messages: list[dict[str, str]], tokens: int) -> list[dict[str, Any]]:
    body = {
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
    }
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=300)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
