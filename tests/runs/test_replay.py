"""Timed traces on real processes: each request at its own time, whatever the number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

AT_S = [0.0, 0.13, 0.13, 0.9, 1.15, 1.2, 2.4, 2.95]
TOKENS = [(374, 9), (20, 5), (900, 7), (3, 4), (51, 6), (2100, 8), (64, 5), (10, 12)]


def azure(folder: Path) -> Path:
    """A file in the layout of the Azure LLM inference trace of 2023."""
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at_s, (told, said) in zip(AT_S, TOKENS, strict=True):
        lines.append(f"2023-11-16 18:15:{46.6805900 + at_s:010.7f},{told},{said}")
    path = folder / "azure.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def mooncake(folder: Path) -> Path:
    """A file in the layout of the Mooncake traces: times in ms, prompts as blocks of 512 tokens."""
    path = folder / "mooncake.jsonl"
    with path.open("w") as file:
        for number, (at_s, (told, said)) in enumerate(zip(AT_S, TOKENS, strict=True)):
            blocks = [0, *range(number, number + told // 512)]
            row = {"timestamp": round(at_s * 1000), "input_length": told, "output_length": said}
            file.write(json.dumps(row | {"hash_ids": blocks}) + "\n")
    return path


@pytest.mark.parametrize(
    ("layout", "speed", "processes"),
    [
        pytest.param(azure, 1, 1, marks=pytest.mark.slow),
        pytest.param(azure, 0.5, 2, marks=pytest.mark.slow),
        pytest.param(mooncake, 1, 1, marks=pytest.mark.slow),
        (mooncake, 2, 2),
    ],
)
def test_a_trace_is_replayed_at_its_own_times(
    server: Any, locust: Any, tools: Any, tmp_path: Path, layout: Any, speed: float, processes: int
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms")
    load = locust(
        "--headless", "-H", at.url, "--scenario", str(layout(tmp_path)), "--warmup", "0", "--exact-tokens",
        "--no-analysis",
        *(["--replay-speed", str(speed)] if speed != 1 else []),
        *(["--processes", str(processes)] if processes > 1 else []),
    )  # fmt: skip
    assert load.end() == 0, load.said
    run = load.run()
    turns = sorted(run.turns(), key=lambda turn: turn.conversation)
    assert [turn.outcome for turn in turns] == ["ok"] * len(AT_S)
    assert [turn.output_tokens for turn in turns] == [said for _, said in TOKENS]
    assert {turn.worker for turn in turns} == set(range(processes))
    start_ns = run.manifest.levels[0].start_ns
    offsets = {worker.index: worker.clock_offset_ns for worker in run.manifest.workers}
    for turn, at_s in zip(turns, AT_S, strict=True):
        due_s = (turn.due_ns - offsets[turn.worker] - start_ns) / 1e9
        assert due_s == pytest.approx(at_s / speed, abs=0.002), "workers' clocks are known to that"
    assert f"{len(AT_S)} due in the window" in load.said
    assert "start lateness p50" in load.said
    assert "p99" in load.said
    assert run.manifest.settings["replay_speed"] == speed
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.slow
def test_rows_that_the_model_has_no_context_for_are_passed_over_and_told(
    server: Any, locust: Any, tmp_path: Path
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--max-model-len", "1200")
    load = locust("--headless", "-H", at.url, "--scenario", str(azure(tmp_path)), "--warmup", "0",
                  "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    run = load.run()
    assert sorted(turn.conversation for turn in run.turns()) == [0, 1, 2, 3, 4, 6, 7]
    assert {turn.outcome for turn in run.turns()} == {"ok"}
    assert "1 of 8 rows were skipped" in load.said
    (level,) = run.manifest.levels
    assert level.arrivals.due == 7
    assert level.arrivals.begun_per_s == pytest.approx(level.arrival_rate_per_s, rel=1e-3)


@pytest.mark.slow
def test_a_replay_with_nothing_to_measure_is_refused(server: Any, locust: Any, tmp_path: Path) -> None:
    at = server()
    load = locust("--headless", "-H", at.url, "--scenario", str(azure(tmp_path)), "--warmup", "9s")
    assert load.end() == 2, load.said
    assert "no request of azure is due between 9 s and 3.95 s of its replay" in load.said
    assert at.truth() == {}
