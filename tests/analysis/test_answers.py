"""Findings about the answers themselves: held back, too long, too short, refused, cut in their reasoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.pipeline import analyse
from tests.analysis.conftest import MadeRun, checks, exit_code_of, summary_of, turn
from turnbench.formats import TurnRecord
from turnbench.turns import turns_of


def turns(count: int = 40, **fields: Any) -> list[TurnRecord]:
    return [turn(n, sent_s=6 + 50 * n / count, **fields) for n in range(count)]


def what(made: MadeRun, check: str) -> tuple[str, str]:
    """(what, remedy) of the one finding of this check."""
    (found,) = [f for f in summary_of(made)["verdict"]["findings"] if f["check"] == check]
    return found["what"], found["remedy"]


def cell(made: MadeRun) -> dict[str, Any]:
    found: dict[str, Any] = summary_of(made)["cells"][0]
    return found


def test_a_gateway_that_buffers_is_named_and_tpot_is_withheld(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"tpot_ms": 1000.0}}
    made.turns = turns(ttft_ms=2000, gap_ms=0, events=40, coalesced=39)
    found = checks(summary_of(made))
    assert (found["buffered"], "coalesced" in found) == ("suspect", False)
    said, remedy = what(made, "buffered")
    assert "40 of 40 turns" in said
    assert "proxy_buffering off" in remedy
    assert "http-no-delay" in remedy
    assert (cell(made)["tpot_ms"]["n"], cell(made)["tpot_ms"]["p50"]) == (0, None)
    assert exit_code_of(made.path) == 1, "a limit on what is not known is not met"


BEHIND_HAPROXY = Path(__file__).parents[1] / "fixtures" / "gateways" / "haproxy-defaults.jsonl"
"""Arrivals of 28 answers of a real server behind haproxy's defaults, half of them in two or three pieces."""


def in_pieces(events: int, gap_us: int, ttft_us: int, event_bytes: int, buffer_bytes: int) -> list[int]:
    """Arrivals behind a gateway that passes an answer on when its buffer is full, and the rest at the end."""
    made = [ttft_us + number * gap_us for number in range(events)]
    a_piece = max(buffer_bytes // event_bytes, 1)
    return [made[min(number - number % a_piece + a_piece, events) - 1] for number in range(events)]


def test_haproxy_with_its_defaults_is_named(made: MadeRun) -> None:
    seen = [json.loads(line) for line in BEHIND_HAPROXY.read_bytes().splitlines()]
    made.turns = [turn(n, sent_s=6 + n, events=len(each["event_us"]), **each) for n, each in enumerate(seen)]
    summary = summary_of(made)
    assert (checks(summary)["buffered"], "coalesced" in checks(summary)) == ("suspect", False)
    assert "in 28 of 28 turns" in what(made, "buffered")[0]
    assert summary["cells"][0]["tpot_ms"]["n"] == 0


@pytest.mark.parametrize("buffer_bytes", [4096, 16_384, 65_536])
@pytest.mark.parametrize("event_bytes", [190, 330])
@pytest.mark.parametrize(("gap_us", "ttft_us"), [(2_000, 20_000), (30_000, 30_000), (30_000, 3_000_000)])
@pytest.mark.parametrize("events", [40, 256, 1000])
def test_a_gateway_that_passes_on_full_buffers_is_one(
    events: int, gap_us: int, ttft_us: int, event_bytes: int, buffer_bytes: int
) -> None:
    arrived = in_pieces(events, gap_us, ttft_us, event_bytes, buffer_bytes)
    assert turns_of([turn(event_us=arrived, events=events)]).buffered.all()


@pytest.mark.parametrize("gap_us", [10_000, 30_000, 60_000])
@pytest.mark.parametrize("events", [40, 400])
def test_a_gateway_that_says_more_will_come_is_one(events: int, gap_us: int) -> None:
    """haproxy's defaults in front of a server of 30 ms a token: pieces of 7 after 209, 437, 649 ... ms."""
    made = [50_000 + number * gap_us for number in range(events)]
    held = [-(-at // 212_000) * 212_000 for at in made]
    arrived = [min(at, made[-1]) for at in held]
    assert turns_of([turn(event_us=arrived, events=events)]).buffered.all()


@pytest.mark.parametrize(
    "pieces_ms",
    [[233, 277, 493, 721, 783], [230, 518, 762, 976], [222, 266, 502, 644], [217, 433, 665, 750]],
)
def test_haproxy_on_a_busy_machine_is_one(pieces_ms: list[int]) -> None:
    """Seen with a server of 30 ms a token on a machine with other work: 24 events in pieces."""
    made = [30_000 * number for number in range(1, 25)]
    arrived = [
        next((p * 1000 for p in pieces_ms[:-1] if p * 1000 >= at), pieces_ms[-1] * 1000) for at in made
    ]
    assert turns_of([turn(n, event_us=arrived, events=24) for n in range(3)]).buffered.all()


@pytest.mark.parametrize(
    "arrived",
    [
        [2_000_000 + 20_000 * n for n in range(40)],
        [2_000_000] * 5,
        [100_000, *([2_000_000] * 39)],
        [50_000 + 330 * n for n in range(256)],
        [50_000 + 4_000 * (n // 3) for n in range(256)],
        [50_000 + 9_000 * (n // 7) + n % 7 for n in range(256)],
        [50_000 + 60 * n for n in range(1000)],
        [1_000 + 5 * n for n in range(400)],
        [50_000] * 8 + [70_000 + 20_000 * n for n in range(56)],
        [300_000 + 210_000 * n for n in range(40)],
        [300_000 + 210_000 * (n // 2) for n in range(40)],
        [50_000 + 120_000 * (n // 4) for n in range(40)],
        [230_000 + 44_000 * (n // 3) for n in range(40)],
    ],
    ids=[
        "a stream",
        "too few events to say",
        "a burst at the end",
        "a quick server",
        "a server that makes three tokens a step",
        "one that drafts seven and sends an event for each",
        "one of 16,000 tokens a second",
        "a server that answers at once",
        "a burst at the beginning",
        "a slow server, 210 ms a token",
        "a slow server that makes two tokens in 210 ms",
        "a slow server that drafts four",
        "one that drafts three in 44 ms, after 230 ms",
    ],
)
def test_other_answers_are_not_held_back(arrived: list[int]) -> None:
    assert not turns_of([turn(n, event_us=arrived, events=len(arrived)) for n in range(2)]).buffered.any()


def test_a_late_client_is_no_gateway() -> None:
    one = turn(event_us=[2_000_000] * 40, events=40, lag_us_max=1_900_000)
    assert not turns_of([one]).buffered.any()


def test_a_few_segments_of_one_burst_are_one_piece(made: MadeRun) -> None:
    burst = [2_000_000 + 40 * n for n in range(40)]
    made.turns = turns(events=40, event_us=burst, clock="wire")
    assert checks(summary_of(made))["buffered"] == "suspect"


@pytest.mark.parametrize(("tokens", "expected"), [(256, None), (257, "suspect"), (10**6, "suspect")])
def test_more_tokens_than_asked_for(made: MadeRun, tokens: int, expected: str | None) -> None:
    made.turns = turns(events=15, output_tokens=tokens, max_tokens=256)
    assert checks(summary_of(made)).get("more_tokens") == expected
    if expected:
        said, _ = what(made, "more_tokens")
        assert f"{tokens} of 256 allowed, in 15 events" in said


def test_an_old_run_knows_what_was_asked_for_by_its_settings(made: MadeRun) -> None:
    made.manifest["settings"] = {"max_tokens": 5}
    made.turns = turns(events=10)
    assert checks(summary_of(made))["more_tokens"] == "suspect"


@pytest.mark.parametrize("source", ["usage", "events"])
def test_exact_tokens_that_were_not_honoured(made: MadeRun, source: str) -> None:
    made.manifest["settings"] = {"exact_tokens": True}
    made.turns = turns(events=5, max_tokens=256, token_source=source)
    said, _ = what(made, "not_exact")
    assert "40 of 40 answers were not 256 tokens long" in said
    assert checks(summary_of(made))["not_exact"] == "suspect"
    found = analyse(made.path)
    assert found.summary.variant["answers"] == "", "it is not labelled as a run of 256 tokens"
    assert not found.turns["exact"].any()


def test_exact_tokens_that_were_honoured(made: MadeRun) -> None:
    made.manifest["settings"] = {"exact_tokens": True}
    made.turns = [*turns(20, events=256, max_tokens=256)]
    made.turns += [
        turn(n + 50, sent_s=20, events=255, max_tokens=256, token_source="events") for n in range(20)
    ]
    assert "not_exact" not in checks(summary_of(made))
    assert analyse(made.path).summary.variant["answers"] == "256 tokens"


@pytest.mark.parametrize(
    ("counted", "expected"), [(1000, None), (1150, "note"), (1732, "suspect"), (400, "suspect")]
)
def test_prompts_far_from_what_a_trace_asks_for(made: MadeRun, counted: int, expected: str | None) -> None:
    made.turns = turns(asked_prompt_tokens=978, prompt_tokens=counted)
    assert checks(summary_of(made)).get("prompt_lengths") == expected
    if expected:
        assert f"978 asked for, {counted} counted by the server" in what(made, "prompt_lengths")[0]


@pytest.mark.parametrize("outcome", ["ok", "reasoning_only"])
def test_reasoning_that_its_limit_cut_is_an_answer(made: MadeRun, outcome: str) -> None:
    """Runs before 0.2.0 recorded it as reasoning_only."""
    made.turns = turns(outcome=outcome, finish_reason="length", answer_event=None, events=64)
    summary = summary_of(made)
    assert (summary["outcomes"], summary["verdict"]["status"]) == ({"ok": 40}, "valid")
    found = summary["cells"][0]
    assert [found[key]["n"] for key in ("ttft_ms", "tpot_ms", "ttfat_ms")] == [40, 40, 0]
    said, remedy = what(made, "cut_reasoning")
    assert "40 of 40 answers did not begin" in said
    assert "--max-tokens" in remedy


def test_reasoning_that_ends_by_itself_is_a_failure(made: MadeRun) -> None:
    made.turns = turns(30) + [turn(99 + n, sent_s=20, outcome="reasoning_only") for n in range(10)]
    assert summary_of(made)["outcomes"] == {"ok": 30, "reasoning_only": 10}


@pytest.mark.parametrize(
    ("outcome", "status", "error", "says", "advises"),
    [
        ("http_4xx", 401, "No api key passed in.", "No api key passed in.", "MY_KEY"),
        ("http_4xx", 400, "logprobs is not allowed", "logprobs is not allowed", "see "),
        ("http_4xx", 418, "", "status 418 without a word", "see "),
        ("http_429", 429, "slow down (Retry-After: 2 s)", "slow down", "limit"),
        ("empty", 200, "the reply had no content", "no content", "context that is full"),
        ("context_full", 400, "maximum context length is 9", "maximum context length", "longer context"),
    ],
)
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_failure_has_the_servers_words_and_what_to_do(
    made: MadeRun, outcome: str, status: int, error: str, says: str, advises: str, all_of_them: bool
) -> None:
    made.manifest["settings"] = {"api_key_env": "MY_KEY"}
    bad = {"outcome": outcome, "status": status, "error": error, "events": 0, "output_tokens": None}
    made.turns = turns(20, **bad) + ([] if all_of_them else [turn(99 + n, sent_s=20) for n in range(20)])
    said, remedy = what(made, "no_turns" if all_of_them else "failed")
    assert says in said
    assert advises in remedy


def test_a_limit_on_the_rate_is_named(made: MadeRun) -> None:
    refused = {"outcome": "http_429", "status": 429, "events": 0, "output_tokens": None}
    made.turns = turns(30) + [turn(99 + n, sent_s=20, **refused) for n in range(10)]
    assert "10 of 40 turns were refused with 429" in what(made, "rate_limited")[0]


@pytest.mark.parametrize("typed", [True, False])
def test_exit_1_names_the_limit_and_where_it_came_from(made: MadeRun, typed: bool) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 50.0, "tpot_ms": 500.0}}
    made.manifest["settings"] = {"slo": {"ttft_ms": 50.0} if typed else {}}
    made.turns = turns()
    said, _ = what(made, "limits_missed")
    assert exit_code_of(made.path) == 1
    assert f"missed ttft_ms=50 of {'--slo' if typed else 'the scenario'} by 40" in said
    assert "tpot_ms" not in said
    made.manifest["slo"] = {"chat": {"ttft_ms": 500.0}}
    assert "limits_missed" not in checks(summary_of(made))
