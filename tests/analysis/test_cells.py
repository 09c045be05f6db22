"""The numbers of a cell from made runs with a known truth."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from tests.analysis.conftest import MS, START_NS, MadeRun, S, cell_of, level, summary_of, turn


def test_percentiles_are_of_pooled_turns_and_never_averaged_over_workers(made: MadeRun) -> None:
    fast = [turn(n, ttft_ms=100 + n % 7, worker=0) for n in range(90)]
    slow = [turn(100 + n, ttft_ms=1000 + n, worker=1) for n in range(10)]
    made.turns = fast + slow
    found = cell_of(summary_of(made))["ttft_ms"]
    pooled = [r.event_us[0] / 1000 for r in made.turns]
    assert found["p50"] == pytest.approx(np.quantile(pooled, 0.5))
    assert found["p90"] == pytest.approx(np.quantile(pooled, 0.9))
    assert found["n"] == 100


def test_tps_is_all_tokens_over_all_time_and_not_a_mean_of_rates(made: MadeRun) -> None:
    made.turns = [turn(0, ttft_ms=100, events=1), turn(1, ttft_ms=100, gap_ms=10, events=91)]
    assert cell_of(summary_of(made))["tps"] == pytest.approx(92 / (0.1 + 1.0))


def test_aggregate_tps_counts_what_arrived_in_the_window_and_nothing_else(made: MadeRun) -> None:
    # 20 tokens a second each: one begins in the ramp, one is measured whole, one runs over the end.
    streams = [turn(n, sent_s=at, ttft_ms=0, gap_ms=50, events=400) for n, at in enumerate((0, 20, 60))]
    made.turns = streams
    summary = summary_of(made)
    assert cell_of(summary)["turns"] == 2  # the one sent in the ramp is not measured
    assert cell_of(summary)["aggregate_tps"] == pytest.approx((300 + 400 + 100) / 60)
    assert summary["levels"][0]["streams_mean"] == pytest.approx((14.95 + 19.95 + 5) / 60)


def test_tokens_of_failed_turns_are_work_the_server_did(made: MadeRun) -> None:
    made.turns = [turn(0, events=60), turn(1, events=30, outcome="disconnected", output_tokens=None)]
    cell = cell_of(summary_of(made))
    assert cell["aggregate_tps"] == pytest.approx(90 / 60)
    assert (cell["ok"], cell["failed"], cell["failed_share"]) == (1, 1, 0.5)
    assert (cell["ttg_ms"]["n"], cell["ttft_ms"]["n"]) == (
        2,
        2,
    )  # broken off in its answer: a wait of its own


def test_the_stop_token_arrives_with_the_end_of_the_stream(made: MadeRun) -> None:
    made.turns = [turn(0, events=60, output_tokens=61)]
    assert cell_of(summary_of(made))["aggregate_tps"] == pytest.approx(61 / 60)


def test_long_answers_are_not_cut_by_the_windows_end(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=5 + n, ttft_ms=100, gap_ms=100, events=101) for n in range(60)]
    found = cell_of(summary_of(made))["ttg_ms"]
    assert (found["n"], found["p50"]) == (60, 10_100)


def test_an_unfinished_turn_ranks_above_all_finished_ones(made: MadeRun) -> None:
    done = [turn(n, ttft_ms=100, events=11) for n in range(60)]
    watched = {"end_ns": START_NS + 22 * S, "outcome": "unfinished"}
    stuck = [turn(100 + n, ttft_ms=100, events=3, **watched) for n in range(20)]
    made.turns = done + stuck
    cell = cell_of(summary_of(made))
    assert (cell["turns"], cell["unfinished"], cell["failed"]) == (80, 20, 0)
    assert cell["ttft_ms"]["p90"] == 100  # its first token came
    for name, seen in (("ttg_ms", 12_000), ("tpot_ms", 11_900 / 2)):
        assert cell[name]["n"] == 80
        assert cell[name]["p50"] is not None
        assert cell[name]["p90"] is None
        assert cell[name]["bound"] == pytest.approx({"p90": seen, "max": seen})
        assert cell[name]["mean_to"] == pytest.approx(seen)
    assert cell["ttg_ms"]["mean"] == pytest.approx(0.75 * 300 + 0.25 * 12_000)
    assert cell["decode_tokens_per_s"]["mean"] is None


def test_a_turn_without_a_first_token_is_censored_in_its_ttft_too(made: MadeRun) -> None:
    waited = {"end_ns": START_NS + 15 * S, "outcome": "deadline", "output_tokens": None}
    made.turns = [turn(n) for n in range(20)] + [turn(50 + n, events=0, **waited) for n in range(20)]
    ttft = cell_of(summary_of(made))["ttft_ms"]
    assert (ttft["n"], ttft["p50"], ttft["max"]) == (40, None, None)
    assert ttft["bound"] == {"p50": pytest.approx((100 + 5000) / 2), "max": 5000}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
def test_dropping_the_slow_ones_never_makes_a_server_look_quick(made: MadeRun, share: float) -> None:
    """The slowest are ended by a deadline: what lies under it is as if they had been watched to their end."""
    rng = np.random.default_rng(1)
    true_ms = rng.lognormal(6.8, 0.5, 400).round(1)
    deadline_ms = float(np.quantile(true_ms, 1 - share)) if share else np.inf
    for n, ms in enumerate(true_ms.tolist()):
        over = ms > deadline_ms
        end_ns = START_NS + 10 * S + round(min(ms, deadline_ms) * MS)
        record = turn(n, ttft_ms=50, gap_ms=(min(ms, deadline_ms) - 50) / 9, end_ns=end_ns)
        made.turns.append(msgspec.structs.replace(record, outcome="deadline") if over else record)
    ttg = cell_of(summary_of(made))["ttg_ms"]
    for name, quantile in (("p50", 0.5), ("p90", 0.9)):
        truth = float(np.quantile(true_ms, quantile))
        if truth < deadline_ms * 0.999:
            assert ttg[name] == pytest.approx(truth, abs=0.01)
        else:
            assert ttg[name] is None
            assert ttg["bound"][name] == pytest.approx(deadline_ms, rel=0.01)
    assert ttg["mean"] == pytest.approx(np.minimum(true_ms, deadline_ms).mean(), rel=1e-4)


def test_half_unfinished_turns_leave_no_median_of_speeds_either(made: MadeRun) -> None:
    made.turns = [turn(n, outcome="unfinished" if n % 2 else "ok") for n in range(40)]
    cell = cell_of(summary_of(made))
    assert cell["request_tps"]["p50"] is None
    assert cell["ttg_ms"]["p50"] is None


def test_a_turn_counts_once_by_its_highest_attempt(made: MadeRun) -> None:
    due_ns = START_NS + 10 * S
    first = turn(0, events=0, output_tokens=None, outcome="stale_connection", due_ns=due_ns)
    again = turn(0, attempt=2, sent_s=10.5, due_ns=due_ns)
    made.turns = [again, first, turn(1)]
    cell = cell_of(summary_of(made))
    assert (cell["turns"], cell["ok"], cell["failed"]) == (2, 2, 0)


@pytest.mark.parametrize(("first_sent_s", "counted"), [(64.5, 2), (4.5, 1)])
def test_a_turn_is_placed_by_its_first_attempt(made: MadeRun, first_sent_s: float, counted: int) -> None:
    """The window is 5 s to 65 s. A turn that had to be sent again after it was still hard to get through."""
    due_ns = START_NS + round(first_sent_s * S)
    first = turn(0, sent_s=first_sent_s, events=0, output_tokens=None, outcome="http_5xx", due_ns=due_ns)
    again = turn(0, attempt=2, sent_s=first_sent_s + 1, due_ns=due_ns)
    made.turns = [again, first, turn(1)]
    assert cell_of(summary_of(made))["turns"] == counted


def test_a_record_written_twice_counts_once(made: MadeRun) -> None:
    made.turns = [turn(0), turn(0), turn(1)]
    assert cell_of(summary_of(made))["turns"] == 2


def test_turns_belong_to_the_level_in_which_they_were_sent(made: MadeRun) -> None:
    made.levels = [level(0), level(1, start_s=100, window_s=(105, 125), end_s=130, users=8)]
    made.turns = [turn(0, sent_s=60, ttft_ms=100), turn(1, sent_s=110, ttft_ms=300), turn(2, sent_s=102)]
    summary = summary_of(made)
    assert cell_of(summary, level=0)["ttft_ms"]["mean"] == 100
    assert cell_of(summary, level=1)["ttft_ms"]["mean"] == 300
    assert cell_of(summary, level="all")["turns"] == 2


def test_a_workers_clock_offset_is_taken_off_before_levels_are_given(made: MadeRun) -> None:
    made.manifest["workers"] = [
        {"index": 0, "clock_offset_ns": 0},
        {"index": 1, "clock_offset_ns": 1000 * S},
    ]
    made.turns = [turn(0, sent_s=1010, worker=1, ttft_ms=100)]
    cell = cell_of(summary_of(made))
    assert cell["ttft_ms"]["mean"] == 100
    assert cell["response_delay_ms"]["mean"] == 100


def test_cut_turns_are_not_measured(made: MadeRun) -> None:
    made.turns = [turn(0), turn(1, outcome="cut")]
    assert cell_of(summary_of(made))["turns"] == 1


def test_tasks_and_their_pool_are_separate_cells(made: MadeRun) -> None:
    made.turns = [turn(0, task="qa", ttft_ms=100), turn(1, task="sum", ttft_ms=300)]
    summary = summary_of(made)
    assert cell_of(summary, "qa")["ttft_ms"]["mean"] == 100
    assert cell_of(summary, "sum")["ttft_ms"]["mean"] == 300
    assert cell_of(summary)["ttft_ms"]["mean"] == 200


def test_gaps_between_events_are_pooled_inside_turns_and_never_across_them(made: MadeRun) -> None:
    rng = random.Random(3)
    made.turns = [turn(n, gap_ms=rng.uniform(10, 30), events=5) for n in range(40)]
    made.turns.append(turn(50, events=0, outcome="empty", output_tokens=None))
    found = cell_of(summary_of(made))["itl_ms"]
    gaps = [b - a for r in made.turns for a, b in zip(r.event_us, r.event_us[1:], strict=False)]
    assert found["n"] == 160
    assert found["mean"] == pytest.approx(np.mean(gaps) / 1000)
    assert found["p50"] == pytest.approx(np.quantile(gaps, 0.5) / 1000)


def test_gaps_have_no_percentiles_where_over_one_percent_of_events_are_coalesced(made: MadeRun) -> None:
    made.turns = [turn(n, coalesced=1, events=50) for n in range(40)]
    found = cell_of(summary_of(made))["itl_ms"]
    assert found["n"] == 40 * 49
    assert found["p50"] is None


def test_cached_share_and_text_rates_are_ratios_of_sums(made: MadeRun) -> None:
    one = turn(0, ttft_ms=500, events=1, prompt_tokens=100, cached_tokens=0, chars=10, words=2)
    two = turn(1, ttft_ms=500, events=1, prompt_tokens=300, cached_tokens=200, chars=30, words=6)
    made.turns = [one, two]
    cell = cell_of(summary_of(made))
    assert cell["cached_share"] == pytest.approx(0.5)
    assert (cell["chars_per_s"], cell["words_per_s"]) == (pytest.approx(40), pytest.approx(8))


def test_a_server_that_tells_no_cached_tokens_leaves_the_share_unknown(made: MadeRun) -> None:
    made.turns = [turn(0)]
    assert cell_of(summary_of(made))["cached_share"] is None


def test_goodput_asks_for_all_limits_at_once(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 200, "tpot_ms": 50, "share": 0.5}}
    slow_start, slow_flow = turn(1, ttft_ms=300), turn(2, gap_ms=60)
    one_token = turn(3, ttft_ms=100, events=1)  # a null TPOT passes
    failed = turn(4, outcome="http_5xx", events=0, output_tokens=None)
    made.turns = [turn(0), slow_start, slow_flow, one_token, failed]
    assert cell_of(summary_of(made))["turn_goodput_per_s"] == pytest.approx(2 / 60)


def test_a_conversation_is_good_only_if_every_turn_is(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 200}}
    good = [turn(0, 1), turn(0, 2, sent_s=12, last=True)]
    spoilt = [turn(1, 1), turn(1, 2, sent_s=12, ttft_ms=900, last=True)]
    was_cut = [turn(2, 1), turn(2, 2, sent_s=66, outcome="cut", last=True)]
    early = [turn(3, 1, sent_s=1), turn(3, 2, sent_s=12, last=True)]  # began before the window
    made.turns = good + spoilt + was_cut + early
    cell = cell_of(summary_of(made))
    assert cell["conversation_goodput_per_s"] == pytest.approx(1 / 60)
    assert cell["conversations_cut"] == 1


def test_a_conversation_that_the_levels_end_found_between_two_turns_is_cut_and_not_good(
    made: MadeRun,
) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 200}}
    made.turns = [turn(0, 1), turn(0, 2, sent_s=12), turn(1, 1, last=True)]
    cell = cell_of(summary_of(made))
    assert cell["conversation_goodput_per_s"] == pytest.approx(1 / 60)
    assert cell["conversations_cut"] == 1


def test_conversations_of_a_task_without_limits_are_neither_good_nor_bad(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 200}}
    made.turns = [turn(0, last=True), turn(1, task="free", last=True)]
    summary = summary_of(made)
    assert cell_of(summary)["conversation_goodput_per_s"] == pytest.approx(1 / 60)
    assert cell_of(summary)["turn_goodput_per_s"] == pytest.approx(1 / 60)
    assert cell_of(summary, "free")["conversation_goodput_per_s"] is None


def test_without_limits_there_is_no_goodput(made: MadeRun) -> None:
    made.turns = [turn(0)]
    cell = cell_of(summary_of(made))
    assert cell["turn_goodput_per_s"] is None
    assert cell["conversation_goodput_per_s"] is None


def test_fluidity_uses_the_limits_of_the_task(made: MadeRun) -> None:
    made.turns = [turn(0, ttft_ms=1500, gap_ms=90, events=10)]
    assert cell_of(summary_of(made))["fluidity"] == 1.0
    strict = MadeRun(made.path.with_name("b"), made.turns)
    strict.manifest["slo"] = {"chat": {"ttft_ms": 1000, "tpot_ms": 80}}
    assert cell_of(summary_of(strict))["fluidity"] < 0.5


def test_of_very_many_gaps_a_random_sample_tells_the_percentiles(made: MadeRun) -> None:
    rng = random.Random(4)
    made.turns = [turn(n, gap_ms=rng.uniform(10, 30), events=2001) for n in range(75)]
    found = cell_of(summary_of(made))["itl_ms"]
    gaps = np.concatenate([np.diff(r.event_us) for r in made.turns]) / 1000
    assert found["n"] == 150_000
    assert found["mean"] == pytest.approx(gaps.mean())
    assert found["p50"] == pytest.approx(np.quantile(gaps, 0.5), rel=0.02)
