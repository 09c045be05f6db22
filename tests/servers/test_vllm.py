"""A real vLLM: four dialects, two names, two adapters, two engines, tools, a reasoning parser, speculation,
several tokens an event."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serve.launch.command import TINY_FOLDER
from tests.servers.conftest import PLAN_TOKENS, Play, Played, metric, metrics_page
from tests.servers.tiny_adapter import RANK, write_adapter

pytestmark = pytest.mark.servers

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
                "required": ["city"],
            },
        },
    }
]


@pytest.fixture(scope="module")
def url(vllm: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tools = "--enable-auto-tool-choice --tool-call-parser hermes"
    home, names = tmp_path_factory.mktemp("adapters"), ("first", "second")
    adapters = [f"{name}={write_adapter(home / name, TINY_FOLDER, n)}" for n, name in enumerate(names)]
    lora = f"--enable-lora --max-lora-rank {RANK} --max-loras 2 --lora-modules {' '.join(adapters)}"
    with vllm(f"--served-model-name tiny other {tools} {lora}") as found:
        yield found


@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "messages"])
def test_each_dialect_counts_and_waits_as_the_server_does(play: Play, url: str, dialect: str) -> None:
    played = play(url, "--dialect", dialect, behind=url)
    played.is_whole()
    played.counts_as_the_server()
    played.waits_as_the_server()
    assert played.run.manifest.emulated is False


def test_two_served_names_are_both_asked_each_conversation_one(play: Play, url: str) -> None:
    played = play(url, "--model", "tiny=0.5,other=0.5", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    assert models_of(played) == {"tiny", "other"}


def models_of(played: Played) -> set[str]:
    """The models that were asked; each conversation has one."""
    asked = {(turn.conversation, turn.model) for turn in played.turns}
    assert len({conversation for conversation, _ in asked}) == len(asked)
    return {model for _, model in asked}


def test_two_adapters_are_asked_beside_their_model(play: Play, url: str) -> None:
    played = play(url, "--model", "tiny=0.2,first=0.4,second=0.4", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    assert models_of(played) == {"tiny", "first", "second"}
    page = metrics_page(url)
    for name in ("first", "second"):
        assert re.search(f'running_lora_adapters="[^"]*{name}', page), "the server has used it"


def test_two_engines_have_one_page_of_metrics(play: Play, vllm: Callable[..., Any]) -> None:
    with vllm("--data-parallel-size 2") as url:
        played = play(url, behind=url, people=4)
        made = [metric(url, "vllm:generation_tokens_total", f'engine="{number}"') for number in (0, 1)]
    played.is_whole()
    played.counts_as_the_server()
    played.waits_as_the_server()
    assert min(made) >= PLAN_TOKENS, "both had a part"
    samples = [sample.values for sample in played.run.server()]
    assert samples
    for name, most in (("vllm:kv_cache_usage_perc", 1), ("vllm:num_requests_running", 4)):
        assert max(sample[name] for sample in samples) <= most


def test_a_tool_call_is_an_answer(play: Play, url: str) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    body = json.dumps({"tools": TOOLS, "tool_choice": choice})
    played = play(url, "--body", body, behind=url, exact=False)
    assert {turn.outcome for turn in played.turns} == {"ok"}, played.said
    assert {turn.answer_event for turn in played.turns} == {0}
    assert {turn.finish_reason for turn in played.turns} <= {"stop", "tool_calls", "length"}
    played.counts_as_the_server()


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model that has tokens for the marks of thinking, in place of its last two."""
    folder = tmp_path_factory.mktemp("models") / "thinker"
    shutil.copytree(TINY_FOLDER, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    gone = {text for text, number in vocab.items() if number >= len(vocab) - 2}
    marks = {"<think>": len(vocab) - 2, "</think>": len(vocab) - 1}
    tokenizer["model"]["vocab"] = {text: number for text, number in vocab.items() if text not in gone} | marks
    tokenizer["model"]["merges"] = [
        pair for pair in tokenizer["model"]["merges"] if not {*pair, "".join(pair)} & gone
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"] += [
        {"id": number, "content": text, "special": True} | flags for text, number in marks.items()
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def thinking_url(vllm: Callable[..., Any], thinker: str) -> Iterator[str]:
    options = "--load-format dummy --max-model-len 2048 --enforce-eager --stream-interval 4"
    with vllm(f"{options} --reasoning-parser deepseek_r1", model=thinker) as found:
        yield found


def test_reasoning_is_told_from_the_answer_and_cut_reasoning_is_answered(
    play: Play, thinking_url: str
) -> None:
    """One token in twenty or so ends the thinking: some answers begin, some are cut before."""
    end = len(json.loads((TINY_FOLDER / "tokenizer.json").read_text())["model"]["vocab"]) - 1
    body = json.dumps({"logit_bias": {str(end): 5}})
    played = play(thinking_url, "--temperature", "1", "--body", body, behind=thinking_url)
    assert {turn.outcome for turn in played.turns} == {"ok"}, played.said
    played.counts_as_the_server()
    ends = {"answer" if turn.answer_event else "reasoning alone" for turn in played.turns}
    assert ends == {"answer", "reasoning alone"}
    assert "cut_reasoning" in played.findings


def test_four_tokens_an_event_have_the_time_per_token_of_the_server(play: Play, thinking_url: str) -> None:
    played = play(thinking_url, behind=thinking_url)
    played.is_whole()
    played.counts_as_the_server()
    counts = [count for turn in played.turns for count in turn.event_tokens or []]
    assert sorted(counts)[len(counts) // 2] == 4
    assert not {"buffered", "coalesced", "token_split"} & played.findings.keys()
    tpot_ms, itl = played.summary["cells"][0]["tpot_ms"]["mean"], played.server["itl"]
    print({"tpot_ms": tpot_ms, "itl": itl})
    assert tpot_ms == pytest.approx(itl["mean_ms"], rel=0.2, abs=2)


def test_speculation_is_in_the_counts_the_acceptance_and_the_events(
    play: Play, vllm: Callable[..., Any]
) -> None:
    guess = json.dumps({"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3})
    with vllm(f"--speculative-config '{guess}'") as url:
        played = play(url, behind=url, tokens=192)  # so that the page of metrics is looked at more than once
    played.is_whole()
    played.counts_as_the_server()
    print({"acceptance": played.server["acceptance_share"]})
    assert 0 <= played.server["acceptance_share"] <= 1
    assert sum(len(turn.event_us) for turn in played.turns) <= played.output_tokens
