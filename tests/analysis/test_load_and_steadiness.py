"""Load curves, turns of a conversation, and servers that do not stay what they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
from msgspec.structs import replace

from analysis.__main__ import main
from analysis.stats.steadiness import change_point
from analysis.summary import summarise
from analysis.turns.study import study_run
from tests.analysis.conftest import START_NS, MadeRun, S, checks, level, summary_of, turn
from turnbench import exits
from turnbench.formats import TurnRecord, summary_json
from turnbench.run_directory import read_run


def test_more_load_buys_no_more_throughput_from_the_second_level_on(made: MadeRun) -> None:
    made.levels = [
        level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=4**n)
        for n in range(3)
    ]
    for n, per_s in enumerate((1, 3, 3)):
        every_s = 1 / per_s
        made.turns += [turn(1000 * n + k, sent_s=n * 100 + k * every_s) for k in range(60 * per_s)]
    curve = summary_of(made)["curve"]
    assert curve["saturation"] == "4"
    assert curve["saturation_ci95"] == ["4", "4"]


def test_throughput_that_still_grows_has_no_saturation(made: MadeRun) -> None:
    made.levels = [
        level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=n + 1)
        for n in range(2)
    ]
    for n, per_s in enumerate((1, 2)):
        made.turns += [turn(1000 * n + k, sent_s=n * 100 + k / per_s) for k in range(60 * per_s)]
    curve = summary_of(made)["curve"]
    assert curve["saturation"] is None
    assert curve["saturation_ci95"] == [None, None]


@pytest.mark.parametrize(("turns", "sure"), [(60, False), (240, True)])
def test_capacity_is_the_highest_load_whose_limits_hold_and_says_if_that_is_sure(
    made: MadeRun, turns: int, sure: bool
) -> None:
    made.levels = [
        level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=n + 1)
        for n in range(2)
    ]
    made.manifest = {"slo": {"chat": {"ttft_ms": 200}}}
    for n, ttft_ms in enumerate((100, 300)):
        at_s = [n * 100 + k * 60 / turns for k in range(turns)]
        made.turns += [turn(1000 * n + k, sent_s=at, ttft_ms=ttft_ms) for k, at in enumerate(at_s)]
    summary = summary_of(made)
    assert (summary["curve"]["capacity"], summary["curve"]["capacity_sure"]) == ("1", sure)
    assert [one["limits_sure"] for one in summary["levels"]] == [sure, True]
    assert main([str(made.path)]) == exits.MISSED
    page = (made.path / "report.html").read_text()
    assert f"All limits hold up to a load of 1{'' if sure else ' (not sure at 95 %)'}." in page


def test_a_steady_level_obeys_littles_law(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=4 + k / 10) for k in range(620)]
    assert summary_of(made)["levels"][0]["little"] == pytest.approx(1, abs=0.02)


def test_time_to_first_token_is_told_by_turn_with_the_cache_that_was_expected(made: MadeRun) -> None:
    for k in range(30):
        for n in (1, 2):
            cached = {1: 0, 2: 50}[n]
            made.turns.append(turn(k, n, sent_s=6 + k + n / 4, ttft_ms=100 * n, cached_tokens=cached))
    first, second = summary_of(made)["by_turn"]
    assert (first["turn"], first["ttft_ms"]["p50"]) == (1, 100)
    assert (second["turn"], second["ttft_ms"]["p50"]) == (2, 200)
    assert (first["expected_cached_mean"], first["cached_tokens_mean"]) == (0, 0)
    assert (second["expected_cached_mean"], second["cached_tokens_mean"]) == (60, 50)


def test_a_conversation_lasts_from_its_first_due_to_its_last_end(made: MadeRun) -> None:
    for k in range(30):
        made.turns += [turn(k, 1, sent_s=6 + k), turn(k, 2, sent_s=8 + k, last=True)]
    made.turns.append(turn(99, 1, sent_s=40, outcome="http_5xx", events=0))
    told = summary_of(made)["levels"][0]["conversations"]
    assert (told["begun"], told["completed"], told["failed"], told["cut"]) == (31, 30, 1, 0)
    assert told["duration_ms"]["p50"] == pytest.approx(2000 + 280)


def branched(k: int, **outcomes: str) -> list[TurnRecord]:
    """A planner, sub-agents of 100 and 300 ms, the turn that waits for both; a fork that ends last."""
    made = [
        turn(k, 1, sent_s=6 + k, depth=1, continues=0, after=[], branch="main", cached_tokens=0),
        turn(k, 2, sent_s=6.3 + k, depth=1, continues=0, after=[1], branch="a", cached_tokens=40),
        turn(k, 3, sent_s=6.3 + k, depth=1, continues=0, after=[1], branch="b", ttft_ms=300),
        turn(k, 4, sent_s=6.8 + k, depth=2, continues=1, after=[2, 3], branch="main", cached_tokens=60),
        turn(k, 5, sent_s=6.3 + k, depth=2, continues=1, after=[1], branch="c", ttft_ms=2000, last=True),
    ]
    return [replace(each, outcome=outcomes.get(f"turn_{each.turn}", "ok")) for each in made]


def test_branches_are_told_by_depth_with_the_cache_that_their_parents_leave(made: MadeRun) -> None:
    made.turns = [each for k in range(30) for each in branched(k)]
    first, second = summary_of(made)["by_turn"]
    assert (first["turn"], first["n"], second["turn"], second["n"]) == (1, 90, 2, 60)
    assert first["ttft_ms"]["mean"] == pytest.approx((100 + 100 + 300) / 3)
    assert second["expected_cached_mean"] == 60, "of both the planner's prompt and answer, not of turn 3 or 4"
    assert first["expected_cached_mean"] == 0, "of the planner alone: what a sub-agent finds is not known"
    assert "warm_cache" not in checks(summary_of(made))


def test_a_conversation_with_branches_ends_with_its_last_branch_and_fails_with_any(made: MadeRun) -> None:
    made.turns = [each for k in range(30) for each in branched(k)]
    made.turns += branched(40, turn_2="http_5xx")[:3] + branched(41, turn_3="cut")[:3] + branched(42)[:4]
    told = summary_of(made)["levels"][0]["conversations"]
    assert (told["begun"], told["completed"], told["failed"], told["cut"]) == (33, 30, 1, 2)
    assert told["duration_ms"]["p50"] == pytest.approx(300 + 2000 + 180)


def test_a_server_that_slows_down_inside_a_level_is_found(made: MadeRun) -> None:
    rng = np.random.default_rng(1)
    gaps = 20 * np.exp(rng.normal(0, 0.1, 400)) * np.where(np.arange(400) < 200, 1, 1.3)
    made.turns = [turn(k, sent_s=6 + k / 8, gap_ms=gap) for k, gap in enumerate(gaps)]
    assert checks(summary_of(made))["drift"] == "suspect"


def test_noise_is_seldom_taken_for_drift() -> None:
    rng = np.random.default_rng(2)
    found = sum(change_point(rng.normal(0, 0.5, 400)) is not None for _ in range(500))
    assert found <= 5


def test_answers_whose_length_follows_the_load_are_noted(made: MadeRun) -> None:
    made.levels = [
        level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=n + 1)
        for n in range(2)
    ]
    for n, events in enumerate((10, 20)):
        made.turns += [turn(1000 * n + k, sent_s=n * 100 + k, events=events) for k in range(50)]
    assert checks(summary_of(made))["lengths"] == "note"


def test_a_counter_that_falls_is_a_restart(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=6 + k) for k in range(40)]
    made.write()
    values = [10, 20, 5, 9]
    lines = [
        {"t_ns": START_NS + n * S, "vllm:generation_tokens_total": value} for n, value in enumerate(values)
    ]
    (made.path / "server.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, [], {}]))
    found = [f for f in summary_of(made)["verdict"]["findings"] if f["check"] == "restart"]
    assert len(found) == 1
    assert "1 time(s) during the run, at 2 s" in found[0]["what"]


def test_a_first_turn_that_is_in_the_cache_already_is_found(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=6 + k, cached_tokens=40) for k in range(40)]
    assert checks(summary_of(made))["warm_cache"] == "suspect"


def test_a_first_turn_may_find_what_is_shared_in_the_cache(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=6 + k, cached_tokens=40) for k in range(40)]
    (made.write() / "scenario.yaml").write_text(
        "tasks:\n  chat:\n    system: {text: Be kind., shared: true}\n"
    )
    assert "warm_cache" not in checks(summary_json(summarise(study_run(read_run(made.path)))))


def test_a_follow_up_that_finds_more_in_the_cache_than_was_said_before_is_found(made: MadeRun) -> None:
    for k in range(30):
        made.turns += [turn(k, 1, sent_s=6 + k, cached_tokens=0)]
        made.turns += [turn(k, 2, sent_s=6.5 + k, prompt_tokens=200, cached_tokens=60)]  # all that was said
    assert "warm_cache" not in checks(summary_of(made))
    warmer = [replace(r, cached_tokens=190) if r.turn == 2 else r for r in made.turns]
    assert checks(summary_of(MadeRun(made.path.with_name("b"), warmer)))["warm_cache"] == "suspect"


def test_each_way_to_end_has_its_own_window_in_time(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=6 + k) for k in range(40)]
    made.turns += [turn(100 + k, sent_s=25 + k, outcome="http_5xx", events=0) for k in range(5)]
    made.turns += [turn(200 + k, sent_s=45 + k, outcome="stalled", events=1) for k in range(3)]
    made.turns += [turn(300 + k, sent_s=35 + k, outcome="bad_json", events=0) for k in range(3)]
    said = {f["check"]: f["what"] for f in summary_of(made)["verdict"]["findings"]}
    assert "3 bad_json sent from 30 to 32 s, 5 http_5xx sent from 20 to 24 s of the window" in said["failed"]
    assert "3 of 51 turns still ran when they were last seen" in said["unfinished"]
    assert "3 stalled sent from 40 to 42 s of the window" in said["unfinished"]


def test_failures_are_told_with_their_window_in_time(made: MadeRun) -> None:
    made.turns = [turn(k, sent_s=6 + k) for k in range(40)]
    made.turns += [turn(100 + k, sent_s=25 + k, outcome="http_5xx", events=0) for k in range(5)]
    (found,) = [f for f in summary_of(made)["verdict"]["findings"] if f["check"] == "failed"]
    assert "sent from 20 to 24 s of the window" in found["what"]


@pytest.mark.parametrize(("count", "expected"), [(10, "note"), (11, None)])
def test_too_few_turns_for_a_median_are_noted_with_how_long_to_hold(
    made: MadeRun, count: int, expected: str | None
) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)] + [
        turn(100 + n, sent_s=6 + n, task="explain") for n in range(count)
    ]
    summary = summary_of(made)
    assert checks(summary).get("few_turns") == expected
    assert summary["verdict"]["status"] == "valid"
    if expected:
        (finding,) = summary["verdict"]["findings"]
        assert "in explain:" in finding["what"]
        assert "hold the level for 66 s" in finding["remedy"]
