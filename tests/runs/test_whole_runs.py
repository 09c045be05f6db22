"""Whole runs that end as planned: what the server saw is what the run directory holds."""

from __future__ import annotations

import os
import pty
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scenarios import parse, plan


@pytest.fixture(scope="module")
def choose(server: Any, locust_once: Any) -> tuple[Any, dict[str, Any]]:
    """An analysed run of two levels with a key and a secret header, and what the server saw of it."""
    at = server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_TOKEN", "hush-hush-token")
        patch.setenv("OPENAI_API_KEY", "sk-very-secret")
        load = locust_once("--headless", "-H", at.url, "--scenario", "choose", "--levels", "2,5",
                           "--hold", "2s", "--warmup", "500ms", "--header", "X-Token: $MY_TOKEN",
                           "--label", "gpu=none", "--seed", "7", "--salt", "abc123")  # fmt: skip
        load.end_as_judged()
    return load, at.truth()


@pytest.mark.xdist_group("choose")
def test_a_headless_sweep_records_every_turn_that_the_server_saw(choose: Any, tools: Any) -> None:
    load, truth = choose
    run = load.run()
    assert run.manifest.status == "finished"
    assert run.manifest.exit_code == load.process.returncode
    assert run.manifest.emulated is True
    assert [level.users for level in run.manifest.levels] == [2, 5]
    assert run.manifest.settings["users"] is None, "nobody asked for a number of people"
    measuring = r"level 2 of 2: 5 people, warm-up over, measuring for \d+ s; at least \d+ s left"
    assert re.search(measuring, load.said), load.said
    assert re.search(r"level 2 of 2: 5 people: over; \d+ turns done, 0 failed", load.said), load.said
    assert "No run time limit" not in load.said
    assert tools.request_ids(run) == set(truth)
    assert "EMULATED" in load.said
    assert (load.where / "report.html").exists()


@pytest.mark.xdist_group("choose")
def test_the_token_counts_of_every_turn_are_the_servers_own(choose: Any) -> None:
    load, truth = choose
    turns = [turn for turn in load.run().turns() if turn.outcome == "ok"]
    assert turns
    for turn in turns:
        entry = truth[f"{turn.run}/{turn.conversation}/{turn.turn}/{turn.attempt}"]
        assert turn.output_tokens == entry["output_tokens"]


@pytest.mark.xdist_group("choose")
def test_settings_are_recorded_and_secrets_are_not(choose: Any) -> None:
    load, _ = choose
    assert (load.where / "report.html").exists()
    manifest = load.run().manifest
    assert manifest.labels == {"gpu": "none"}
    assert (manifest.seed, manifest.salt) == (7, "abc123")
    assert manifest.settings["headers"] == {"X-Token": "***"}
    for file in load.where.iterdir():
        content = file.read_bytes()
        assert b"hush-hush-token" not in content, file
        assert b"sk-very-secret" not in content, file


@pytest.mark.xdist_group("choose")
def test_health_lines_close_the_ledger_of_a_finished_run(choose: Any, tools: Any) -> None:
    run = choose[0].run()
    ledger = tools.ledger_of(run)
    assert ledger["planned"] == ledger["begun"] + ledger["dropped"]
    assert ledger["begun"] == ledger["finished"] == len({(t.conversation, t.turn) for t in run.turns()})
    samples = list(run.health())
    assert samples[-1].in_flight == 0


@pytest.fixture(scope="module")
def chat(server: Any, locust_once: Any) -> Any:
    """A run of conversations with follow-up turns."""
    at = server("--ttft", "5ms", "--itl", "1ms", "--tokens", "5")
    load = locust_once("--headless", "--no-analysis", "-H", at.url, "--scenario", "chat", "--levels", "4",
                       "--hold", "2s", "--warmup", "0", "--max-tokens", "5", "--seed", "3")  # fmt: skip
    assert load.end() == 0, load.said
    return load.run()


@pytest.mark.xdist_group("chat")
def test_follow_up_turns_answer_the_servers_real_replies(chat: Any) -> None:
    by_turn: dict[int, list[int]] = {}
    for turn in chat.turns():
        if turn.outcome == "ok" and turn.prompt_tokens:
            by_turn.setdefault(turn.turn, []).append(turn.prompt_tokens)
    assert max(by_turn) >= 3
    mean = {turn: sum(tokens) / len(tokens) for turn, tokens in by_turn.items()}
    assert mean[1] < mean[2] < mean[3], "the history did not grow with the conversation"


@pytest.mark.xdist_group("chat")
def test_the_record_says_which_turn_ends_its_conversation_by_plan(chat: Any) -> None:
    scenario = parse(chat.scenario_text() or "")
    for turn in chat.turns():
        planned = plan(scenario, 3, turn.conversation)
        assert turn.last == (turn.turn == len(planned.turns))


def test_master_and_two_workers_hold_exactly_the_turns_of_the_truth_log(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at, port = server("--ttft", "200ms", "--itl", "10ms", "--tokens", "40"), str(tools.free_port())
    master = headless(at, "--no-analysis", "--levels", "100,200", "--hold", "3s",
                      "--warmup", "1s", "--master", "--expect-workers", "2",
                      "--master-bind-port", port)  # fmt: skip
    workers = [locust("--worker", "--master-port", port) for _ in range(2)]
    assert master.end() == 0, master.said
    assert [worker.end() for worker in workers] == [0, 0]
    run = master.run()
    assert run.manifest.findings == []
    assert {turn.worker for turn in run.turns()} == {0, 1}
    assert len(run.manifest.workers) == 2
    ids = tools.request_ids(run)
    assert len(ids) > 400
    assert ids == set(at.truth())
    conversations = [turn.conversation for turn in run.turns() if turn.turn == 1 and turn.attempt == 1]
    assert len(conversations) == len(set(conversations)), "two workers played one conversation"


def test_forked_workers_yield_the_same_run_directory(server: Any, headless: Any, tools: Any) -> None:
    at = server()
    load = headless(
        at, "--no-analysis", "--levels", "6", "--hold", "2s", "--warmup", "500ms", "--processes", "2"
    )
    assert load.end() == 0, load.said
    run = load.run()
    assert {turn.worker for turn in run.turns()} == {0, 1}
    assert tools.request_ids(run) == set(at.truth())


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


def test_a_smaller_level_after_a_larger_one_has_its_own_people_only(
    server: Any, headless: Any, tools: Any
) -> None:
    at = server("--ttft", "300ms", "--itl", "20ms")
    load = headless(at, "--no-analysis", "--levels", "6,1", "--hold", "3s", "--warmup", "0", "-r", "100",
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


def test_once_with_fewer_people_than_workers_is_refused(server: Any, headless: Any) -> None:
    load = headless(server(), "--no-analysis", "--once", "-u", "1", "--processes", "2")
    assert load.end() == 2, load.said
    assert "need at least as many people" in load.said


def test_no_key_typed_in_the_terminal_changes_the_load(server: Any, headless: Any, tools: Any) -> None:
    """Locust's own w, W, s and S would add and take people behind the record's back."""
    ours, theirs = pty.openpty()
    load = headless(server(), "--no-analysis", "--levels", "2", "--hold", "3s", "--warmup", "0", stdin=theirs)
    load.wait_for_turns(1)
    os.write(ours, b"WWw")
    assert load.end() == 0, load.said
    os.close(ours)
    os.close(theirs)
    assert max(sample.in_flight for sample in load.run().health()) <= 2


def test_a_server_that_compresses_its_streams_unasked_is_found_out(
    locust: Any, own_server: Any, tmp_path: Path
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("format: turnbench-faults/1\nfaults:\n  - {fault: gzip, every: 1}\n")
    at = own_server("--ttft", "20ms", "--itl", "5ms", "--tokens", "4", "--faults", str(faults))
    load = locust(
        "--headless", "-H", at.url, "-u", "2", "-r", "2", "-t", "3s", "--warmup", "0", "--no-analysis"
    )
    assert load.end() == 0
    assert {turn.outcome for turn in load.run().turns()} <= {"ok", "cut", "unfinished"}
    assert [finding.check for finding in load.run().manifest.findings] == ["compressed"]
