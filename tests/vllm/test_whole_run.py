"""The main job against a real model on a real vLLM: what we count is what the server counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest

from tests.verdicts import exit_code_of
from turnbench.formats import TurnRecord
from turnbench.run_directory import RunDirectory, read_run

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
SCENARIO = """\
format: turnbench-scenario/1
name: short
tasks:
  - {from: choose, limit: 40}
  - {from: explain, limit: 12}
  - {from: chat, limit: 6, once: true, turns: 3, max_tokens: 48}
"""
"""So many conversations, however long a busy machine takes for them."""
TURNS = 40 + 12 + 6 * 3


def counter(url: str, name: str) -> float:
    with urllib.request.urlopen(url + "/metrics", timeout=10) as page:
        text = page.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


@pytest.fixture(scope="module")
def played(smol_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, float]]:
    """The study's tasks and chat, and by how much the server's own counters grew meanwhile."""
    where = tmp_path_factory.mktemp("vllm") / "run"
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = {name: counter(smol_url, name) for name in names}
    command = ["taskset", "-c", "1", sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen")]
    scenario = where.with_name("short.yaml")
    scenario.write_text(SCENARIO)
    command += ["--headless", "-H", smol_url, "--scenario", str(scenario)]
    command += ["--levels", "4", "--once"]
    command += ["--run-dir", str(where), "--keep-text"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    print(done.stdout)
    # The verdict tells how late a busy machine's client was; that is not this test's question.
    assert done.returncode == exit_code_of(where / "summary.json"), done.stdout + done.stderr
    return read_run(where), {name: counter(smol_url, name) - before[name] for name in names}


def good(run: RunDirectory) -> list[TurnRecord]:
    return [turn for turn in run.turns() if turn.outcome == "ok"]


def test_a_sweep_is_multi_turn_and_without_failures(played: tuple[RunDirectory, dict[str, float]]) -> None:
    run, _ = played
    assert {turn.outcome for turn in run.turns()} == {"ok"}
    turns = good(run)
    assert len(turns) == TURNS
    assert max(turn.turn for turn in turns) == 3
    assert run.manifest.emulated is False
    assert run.manifest.findings == []


def test_the_tokens_of_every_turns_events_add_up_to_the_servers_usage(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    for turn in good(played[0]):
        assert turn.token_source == "continuous_usage"
        arrived = sum(turn.event_tokens) if turn.event_tokens is not None else len(turn.event_us)
        # The server counts tokens that end in no text of their own: the stop token, half a character.
        assert turn.output_tokens is not None
        assert 0 <= turn.output_tokens - arrived <= 3, turn
        if turn.finish_reason == "length":
            assert turn.output_tokens <= 512


def test_cached_tokens_grow_with_the_turn_of_a_conversation(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    cached: dict[int, list[int]] = {}
    for turn in good(played[0]):
        assert turn.cached_tokens is not None
        cached.setdefault(turn.turn, []).append(turn.cached_tokens)
    means = {number: mean(found) for number, found in cached.items()}
    assert means[1] < means[2] < means[3], means
    # A tag comes before all that first prompts share but a block of the template's own text.
    assert means[1] <= 32, "first turns were answered from an earlier conversation's cache"


def test_answers_that_are_not_cut_end_by_themselves_at_lengths_of_their_own(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    turns = good(played[0])
    ended = [turn for turn in turns if turn.finish_reason == "stop"]
    assert {turn.finish_reason for turn in turns} <= {"stop", "length"}
    assert len([turn for turn in ended if turn.task == "explain"]) > 5
    # Lengths are those that the answers came to, not limits.
    assert len({turn.output_tokens for turn in ended}) > 5


def test_every_choice_is_scored_and_the_share_of_right_ones_has_an_interval(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    run, _ = played
    choices = [turn for turn in good(run) if turn.task == "choose"]
    assert {turn.expected for turn in choices} <= set("abcd")
    right = sum(turn.right is True for turn in choices)
    cells = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))["cells"]
    (cell,) = [each for each in cells if each["task"] == "choose" and each["level"] != "all"]
    assert cell["right_share"] == pytest.approx(right / len(choices))
    low, high = cell["ci95"]["right_share"]
    assert low <= cell["right_share"] <= high
    print(f"choose: {right} of {len(choices)} right, 95 % interval {low:.0%} to {high:.0%}")


def test_the_runs_totals_are_the_servers_counters(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    run, grown = played
    turns = list(run.turns())
    output = sum(turn.output_tokens or 0 for turn in turns)
    prompt = sum(turn.prompt_tokens or 0 for turn in turns)
    print({"output": output, "prompt": prompt} | grown)
    assert output == grown["vllm:generation_tokens_total"]
    assert prompt == grown["vllm:prompt_tokens_total"]


def test_the_servers_own_metrics_were_sampled_all_along(
    played: tuple[RunDirectory, dict[str, float]],
) -> None:
    samples = list(played[0].server())
    at_s = [sample.t_ns / 1e9 for sample in samples]
    sent_s = [(turn.sent_ns or 0) / 1e9 for turn in good(played[0])]
    assert at_s[0] < min(sent_s) + 5
    assert at_s[-1] > max(sent_s) - 5
    assert max(later - earlier for earlier, later in pairwise(at_s)) < 5
    assert max(sample.values["vllm:num_requests_running"] for sample in samples) >= 3
