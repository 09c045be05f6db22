"""What a scenario asks for beyond plain turns, on real processes: tools, long contexts, and wrong files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BAD = sorted((Path(__file__).parents[1] / "scenarios").glob("bad*/*"))
WRONG = [path for path in BAD if path.suffix != ".txt"]
SOME_WRONG = [
    WRONG[0],
    *(pytest.param(path, marks=pytest.mark.slow) for path in WRONG[1 :: len(WRONG) // 6]),
]


@pytest.mark.slow
def test_an_agents_tools_are_sent_and_their_results_answered(server: Any, locust: Any, tools: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = locust("--headless", "-H", at.url, "--scenario", "agent", "--levels", "3", "--hold", "2s",
                  "--warmup", "0", "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    turns = list(load.run().turns())
    assert {turn.outcome for turn in turns} <= {"ok", "cut"}
    assert max(turn.turn for turn in turns) > 2, "calls and follow-ups"
    assert tools.request_ids(load.run()) == set(at.truth())


@pytest.mark.slow
def test_a_model_without_a_system_role_plays_scenarios_that_have_one(server: Any, locust: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "8", "--model", "gemma-7b")
    load = locust("--headless", "-H", at.url, "--scenario", "tutor", "--levels", "2", "--hold", "2s",
                  "--warmup", "500ms", "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    turns = list(load.run().turns())
    refused = [turn for turn in turns if turn.outcome == "http_4xx"]
    assert {turn.attempt for turn in refused} == {1}
    assert len(refused) <= 2, "once for each of the people there at first"
    assert {turn.outcome for turn in turns} <= {"http_4xx", "ok", "cut"}


@pytest.mark.slow
def test_a_task_that_needs_more_context_than_the_model_has_is_skipped_and_listed(
    server: Any, locust: Any
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "8", "--max-model-len", "4096")
    load = locust("--headless", "-H", at.url, "--scenario", "assistants", "--levels", "4", "--hold", "2s",
                  "--warmup", "0", "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    run = load.run()
    assert run.manifest.skipped == {"rag": 8192}
    assert "rag" not in {turn.task for turn in run.turns()}
    assert "rag" not in (load.where / "scenario.yaml").read_text().partition("\nsets:")[0]
    assert load.said.count("task rag was skipped: it needs a context of 8192 tokens") == 1, "at start"
    assert load.findings() == ["skipped_task"], "what the report says at the end"


@pytest.mark.slow
def test_a_model_that_can_be_asked_nothing_is_refused(server: Any, locust: Any) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "8", "--max-model-len", "4096")
    load = locust("--headless", "-H", at.url, "--scenario", "document-qa", "--levels", "4")
    assert load.end() == 2, load.said
    assert "every task needs a context of 15000 tokens at least" in load.said
    assert at.truth() == {}


@pytest.mark.parametrize("path", SOME_WRONG, ids=lambda path: path.name)
def test_a_wrong_file_is_told_whole_before_any_request(server: Any, locust: Any, path: Path) -> None:
    at = server()
    load = locust("--headless", "-H", at.url, "--scenario", str(path), "--levels", "1", "--hold", "parsec")
    assert load.end() == 2, load.said
    told = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    for line in told:
        assert line.removeprefix(f"{path.name}:").strip() in load.said
    assert "--hold: 'parsec' is not a time" in load.said, "all mistakes at once"
    assert "Traceback" not in load.said
    assert not load.where.exists()
    assert at.truth() == {}
