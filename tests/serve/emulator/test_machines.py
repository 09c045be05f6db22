"""The roofline schedule on the wire: a conversation, a crowd, and times that follow the model."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.catalogue import load_catalogue
from serve.emulator.machines import FrontEnd, RooflineMachine, StepWork

EXACT = {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


def test_more_of_the_prompt_is_cached_with_every_turn(roofline):
    messages = [{"role": "user", "content": "Let us talk about rivers. " * 20}]
    cached, prompts = [], []
    for _ in range(4):
        got = roofline.ask(body={"messages": messages, "max_tokens": 60, "ignore_eos": True}).json()
        usage = got["usage"]
        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        prompts.append(usage["prompt_tokens"])
        messages.append({"role": "assistant", "content": got["choices"][0]["message"]["content"]})
        messages.append({"role": "user", "content": "And what about lakes? " * 10})
    assert cached[0] == 0
    assert cached == sorted(set(cached))
    for before, now in zip(prompts, cached[1:], strict=False):
        assert now >= before - 16
    assert roofline.metric("prefix_cache_hits_total") >= sum(cached)
    assert roofline.metric("prefix_cache_queries_total") >= sum(prompts)


def test_the_same_prompt_gets_the_same_answer(roofline, make_chat):
    answers = {
        roofline.ask(body=make_chat("Explain the tides.", max_tokens=20)).json()["choices"][0]["message"][
            "content"
        ]
        for _ in range(3)
    }
    assert len(answers) == 1


def test_choose_is_answered_with_a_letter(roofline, make_chat):
    got = roofline.ask(body=make_chat("Answer with the letter only: a, b, c or d.", max_tokens=16)).json()
    assert got["choices"][0]["message"]["content"][0] in "abcd"
    assert got["choices"][0]["finish_reason"] == "stop"


@pytest.mark.timing
def test_a_lone_stream_keeps_the_models_time(start_emulator, make_chat):
    emulator = start_emulator("--model", "llama-2-7b", "--hardware", "a100-80gb")
    emulator.ask(body=make_chat("x" * 400, max_tokens=60, **EXACT) | {"model": "llama-2-7b"})
    emulator.stop()
    (row,) = emulator.truth()
    catalogue = load_catalogue()
    machine = RooflineMachine(catalogue.models["llama-2-7b"], catalogue.gpus["a100-80gb"])
    gaps = [later - earlier for earlier, later in zip(row["event_ns"], row["event_ns"][1:], strict=False)]
    step_ns = machine.step_ns(StepWork(tokens=1, context=130, pairs=130, decoding=1))
    assert statistics.median(gaps) == pytest.approx(step_ns, rel=0.03)
    first_ns = row["event_ns"][0] - row["received_ns"]
    assert first_ns > FrontEnd().request_ns + machine.step_ns(StepWork(100, 0, 5000)) - 1_000_000


def test_a_crowd_is_served_together_and_those_beyond_the_limit_wait(start_emulator, make_chat):
    emulator = start_emulator("--hardware", "h200-141gb", "--max-num-seqs", "4")
    with ThreadPoolExecutor(8) as crowd:
        asked = [
            crowd.submit(emulator.ask, body=make_chat(f"{n} hello", max_tokens=300, **EXACT))
            for n in range(8)
        ]
        emulator.wait_for_metric("num_requests_running", 4)
        emulator.wait_for_metric("num_requests_waiting", 4)
        assert emulator.metric("kv_cache_usage_perc") > 0
        answers = [future.result(30) for future in asked]
    assert all(answer.chunks()[-1]["usage"]["completion_tokens"] == 300 for answer in answers)
    emulator.stop()
    firsts = sorted(row["event_ns"][0] for row in emulator.truth())
    lasts = sorted(row["event_ns"][-1] for row in emulator.truth())
    assert firsts[3] < lasts[0] < firsts[4]
