"""What is known of a server reaches the record: by itself for a local one, from a file for a remote one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHORT = ("-u", "2", "-r", "20", "-t", "1s", "--warmup", "0", "--no-analysis")


@pytest.fixture
def launched(tools: Any) -> Iterator[str]:
    """The URL of an emulator that the launcher started."""
    up = [sys.executable, "-m", "serve", "up", "yi-6b", "--backend", "emulator", "--port", "0"]
    with subprocess.Popen(
        up, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tools.root
    ) as launcher:
        try:
            assert launcher.stdout is not None
            yield launcher.stdout.readline().removeprefix("ready: ").strip()
        finally:
            launcher.send_signal(signal.SIGTERM)
            launcher.communicate(timeout=20)


@pytest.mark.slow
def test_a_launched_servers_own_description_is_in_the_record(
    launched: str, locust: Callable[..., Any]
) -> None:
    load = locust("--headless", "-H", launched, "--scenario", "choose", *SHORT)
    assert load.end() == 0, load.said
    server = load.run().manifest.server
    assert (server["backend"], server["model"], server["emulated"]) == ("emulator", "yi-6b", True)
    assert (server["precision"], server["weights"], server["hardware"]) == ("fp16", "none", "a100-40gb")
    assert server["arguments"][:2] == ["--model", "yi-6b"]
    assert (server["gpu"], server["driver"]) == (None, None)
    assert server["max_model_len"] == 4096
    assert "pid" not in server
    assert load.run().manifest.emulated is True


@pytest.mark.slow
def test_a_file_of_facts_is_recorded_and_wins_over_what_was_found_out(
    launched: str, locust: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text("gpu: NVIDIA A100-SXM4-40GB\ndriver: '570.1'\nhardware: behind a proxy\n")
    load = locust("--headless", "-H", launched, "--scenario", "choose", "--server-facts", str(file), *SHORT)
    assert load.end() == 0, load.said
    server = load.run().manifest.server
    assert (server["gpu"], server["driver"]) == ("NVIDIA A100-SXM4-40GB", "570.1")
    assert (server["hardware"], server["backend"]) == ("behind a proxy", "emulator")


@pytest.mark.slow
def test_a_server_without_a_launcher_is_described_by_its_answers_alone(
    server: Callable[..., Any], headless: Callable[..., Any]
) -> None:
    load = headless(server(), *SHORT)
    assert load.end() == 0, load.said
    assert set(load.run().manifest.server) == {"owned_by", "version", "max_model_len"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [("gpu: [", "not valid YAML"), ("weights: some", "weights: must be one of real, dummy, none")],
)
def test_a_bad_file_of_facts_is_refused_in_a_line_before_any_request(
    server: Callable[..., Any], headless: Callable[..., Any], tmp_path: Path, text: str, words: str
) -> None:
    file, at = tmp_path / "facts.yaml", server()
    file.write_text(text)
    load = headless(at, "--server-facts", str(file), *SHORT)
    assert load.end() == 2
    told = [line for line in load.said.splitlines() if "server-facts" in line]
    assert len(told) == 1
    assert words in told[0]
    assert "Traceback" not in load.said
    assert not load.where.exists()
    assert at.truth() == {}
