"""Every metric of a run whose times were drawn from stated laws, against its definition, token by token.

The truth is computed from what was drawn, by plain loops over tokens and words; analysis sees the records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.summary import summarise
from analysis.turns.study import study_run
from tests.analysis.conftest import MadeRun, cell_of, level
from tests.analysis.drawn import WINDOWS_S, Drawn, drawn_run, record_of
from turnbench.formats import summary_json
from turnbench.metrics import METRICS
from turnbench.run_directory import read_run

LIMITS_MS = {"ttft_ms": 300.0, "tpot_ms": 40.0}
WORDS_PER_MIN = 200.0


def _stall_ms(one: Drawn) -> float:
    """A reader goes through the answer's words one by one and waits wherever one has not come yet."""
    clock, stalled = float("nan"), 0.0
    for index, (at, words) in enumerate(zip(one.event_ms, one.event_words, strict=True)):
        for _ in range(words if index >= one.reasoning_events else 0):
            if np.isnan(clock):
                clock = at
            stalled += max(at - clock, 0.0)
            clock = max(at, clock) + 60_000 / WORDS_PER_MIN
    return stalled if not np.isnan(clock) else float("nan")


def _fluid(one: Drawn) -> tuple[int, int]:
    due, met, missed = LIMITS_MS["ttft_ms"], 0, 0
    for at in one.at_ms:
        if at <= due:
            met, due = met + 1, due + LIMITS_MS["tpot_ms"]
        else:
            missed += int((at - due) // LIMITS_MS["tpot_ms"]) + 1
            due = at + LIMITS_MS["tpot_ms"]
    return met, met + missed


def _tpot_ms(one: Drawn) -> float:
    later = len(one.at_ms) - one.event_tokens[0]
    return (one.at_ms[-1] - one.at_ms[0]) / later if later else float("nan")


def _meets(one: Drawn) -> bool:
    return one.at_ms[0] <= LIMITS_MS["ttft_ms"] and not _tpot_ms(one) > LIMITS_MS["tpot_ms"]


OF_A_TURN: dict[str, Callable[[Drawn], float]] = {
    "ttft_ms": lambda one: one.at_ms[0],
    "ttfat_ms": lambda one: one.event_ms[one.reasoning_events],
    "response_delay_ms": lambda one: one.at_ms[0] + one.late_ms,
    "ttg_ms": lambda one: one.at_ms[-1],
    "ttg256_ms": lambda one: one.at_ms[255] if len(one.at_ms) >= 256 else float("nan"),
    "tpot_ms": _tpot_ms,
    "decode_tokens_per_s": lambda one: 1000 / _tpot_ms(one),
    "request_tps": lambda one: one.tokens / (one.at_ms[-1] / 1000),
    "stall_ms": _stall_ms,
    "output_tokens": lambda one: float(one.tokens),
}


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return drawn_run()


@pytest.fixture(scope="module")
def study(drawn: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = MadeRun(tmp_path_factory.mktemp("truth") / "run", [record_of(one) for one in drawn])
    made.levels = [
        level(n, start_s=n * 100, window_s=window, end_s=n * 100 + 99, users=8 * (n + 1))
        for n, window in enumerate(WINDOWS_S)
    ]
    slo = {task: LIMITS_MS | {"share": 0.5} for task in ("qa", "chat")}
    made.manifest = {"slo": slo, "ended_at": None}
    return study_run(read_run(made.write()), WORDS_PER_MIN)


@pytest.fixture(scope="module")
def summary(study: Any) -> dict[str, Any]:
    return summary_json(summarise(study))


def _in_cell(drawn: list[Drawn], task: str, at_level: int | str) -> list[Drawn]:
    """Measured turns of a cell: sent in a window of its level."""
    return [
        one
        for one in drawn
        if task in ("all", one.task)
        and at_level in ("all", one.level)
        and one.start_ms < WINDOWS_S[one.level][1] * 1e3
    ]


CELLS = [(task, at_level) for task in ("qa", "chat", "all") for at_level in (0, 1, "all")]


def test_every_metric_of_a_turn_has_a_plain_twin_here() -> None:
    assert {key for key, one in METRICS.items() if one.per == "turn"} == set(OF_A_TURN)


@pytest.mark.parametrize("name", OF_A_TURN)
def test_a_metric_of_every_turn_is_recovered(name: str, drawn: list[Drawn], study: Any) -> None:
    column = {"output_tokens": "tokens"}.get(name, name)
    found = study.frame.set_index(["conversation", "turn"])[column]
    truth = [OF_A_TURN[name](one) for one in drawn]
    seen = [found[one.talk, one.number] for one in drawn]
    np.testing.assert_allclose(seen, truth, rtol=1e-6, atol=2e-3)
    assert np.isfinite(truth).sum() > 20


@pytest.mark.parametrize(("task", "at_level"), CELLS)
def test_the_pooled_distribution_of_every_metric_is_recovered(
    task: str, at_level: int | str, drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    cell = cell_of(summary, task, at_level)
    mine = _in_cell(drawn, task, at_level)
    assert cell["turns"] == len(mine)
    for name, of_turn in OF_A_TURN.items():
        truth = np.array([of_turn(one) for one in mine])
        truth = truth[np.isfinite(truth)]
        assert cell[name]["n"] == len(truth), name
        assert cell[name]["mean"] == pytest.approx(truth.mean(), rel=1e-6, abs=2e-3), name
        for key, quantile in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95)):
            if cell[name][key] is not None:
                assert cell[name][key] == pytest.approx(np.quantile(truth, quantile), rel=1e-6, abs=2e-3)
    assert cell["ttft_ms"]["p90"] is not None


@pytest.mark.parametrize(("task", "at_level"), CELLS)
def test_gaps_between_events_are_recovered(
    task: str, at_level: int | str, drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    truth = np.concatenate([np.diff(one.event_ms) for one in _in_cell(drawn, task, at_level)])
    found = cell_of(summary, task, at_level)["itl_ms"]
    assert (found["n"], found["mean"]) == (len(truth), pytest.approx(truth.mean(), rel=1e-4))
    assert found["p50"] == pytest.approx(np.quantile(truth, 0.5), abs=2e-3)


@pytest.mark.parametrize(("task", "at_level"), CELLS)
def test_the_speeds_of_a_cell_are_recovered(
    task: str, at_level: int | str, drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    cell = cell_of(summary, task, at_level)
    mine = _in_cell(drawn, task, at_level)
    all_s = sum(one.at_ms[-1] for one in mine) / 1000
    assert cell["tps"] == pytest.approx(sum(one.tokens for one in mine) / all_s)
    words = sum(sum(one.event_words) for one in mine)
    assert cell["words_per_s"] == pytest.approx(words / all_s)
    assert cell["chars_per_s"] == pytest.approx(6 * words / all_s)
    shares = sum(one.cached_tokens for one in mine), sum(one.prompt_tokens for one in mine)
    assert cell["cached_share"] == pytest.approx(shares[0] / shares[1])
    fluid = np.sum([_fluid(one) for one in mine], axis=0)
    assert cell["fluidity"] == pytest.approx(fluid[0] / fluid[1])


@pytest.mark.parametrize(("task", "at_level"), CELLS)
def test_tokens_are_counted_in_the_window_in_which_they_arrived(
    task: str, at_level: int | str, drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    count, window_s = 0, 0.0
    for number in (0, 1) if at_level == "all" else (int(at_level),):
        begin, end = (edge * 1e3 for edge in WINDOWS_S[number])
        window_s += (end - begin) / 1e3
        for one in drawn:
            if task in ("all", one.task):
                at_ms = [one.start_ms + at for at in [*one.at_ms, one.at_ms[-1]]]  # the stop token at the end
                count += sum(begin <= at < end for at in at_ms)
    assert cell_of(summary, task, at_level)["aggregate_tps"] == pytest.approx(count / window_s, rel=1e-9)


@pytest.mark.parametrize(("task", "at_level"), CELLS)
def test_goodput_of_turns_and_of_conversations_is_recovered(
    task: str, at_level: int | str, drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    cell = cell_of(summary, task, at_level)
    window_s = 120.0 if at_level == "all" else 60.0
    mine = _in_cell(drawn, task, at_level)
    assert cell["turn_goodput_per_s"] == pytest.approx(sum(map(_meets, mine)) / window_s)
    talks: dict[int, list[Drawn]] = {}
    for one in drawn:
        if task in ("all", one.task) and at_level in ("all", one.level):
            talks.setdefault(one.talk, []).append(one)
    good = sum(all(map(_meets, talk)) for talk in talks.values())
    assert 0 < good < len(talks)
    assert cell["conversation_goodput_per_s"] == pytest.approx(good / window_s)


def test_waiting_by_turn_and_by_context_is_recovered(drawn: list[Drawn], summary: dict[str, Any]) -> None:
    for found in summary["by_turn"]:
        mine = [one for one in _in_cell(drawn, "all", found["level"]) if one.number == found["turn"]]
        _same(found, mine)
    for found in summary["by_context"]:
        low, high = found["context_tokens"]
        mine = [one for one in _in_cell(drawn, "all", found["level"]) if low <= one.prompt_tokens < high]
        cached = found["prefix"] == "cached"
        _same(found, [one for one in mine if (one.cached_tokens * 2 >= one.prompt_tokens) == cached])
    assert {found["turn"] for found in summary["by_turn"]} == {1, 2, 3, 4}
    assert len(summary["by_context"]) >= 6
    first, fourth = (next(f for f in summary["by_turn"] if f["turn"] == turn) for turn in (1, 4))
    assert fourth["ttft_ms"]["p50"] > first["ttft_ms"]["p50"]  # the law: TTFT grows with the prompt


def _same(found: dict[str, Any], mine: list[Drawn]) -> None:
    assert found["n"] == len(mine)
    assert found["ttft_ms"]["mean"] == pytest.approx(np.mean([one.at_ms[0] for one in mine]), rel=1e-6)
    assert found["ttg_ms"]["mean"] == pytest.approx(np.mean([one.at_ms[-1] for one in mine]), rel=1e-6)
    for key in ("prompt_tokens", "cached_tokens", "expected_cached"):
        assert found[f"{key}_mean"] == pytest.approx(np.mean([getattr(one, key) for one in mine]))


def test_conversations_are_told_from_their_first_due_to_their_last_end(
    drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    for number, found in enumerate(summary["levels"]):
        talks = [[o for o in drawn if o.talk == talk] for talk in range(number, 240, 2)]
        spans = [
            talk[-1].start_ms + talk[-1].at_ms[-1] - talk[0].start_ms + talk[0].late_ms for talk in talks
        ]
        assert found["conversations"]["completed"] == len(talks) == 120
        assert found["conversations"]["duration_ms"]["mean"] == pytest.approx(np.mean(spans), rel=1e-6)


def test_streams_in_flight_are_the_time_spent_in_the_window(
    drawn: list[Drawn], summary: dict[str, Any]
) -> None:
    for (begin, end), found in zip(WINDOWS_S, summary["levels"], strict=True):
        spent = sum(
            max(min(one.start_ms + one.at_ms[-1], end * 1e3) - max(one.start_ms, begin * 1e3), 0.0)
            for one in drawn
        )
        assert found["streams_mean"] == pytest.approx(spent / 1e3 / (end - begin), rel=1e-6)


def test_the_readers_speed_can_be_set(drawn: list[Drawn], tmp_path: Any) -> None:
    one = next(one for one in drawn if _stall_ms(one) > 0)
    run = read_run(MadeRun(tmp_path / "run", [record_of(one)]).write())
    slow, fast = (float(study_run(run, speed).frame["stall_ms"].iloc[0]) for speed in (100, 1000))
    assert slow < _stall_ms(one) < fast
