"""How much the emulated models say, and that the study's inversion follows from it."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.catalogue import load_catalogue
from serve.emulator.answers import AnswerDraws, TextRing, make_answer, wanted_tokens
from serve.emulator.machines import FrontEnd, RooflineMachine
from serve.emulator.request import GenerationRequest
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence

CATALOGUE = load_catalogue()
STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
QUESTION = "\n\nWhich of these metals is a liquid at room temperature?\na) iron\nb) mercury\nc) tin\nd) zinc"
ORDERS = {
    "choose": ("Answer this question with the letter only: a, b, c or d." + QUESTION, 16),
    "paraphrase": ("Rewrite this question in other words." + QUESTION, 128),
    "explain": ("Explain in a few sentences why b) is the right answer to this question." + QUESTION, 256),
}


@pytest.mark.parametrize(
    ("words", "task"),
    [
        (ORDERS["choose"][0], "choose"),
        ("Reply with one letter.", "choose"),
        (ORDERS["paraphrase"][0], "paraphrase"),
        ("Please REPHRASE the text below.", "paraphrase"),
        (ORDERS["explain"][0], "explain"),
        ("Summarise the following text in three sentences.", "summarise"),
        ("Summarize this.", "summarise"),
        ("Read the text below and list these facts: name, year.", "extract"),
        ("What shall I cook tonight?", "chat"),
        ("Summarise this text. " + "x" * 400 + " Answer with the letter only.", "summarise"),
        ("", "chat"),
    ],
)
def test_the_task_is_recognised_from_its_instruction(words, task):
    assert AnswerDraws("yi-6b", 0).task(words) == task


def test_the_same_prompt_gets_the_same_answer_and_another_seed_another():
    said = [AnswerDraws("yi-6b", 1).draw("tell me more", "tell me more") for _ in range(2)]
    assert said[0] == said[1]
    assert AnswerDraws("yi-6b", 2).draw("tell me more", "tell me more") != said[0]
    assert AnswerDraws("gemma-7b", 1).draw("tell me more", "tell me more") != said[0]


def test_answer_lengths_are_log_normal_about_the_tables_median():
    lengths = sorted(AnswerDraws("llama-2-7b", 0).draw(f"q {i}", "Explain it").tokens for i in range(333))
    assert lengths[166] == pytest.approx(230, rel=0.05)
    assert lengths[279] / lengths[166] == pytest.approx(2.718**0.2, rel=0.1)


def play(model: str, task: str, people: int, questions: int = 120) -> tuple[float, float]:
    """(tokens per second, mean seconds to the last content token) of a closed loop in virtual time."""
    words, max_tokens = ORDERS[task]
    talk, machine = (
        AnswerDraws(model, 0),
        RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus["a100-40gb"]),
    )
    scheduler = BatchScheduler(machine, 256)
    left, now_ns, tokens, times_ns = questions, 0, 0, []
    asked: dict[ScheduledSequence, tuple[int, int]] = {}
    arriving: list[tuple[int, ScheduledSequence]] = []

    def ask() -> None:
        nonlocal left
        if left:
            left -= 1
            said = talk.draw(f"{left} {words}", words).tokens
            content = min(said, max_tokens)
            sequence = ScheduledSequence(
                prompt_tokens=len(words) // 4, output_tokens=content + (said < max_tokens)
            )
            asked[sequence] = (now_ns, content)
            arriving.append((now_ns + FrontEnd().request_ns, sequence))

    for _ in range(people):
        ask()
    while arriving or scheduler.running or scheduler.waiting:
        for entry in [entry for entry in arriving if entry[0] <= now_ns]:
            arriving.remove(entry)
            scheduler.add(entry[1])
        took_ns = scheduler.begin_step()
        now_ns = now_ns + took_ns if took_ns is not None else min(at for at, _ in arriving)
        for sequence in scheduler.end_step():
            sent_ns, content = asked[sequence]
            if sequence.made == content:
                times_ns.append(now_ns - sent_ns)
            if sequence.made == sequence.output_tokens:
                tokens += sequence.made
                ask()
    return tokens / (sum(times_ns) / 1e9), sum(times_ns) / len(times_ns) / 1e9


def orders(task: str, people: int) -> tuple[list[str], list[str]]:
    """Models by tokens per second (best first) and by time (shortest first)."""
    played = {model: play(model, task, people) for model in STUDY}
    by_rate = sorted(STUDY, key=lambda model: -played[model][0])
    return by_rate, sorted(STUDY, key=lambda model: played[model][1])


@pytest.mark.parametrize("people", [1, 8, 32])
def test_in_choose_the_models_slowest_by_tokens_are_the_first_to_finish(people):
    by_rate, by_time = orders("choose", people)
    assert set(by_time[:2]) == {"llama-3-8b", "yi-6b"}
    assert by_time[-1] == "gemma-7b"
    for terse in ("llama-3-8b", "yi-6b"):
        assert by_rate.index(terse) > max(by_rate.index("llama-2-7b"), by_rate.index("mistral-7b"))


@pytest.mark.parametrize("people", [1, 8])
def test_in_explain_gemma_is_slow_by_tokens_and_finishes_first_and_llama_2_the_reverse(people):
    by_rate, by_time = orders("explain", people)
    assert (by_rate[-1], by_time[0]) == ("gemma-7b", "gemma-7b")
    assert by_rate.index("llama-2-7b") <= 2
    assert by_time[-1] == "llama-2-7b"


def test_in_paraphrase_the_two_orders_nearly_agree():
    by_rate, by_time = orders("paraphrase", 8)
    assert sum(abs(by_rate.index(model) - by_time.index(model)) for model in STUDY) <= 2


def test_the_inversion_shows_on_the_wire(start_emulator):
    rates, times = {}, {}
    for model in ("yi-6b", "llama-2-7b"):
        emulator = start_emulator("--model", model)
        rates[model], times[model] = [], []
        connection = HTTPConnection("127.0.0.1", emulator.port, timeout=20)
        for number in range(12):
            words, max_tokens = ORDERS["choose"]
            body = {
                "messages": [{"role": "user", "content": f"[{number}] {words}"}],
                "max_tokens": max_tokens,
            }
            began = time.monotonic()
            connection.request("POST", "/v1/chat/completions", json.dumps(body | {"stream": True}))
            response, last, tokens = connection.getresponse(), began, 1
            for line in response:
                if b'"content":"' in line and b'"content":""' not in line:
                    last, tokens = time.monotonic(), tokens + 1
            rates[model].append(tokens / (last - began))
            times[model].append(last - began)
        connection.close()
    assert median(rates["yi-6b"]) < median(rates["llama-2-7b"])
    assert median(times["yi-6b"]) < 0.7 * median(times["llama-2-7b"])


def ask_of(**more: object) -> GenerationRequest:
    plain = {"request_id": None, "received_ns": 0, "prompt": "", "first_message": ""}
    counts = {"prompt_tokens": 1, "max_tokens": None, "min_tokens": 0, "ignore_eos": False, "stop": ()}
    return GenerationRequest(
        **(plain | counts | {"stream": True, "usage": True, "every_usage": False} | more)
    )


@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.none() | st.integers(1, 500),
    st.integers(0, 500),
    st.booleans(),
)
def test_lengths_keep_to_the_limits(natural, room, max_tokens, min_tokens, ignore_eos):
    ask = ask_of(max_tokens=max_tokens, min_tokens=min_tokens, ignore_eos=ignore_eos)
    count, stops = wanted_tokens(ask, natural, room)
    limit = min(room, max_tokens or room)
    assert count >= 1
    assert count + stops <= limit
    assert count >= min(min_tokens, limit)
    if ignore_eos:
        assert (count, stops) == (limit, False)


@given(st.lists(st.text("abc ", min_size=1, max_size=5), min_size=1), st.lists(st.text("abc", min_size=1)))
def test_an_answer_is_the_text_before_the_first_stop_string(pieces, stops):
    answer = make_answer(ask_of(stop=tuple(stops)), pieces, stop_event=False)
    text = "".join(pieces)
    cut = min((text.find(stop) for stop in stops if stop in text), default=None)
    assert "".join(answer.pieces) == text[:cut]
    assert answer.finish_reason == ("length" if cut is None else "stop")
    assert 1 <= answer.tokens <= len(pieces)


def test_a_stop_string_within_the_least_tokens_does_not_count():
    pieces = ["one ", "stop ", "two ", "stop "]
    answer = make_answer(ask_of(stop=("stop",), min_tokens=2), pieces, stop_event=False)
    assert "".join(answer.pieces) == "one stop two "
    assert answer.tokens == 4


@given(st.integers(0, 10**6), st.integers(0, 3000))
def test_text_can_be_taken_from_anywhere_in_any_length(start, count):
    assert len(TextRing(0, pieces=100).take(start, count)) == count
