"""Open loop on real processes: the asked rate, workers that share it, and a server that freezes."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
import scipy


def first_turns(run: Any) -> list[Any]:
    return sorted((t for t in run.turns() if t.turn == 1 and t.attempt == 1), key=lambda t: t.due_ns)


@pytest.mark.slow
def test_conversations_arrive_at_the_asked_rate_in_the_asked_gaps(
    server: Any, headless: Any, tools: Any
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = headless(at, "--arrival-rate", "40", "--burstiness", "0.5", "-t", "6s", "--warmup", "1500ms",
                    "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    run = load.run()
    (level,) = run.manifest.levels
    assert (level.users, level.arrival_rate_per_s) == (None, 40.0)
    assert abs(level.arrivals.begun_per_s / 40 - 1) < 0.01
    assert "start lateness" in load.said
    due_s = np.array([turn.due_ns for turn in first_turns(run)]) / 1e9
    assert scipy.stats.kstest(np.diff(due_s), scipy.stats.gamma(0.5, scale=1 / 20).cdf).pvalue > 0.01
    ledger = tools.ledger_of(run)
    assert ledger["planned"] == ledger["begun"] + ledger["dropped"]
    assert ledger["begun"] == ledger["finished"]
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.slow
def test_workers_share_one_plan_of_arrivals(server: Any, headless: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    options = ["--arrival-rate", "40", "-t", "3s", "--warmup", "0", "--seed", "3", "--no-analysis"]
    alone = headless(at, *options)
    assert alone.end() == 0, alone.said
    shared = headless(at, *options, "--processes", "2")
    assert shared.end() == 0, shared.said
    plans = []
    for load in (alone, shared):
        turns = first_turns(load.run())[:100]
        assert sorted(turn.conversation for turn in turns) == list(range(100))
        start_ns = load.run().manifest.levels[0].start_ns
        plans.append({turn.conversation: (turn.due_ns - start_ns) / 1e6 for turn in turns})
    assert all(abs(plans[0][k] - plans[1][k]) < 50 for k in range(100)), "the two plans differ"
    assert {turn.worker for turn in shared.run().turns()} == {0, 1}
    assert all(turn.conversation % 2 == turn.worker for turn in shared.run().turns()), "played by another"


@pytest.mark.slow
def test_a_server_frozen_for_three_seconds_shows_in_every_turn_that_came_due(
    own_server: Any, headless: Any, tools: Any
) -> None:
    at = own_server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = headless(at, "--arrival-rate", "20", "-t", "7s", "--warmup", "0", "--no-analysis")
    load.wait_for_turns(10)
    at.process.send_signal(signal.SIGSTOP)
    frozen = tools.now_ns()
    due = frozen + int(3e9)
    tools.wait_until(lambda: tools.now_ns() > due, "three seconds", 15)
    thawed = tools.now_ns()
    at.process.send_signal(signal.SIGCONT)
    assert load.end() == 0, load.said
    turns = [t for t in first_turns(load.run()) if frozen + int(3e8) < t.due_ns < thawed - int(2e8)]
    assert abs(len(turns) - 50) < 25, "arrivals went on while the server was frozen"
    for turn in turns:
        assert turn.outcome == "ok", turn.error
        seen_ns = turn.sent_ns + turn.event_us[0] * 1000
        assert seen_ns - turn.due_ns >= thawed - turn.due_ns - int(5e7)


@pytest.mark.slow
def test_steps_of_a_rate_are_levels_of_one_run(server: Any, headless: Any, tools: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = headless(at, "--arrival-rate", "30,60", "--hold", "2s", "--warmup", "500ms", "--no-analysis")
    assert load.end() == 0, load.said
    run = load.run()
    levels = run.manifest.levels
    assert [level.arrival_rate_per_s for level in levels] == [30.0, 60.0]
    for level in levels:
        assert level.window_end_ns - level.window_start_ns == int(2e9)
        assert abs(level.arrivals.due / (2 * level.arrival_rate_per_s) - 1) < 0.35
    assert "level 2 of 2: 60 arrivals/s, warm-up over, measuring for " in load.said
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.slow
def test_a_ramp_rises_within_its_level(server: Any, headless: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = headless(at, "--arrival-rate", "10..70", "-t", "6s", "--warmup", "1s", "--no-analysis")
    assert load.end() == 0, load.said
    run = load.run()
    (level,) = run.manifest.levels
    assert level.arrival_ramp_per_s == [10.0, 70.0]
    assert level.arrival_rate_per_s == 45.0
    assert abs(level.arrivals.due / 225 - 1) < 0.2
    second = [int((turn.due_ns - level.start_ns) / 1e9) for turn in first_turns(run)]
    assert second.count(5) > 2 * second.count(1), "the rate did not rise"
