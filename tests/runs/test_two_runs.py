"""Two runs that end as planned, of single questions and of conversations, looked at from all sides."""

from __future__ import annotations

import re
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


def test_the_token_counts_of_every_turn_are_the_servers_own(choose: Any) -> None:
    load, truth = choose
    turns = [turn for turn in load.run().turns() if turn.outcome == "ok"]
    assert turns
    for turn in turns:
        entry = truth[f"{turn.run}/{turn.conversation}/{turn.turn}/{turn.attempt}"]
        assert turn.output_tokens == entry["output_tokens"]


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


def test_follow_up_turns_answer_the_servers_real_replies(chat: Any) -> None:
    by_turn: dict[int, list[int]] = {}
    for turn in chat.turns():
        if turn.outcome == "ok" and turn.prompt_tokens:
            by_turn.setdefault(turn.turn, []).append(turn.prompt_tokens)
    assert max(by_turn) >= 3
    mean = {turn: sum(tokens) / len(tokens) for turn, tokens in by_turn.items()}
    assert mean[1] < mean[2] < mean[3], "the history did not grow with the conversation"


def test_the_record_says_which_turn_ends_its_conversation_by_plan(chat: Any) -> None:
    scenario = parse(chat.scenario_text() or "")
    for turn in chat.turns():
        planned = plan(scenario, 3, turn.conversation)
        assert turn.last == (turn.turn == len(planned.turns))
