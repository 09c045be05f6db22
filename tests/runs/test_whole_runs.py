"""Whole runs that end as planned: what the server saw is what the run directory holds."""

from __future__ import annotations

import os
import pty
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


def test_master_and_two_workers_hold_exactly_the_turns_of_the_truth_log(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at, port = server("--ttft", "200ms", "--itl", "10ms", "--tokens", "40"), str(tools.free_port())
    master = headless(at, "--no-analysis", "--levels", "60,120", "--hold", "2s",
                      "--warmup", "1s", "--master", "--expect-workers", "2",
                      "--master-bind-port", port)  # fmt: skip
    workers = [locust("--worker", "--master-port", port) for _ in range(2)]
    assert master.end() == 0, master.said
    assert [worker.end() for worker in workers] == [0, 0]
    run = master.run()
    assert master.findings() == []
    assert {turn.worker for turn in run.turns()} == {0, 1}
    assert len(run.manifest.workers) == 2
    ids = tools.request_ids(run)
    assert len(ids) > 400
    assert ids == set(at.truth())
    conversations = [turn.conversation for turn in run.turns() if turn.turn == 1 and turn.attempt == 1]
    assert len(conversations) == len(set(conversations)), "two workers played one conversation"


@pytest.mark.slow
def test_forked_workers_yield_the_same_run_directory(server: Any, headless: Any, tools: Any) -> None:
    at = server()
    load = headless(
        at, "--no-analysis", "--levels", "6", "--hold", "2s", "--warmup", "500ms", "--processes", "2"
    )
    assert load.end() == 0, load.said
    run = load.run()
    assert {turn.worker for turn in run.turns()} == {0, 1}
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.slow
def test_once_plays_every_conversation_of_a_finite_scenario_exactly_once(server: Any, headless: Any) -> None:
    load = headless(
        server("--ttft", "5ms", "--itl", "1ms", "--tokens", "3"),
        "--no-analysis",
        "--once",
        "-u",
        "8",
        "-r",
        "8",
    )
    assert load.end() == 0, load.said
    played = Counter(turn.conversation for turn in load.run().turns())
    assert sorted(played) == list(range(660))
    assert set(played.values()) == {1}


@pytest.mark.slow
def test_a_smaller_level_after_a_larger_one_has_its_own_people_only(
    server: Any, headless: Any, tools: Any
) -> None:
    at = server("--ttft", "300ms", "--itl", "20ms")
    load = headless(at, "--no-analysis", "--levels", "6,1", "--hold", "2s", "--warmup", "0", "-r", "100",
                    "--exact-tokens", "--max-tokens", "30")  # fmt: skip
    assert load.end() == 0, load.said
    run = load.run()
    small = run.manifest.levels[1]
    inside = [t for t in run.turns() if t.sent_ns is not None and t.sent_ns >= small.start_ns]
    assert inside
    spans = sorted((t.sent_ns, t.end_ns) for t in inside)
    overlaps = [1 for (_, end), (begin, _) in pairwise(spans) if begin < end - 50_000_000]
    assert not overlaps, "two streams ran at once in a level of one person"
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.slow
def test_once_with_fewer_people_than_workers_is_refused(server: Any, headless: Any) -> None:
    load = headless(server(), "--no-analysis", "--once", "-u", "1", "--processes", "2")
    assert load.end() == 2, load.said
    assert "need at least as many people" in load.said


@pytest.mark.slow
def test_no_key_typed_in_the_terminal_changes_the_load(server: Any, headless: Any, tools: Any) -> None:
    """Locust's own w, W, s and S would add and take people behind the record's back."""
    ours, theirs = pty.openpty()
    load = headless(server(), "--no-analysis", "--levels", "2", "--hold", "2s", "--warmup", "0", stdin=theirs)
    load.wait_for_turns(1)
    os.write(ours, b"WWw")
    assert load.end() == 0, load.said
    os.close(ours)
    os.close(theirs)
    assert max(sample.in_flight for sample in load.run().health()) <= 2


@pytest.mark.slow
def test_a_server_that_compresses_its_streams_unasked_is_found_out(
    locust: Any, own_server: Any, tmp_path: Path
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("format: turnbench-faults/1\nfaults:\n  - {fault: gzip, every: 1}\n")
    at = own_server("--ttft", "20ms", "--itl", "5ms", "--tokens", "4", "--faults", str(faults))
    load = locust(
        "--headless", "-H", at.url, "-u", "2", "-r", "20", "-t", "2s", "--warmup", "0", "--no-analysis"
    )
    assert load.end() == 0
    assert {turn.outcome for turn in load.run().turns()} <= {"ok", "cut", "unfinished"}
    assert load.findings() == ["compressed"]
