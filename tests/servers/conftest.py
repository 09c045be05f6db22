"""Real servers and gateways on this machine, each asked the same plan. These tests run with `-m servers`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.verdicts import exit_code_of
from tests.vllm.conftest import launched
from turnbench.formats import TurnRecord
from turnbench.run_directory import RunDirectory, read_run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
START_LIMIT_S = 900
"""Long, for a machine that is busy with other work: a start takes 40 s where nothing else runs."""
PLAN_TURNS = 24
PLAN_TOKENS = 24


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the server."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(START_LIMIT_S))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def program(command: list[str], ports: list[int], said: Path, **popen: Any) -> Iterator[None]:
    """A server as a process, once it listens on these ports; it is ended after."""
    with (
        said.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, **popen) as process,
    ):
        try:
            until = time.monotonic() + START_LIMIT_S / 2
            while not all(map(is_open, ports)):
                assert process.poll() is None, said.read_text(encoding="utf-8", errors="replace")[-3000:]
                assert time.monotonic() < until, f"{command[0]} does not listen on {ports}"
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def metrics_page(url: str) -> str:
    """What a server says of itself."""
    with urllib.request.urlopen(url + "/metrics", timeout=20) as page:
        text: str = page.read().decode()
    return text


def metric(url: str, name: str, label: str = "") -> float:
    """A counter of vLLM's own page, summed over its labels, or over those that have this one."""
    found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", metrics_page(url), re.M)
    return sum(float(value) for labels, value in found if label in labels)


@dataclass
class Played:
    """One run of the plan, and by how much the vLLM behind it counted on meanwhile."""

    run: RunDirectory
    summary: dict[str, Any]
    exit_code: int
    said: str
    grown: dict[str, float]
    tokens: int = PLAN_TOKENS
    """Of each answer."""

    @property
    def turns(self) -> list[TurnRecord]:
        """The last attempt of each turn."""
        last = {(t.conversation, t.turn): t for t in sorted(self.run.turns(), key=lambda t: t.attempt)}
        return list(last.values())

    @property
    def output_tokens(self) -> int:
        return sum(turn.output_tokens or 0 for turn in self.turns)

    @property
    def findings(self) -> dict[str, str]:
        """check -> what, of every finding and of the run's own notes."""
        return {found["check"]: found["what"] for found in self.summary["verdict"]["findings"]}

    @property
    def server(self) -> dict[str, Any]:
        """What the server measured of itself."""
        found: dict[str, Any] = self.summary["levels"][0]["server"]
        return found

    def is_whole(self) -> None:
        """Every turn was answered, with the tokens that were asked for."""
        assert {turn.outcome for turn in self.turns} == {"ok"}, self.said
        assert len(self.turns) == PLAN_TURNS
        assert {turn.output_tokens for turn in self.turns} == {self.tokens}

    def counts_as_the_server(self) -> None:
        """Tokens in and out are those that vLLM counted itself."""
        assert self.output_tokens == self.grown["vllm:generation_tokens_total"]
        assert sum(turn.prompt_tokens or 0 for turn in self.turns) == self.grown["vllm:prompt_tokens_total"]

    def waits_as_the_server(self) -> None:
        """The client's waits are the server's own and what lies between the two."""
        ttft, itl = self.server["ttft"], self.server["itl"]
        print({"ttft": ttft, "itl": itl})
        assert abs(ttft["n"] - ttft["client_n"]) <= 2
        assert -1 < ttft["difference_ms"] < 50 + ttft["mean_ms"]
        assert self.server["queue"]["mean_ms"] < ttft["mean_ms"]
        assert self.server["e2e"]["client_mean_ms"] > ttft["client_mean_ms"]
        assert abs(itl["difference_ms"]) < 0.2 * itl["mean_ms"] + 2


Play = Callable[..., Played]


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """`play(url, "--model", "a", behind=vllm_url)`: the plan against a server, to its end."""
    home, numbers = tmp_path_factory.mktemp("plans"), count()
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")

    def one(
        url: str,
        *options: str,
        behind: str | None = None,
        env: dict[str, str] | None = None,
        people: int = 2,
        exact: bool = True,
        tokens: int = PLAN_TOKENS,
    ) -> Played:
        where = home / f"run-{next(numbers)}"
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "-H", url]
        command += [
            "--scenario",
            str(HERE / "plan.yaml"),
            "--once",
            "-u",
            str(people),
            "--run-dir",
            str(where),
        ]
        command += [
            "--idle-timeout",
            "120s",
            "--max-tokens",
            str(tokens),
            *(["--exact-tokens"] if exact else []),
            *options,
        ]
        before = {name: metric(behind, name) for name in names} if behind else {}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=400, check=False, env=os.environ | (env or {})
        )
        said = done.stdout + done.stderr
        print(said)
        grown = {name: metric(behind, name) - before[name] for name in names} if behind else {}
        assert done.returncode == exit_code_of(where / "summary.json"), said
        summary = json.loads((where / "summary.json").read_bytes())
        return Played(read_run(where), summary, done.returncode, said, grown, tokens)

    return one


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`vllm("--stream-interval 4")` is a context in which vLLM with these options answers at its URL."""
    folder, numbers = tmp_path_factory.mktemp("vllm"), count()

    @contextmanager
    def up(arguments: str = "", model: str = "tiny") -> Iterator[str]:
        words = ["--args", arguments] if arguments else []
        said = folder / f"said-{next(numbers)}.txt"
        with launched(said, model, "--backend", "vllm-cpu", *words, core="0") as url:
            warm_up(url)
            yield url

    return up


def warm_up(url: str) -> None:
    """Have each model answer once: what is compiled for a first request can take a minute."""
    with urllib.request.urlopen(url + "/v1/models", timeout=20) as page:
        models = [model["id"] for model in json.load(page)["data"]]
    for model in models:
        asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        request = urllib.request.Request(
            url + "/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=START_LIMIT_S / 2) as answer:
            answer.read()
