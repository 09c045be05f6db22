"""The five architectures of the study without their weights, two layers of each, on a real vLLM."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from serve.catalogue import load_catalogue

pytestmark = pytest.mark.vllm

STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
TOKENS = 256


@contextmanager
def served(name: str, told: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "serve", "up", name, "--backend", "vllm-cpu", "--port", "0"]
    command += ["--weights", "dummy", "--layers", "2"]
    with (
        told.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as launcher,
    ):
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            assert line.startswith("ready: "), told.read_text(encoding="utf-8")
            yield line.split()[1]
        finally:
            launcher.send_signal(signal.SIGTERM)
    assert launcher.returncode == 0


def posted(url: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=300)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def exact_stream(url: str, name: str) -> list[dict[str, Any]]:
    status, text = posted(
        url,
        "/v1/chat/completions",
        {
            "model": name,
            "messages": [{"role": "user", "content": "Please explain how the harbour was built."}],
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "ignore_eos": True,
        },
    )
    assert status == 200, text
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("name", STUDY)
def test_an_architecture_without_its_weights_streams_exact_tokens(name: str, tmp_path: Path) -> None:
    facts = load_catalogue().models[name]
    with served(name, tmp_path / "told.txt") as url:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
            (model,) = json.loads(answer.read())["data"]
        assert (model["id"], model["max_model_len"]) == (name, facts.max_positions)
        events = exact_stream(url, name)
        assert events[-1]["usage"]["completion_tokens"] == TOKENS
        deltas = [choice["delta"].get("content") for event in events for choice in event["choices"]]
        # Every number stands for text; a few are halves of a character, which wait for their other half.
        assert sum(map(bool, deltas)) > 0.9 * TOKENS
        with_system = {"model": name, "max_tokens": 1, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
        ]}  # fmt: skip
        status, _ = posted(url, "/v1/chat/completions", with_system)
        assert status == (200 if facts.system_role else 400)
