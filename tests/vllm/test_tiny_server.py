"""A real vLLM on this machine: what the rest of the project counts on is really so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.processes import alive, below

pytestmark = pytest.mark.vllm

TOKENS = 256
QUESTION = (
    "Please explain how the harbour was built, and why the merchants of the city came to use it so often."
)


def get(url: str, path: str) -> str:
    with urllib.request.urlopen(url + path, timeout=30) as answer:
        return str(answer.read().decode())


Ask = Callable[[list[dict[str, str]]], list[dict[str, Any]]]


@pytest.fixture
def ask(tiny_url: str, exact_stream: Callable[..., list[dict[str, Any]]]) -> Ask:
    """The events of one streamed reply of exactly TOKENS tokens to these messages."""
    return lambda messages: exact_stream(tiny_url, "tiny", messages, TOKENS)


def text_of(events: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def chat(tag: str, *rest: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    said = [f"{tag} {QUESTION}", *rest]
    return [{"role": roles[number % 2], "content": each} for number, each in enumerate(said)]


def counter(url: str, name: str) -> float:
    lines = get(url, "/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def test_the_one_model_is_tiny_with_its_context(tiny_url: str) -> None:
    (model,) = json.loads(get(tiny_url, "/v1/models"))["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 4096)


def test_exactly_the_tokens_asked_for_are_streamed_and_counted(ask: Ask) -> None:
    events = ask(chat("exact"))
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == TOKENS
    counts = [event["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == TOKENS
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert len(text_of(events)) > TOKENS


def test_a_follow_up_finds_the_conversation_in_the_cache(ask: Ask) -> None:
    first = ask(chat("cache"))
    assert first[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    follow_up = ask(chat("cache", text_of(first), "And then?"))
    prompt_tokens = first[-1]["usage"]["prompt_tokens"]
    assert follow_up[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] >= prompt_tokens // 32 * 32 > 0


def test_a_system_message_is_accepted(ask: Ask) -> None:
    events = ask([{"role": "system", "content": "Be brief."}, *chat("system")])
    assert events[-1]["usage"]["completion_tokens"] == TOKENS


def test_any_text_at_all_can_be_said(ask: Ask) -> None:
    events = ask([{"role": "user", "content": "naïve café 漢字 🙂 </s> \x00 \r\n"}])
    assert events[-1]["usage"]["completion_tokens"] == TOKENS


def test_an_unknown_role_is_refused(tiny_url: str) -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "oracle", "content": "x"}]}).encode()
    request = urllib.request.Request(
        f"{tiny_url}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 400
    caught.value.close()


def test_two_conversations_at_once_both_get_their_replies(tiny_url: str, ask: Ask) -> None:
    before = counter(tiny_url, "vllm:generation_tokens_total")
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda tag: ask(chat(tag)), ["one", "two"]))
    assert [events[-1]["usage"]["completion_tokens"] for events in replies] == [TOKENS, TOKENS]
    assert counter(tiny_url, "vllm:generation_tokens_total") - before == 2 * TOKENS


@pytest.mark.parametrize(
    "name",
    [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:iteration_tokens_total_bucket",
    ],
)
def test_the_metrics_that_we_read_are_there(tiny_url: str, name: str) -> None:
    assert f"\n{name}{{" in get(tiny_url, "/metrics")


def test_a_launcher_killed_while_vllm_starts_leaves_nothing() -> None:
    command = [sys.executable, "-m", "serve", "up", "tiny", "--backend", "vllm-cpu", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        try:
            # The guard, the API server, its resource tracker and the engine.
            family = wait_for(lambda: below(launcher.pid), at_least=4)
        finally:
            launcher.kill()
    assert wait_for(lambda: [None for each in family if not alive(each)], at_least=len(family))


def wait_for(look: Callable[[], list[Any]], at_least: int, within_s: float = 300) -> list[Any]:
    """What was found as soon as there is enough of it; fails when the time is over."""
    ends_at = time.monotonic() + within_s
    while len(found := look()) < at_least:
        assert time.monotonic() < ends_at, f"only {found} after {within_s} s"
        time.sleep(0.05)
    return found
