"""A prefix cache that is warm though nobody asked for that shows in usage, in metrics, or in time alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.analysis.conftest import START_NS, MadeRun, S, checks, level, summary_of, turn
from turnbench.formats import TurnRecord


def first_turns(count: int = 40, **fields: Any) -> list[TurnRecord]:
    return [turn(n, sent_s=6 + 50 * n / count, prompt_tokens=100, **fields) for n in range(count)]


def with_metrics(made: MadeRun, *samples: dict[str, float]) -> dict[str, str]:
    """The findings, where the server's metrics were these, evenly over the run."""
    made.write()
    lines = [
        {"t_ns": START_NS + round(70 * S * n / len(samples)), **values} for n, values in enumerate(samples)
    ]
    (made.path / "server.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made.turns, made.health = [], []  # they are written
    return checks(summary_of(made))


def cache(hits: float, queries: float) -> dict[str, float]:
    """As vLLM counts, in tokens."""
    return {"vllm:prefix_cache_hits_total": hits, "vllm:prefix_cache_queries_total": queries}


@pytest.mark.parametrize(("hits", "expected"), [(390, None), (410, "suspect"), (3900, "suspect")])
def test_the_servers_counters_tell_where_usage_is_silent(
    made: MadeRun, hits: float, expected: str | None
) -> None:
    made.turns = first_turns()
    found = with_metrics(made, cache(1000, 9000), cache(1000 + hits, 9000 + 4000))
    assert found.get("warm_cache") == expected


def test_what_a_conversation_finds_of_its_own_earlier_turns_is_not_warmth(made: MadeRun) -> None:
    made.turns = [
        turn(n, number, sent_s=6 + n, prompt_tokens=100 * number, events=20)
        for n in range(40)
        for number in (1, 2)
    ]
    # 12,000 tokens of prompts, and at most that and the answers can be found again.
    assert "warm_cache" not in with_metrics(made, cache(0, 0), cache(5_000, 12_000))


@pytest.mark.parametrize("asked", ["warm", "shared:0.5"])
def test_a_cache_that_was_asked_for_is_none_to_report(made: MadeRun, asked: str) -> None:
    made.manifest = {"settings": {"scenario": "chat", "model": "tiny", "cache": asked}}
    made.turns = first_turns()
    assert "warm_cache" not in with_metrics(made, cache(0, 0), cache(3_900, 4_000))


def test_counters_of_a_server_that_was_restarted_prove_nothing(made: MadeRun) -> None:
    made.turns = first_turns()
    found = with_metrics(made, cache(50, 4_000), cache(0, 100), cache(3_900, 4_000))
    assert "warm_cache" not in found
    assert found["restart"] == "suspect"


def test_a_server_without_such_counters_proves_nothing(made: MadeRun) -> None:
    made.turns = first_turns()
    assert "warm_cache" not in with_metrics(made, {"vllm:num_requests_running": 1.0}, {"x": 2.0})


def two_levels(
    made: MadeRun, low_ms: float, high_ms: float, count: int = 25, high_tokens: int = 1000
) -> dict[str, str]:
    """The findings, where first turns of a thousand tokens took so long at two people, then at eight."""
    made.levels = [level(users=2), level(1, users=8, start_s=70, window_s=(75, 135), end_s=140)]
    made.turns = [
        turn(n + 1000 * at, sent_s=70 * at + 6 + 2 * n, ttft_ms=ttft_ms, prompt_tokens=tokens)
        for at, (ttft_ms, tokens) in enumerate(((low_ms, 1000), (high_ms, high_tokens)))
        for n in range(count)
    ]
    return checks(summary_of(made))


@pytest.mark.parametrize(
    ("low_ms", "high_ms", "expected"),
    [(100, 49, "suspect"), (100, 51, None), (100, 100, None), (100, 400, None), (19, 2, None)],
)
def test_first_turns_that_are_quicker_at_more_load_tell_of_an_earlier_level(
    made: MadeRun, low_ms: float, high_ms: float, expected: str | None
) -> None:
    assert two_levels(made, low_ms, high_ms).get("warm_cache") == expected


def test_shorter_prompts_are_quicker_in_their_own_right(made: MadeRun) -> None:
    assert "warm_cache" not in two_levels(made, 100, 20, high_tokens=200)


def test_few_turns_are_quicker_by_chance(made: MadeRun) -> None:
    assert "warm_cache" not in two_levels(made, 100, 20, count=19)


def test_a_level_with_fewer_people_may_well_be_quicker(made: MadeRun) -> None:
    made.levels = [level(users=8), level(1, users=2, start_s=70, window_s=(75, 135), end_s=140)]
    made.turns = [
        turn(n + 1000 * at, sent_s=70 * at + 6 + 2 * n, ttft_ms=ttft_ms, prompt_tokens=1000)
        for at, ttft_ms in enumerate((400, 100))
        for n in range(25)
    ]
    assert "warm_cache" not in checks(summary_of(made))
