"""The runs of a sweep: which, in which order, on which server; and how long they will take."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnbench.formats import SweepEntry
from turnbench.sweep.forecast import (
    RUN_S,
    RunForecast,
    forecast_of,
    left_s,
    pace_of,
    scale_of,
    starts_at_once,
)
from turnbench.sweep.plan import PLAN_FORMAT, PlanError, SweepPlan
from turnbench.sweep.progress import SweepProgress
from turnbench.sweep.record import SweepRecord
from turnbench.sweep.runs import client_command, next_of, require_ready, runs_of, served_for, server_command


def plan_of(*models: str, **more: Any) -> SweepPlan:
    return SweepPlan(format=PLAN_FORMAT, name="p", models=list(models), **more)


WIDE = plan_of(
    "yi-6b", "gemma-7b", precisions=["fp16", "int8"], scenarios=["choose:8", "explain:8"],
    levels=[1, 8], variants={"natural": {}, "exact": {"exact-tokens": "on"}}, repeats=3,
    run={"once": "on", "drain": "5s"},
)  # fmt: skip


def some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), unique=True)


@given(
    some(["a", "b", "c"]).filter(bool), some(["fp16", "int8"]), some(["choose", "chat", "x/y.yaml"]),
    some([1, 4, 16]), some(["natural", "exact"]), st.integers(1, 3), st.integers(0, 5),
)  # fmt: skip
def test_every_combination_is_one_run_with_a_directory_of_its_own(
    models: list[str], precisions: list[str], scenarios: list[str], levels: list[int], variants: list[str],
    repeats: int, seed: int,
) -> None:  # fmt: skip
    plan = plan_of(
        *models, precisions=precisions, scenarios=scenarios, levels=levels,
        variants={name: {} for name in variants}, repeats=repeats, seed=seed,
    )  # fmt: skip
    runs = runs_of(plan)
    axes = [models, precisions, scenarios, levels, variants]
    assert len(runs) == repeats * math.prod(len(axis) or 1 for axis in axes)
    assert len({run.dir for run in runs}) == len(runs)
    assert runs == runs_of(plan)


def test_the_order_is_shuffled_by_the_seed() -> None:
    orders = {tuple(c.dir for c in runs_of(plan_of("a", repeats=9, seed=seed))) for seed in range(9)}
    assert len(orders) > 1
    assert len({frozenset(order) for order in orders}) == 1


def test_one_place_starts_each_server_once() -> None:
    waiting, served, starts = runs_of(WIDE), None, 0
    while waiting:
        run = next_of(waiting, served)
        starts += served_for(run) != served
        served = served_for(run)
        waiting.remove(run)
    assert starts == 4


def test_a_run_gets_the_options_of_its_run() -> None:
    (run,) = [c for c in runs_of(WIDE) if c.dir == "gemma-7b-int8-explain-8-exact-u8-r2"]
    command = client_command(WIDE, run, "http://127.0.0.1:1", Path("runs/x"))
    assert {"--once", "--exact-tokens", "--drain=5s", "--scenario=explain:8", "--levels=8"} < set(command)
    assert command[command.index("--run-dir") + 1] == f"runs/x/{run.dir}"
    served = server_command(WIDE, run)
    assert served[:2] == ["up", "gemma-7b"]
    assert served[served.index("--precision") + 1] == "int8"


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)), st.integers(1, 9))
def test_the_time_left_is_that_of_places_that_are_never_idle(
    running: list[float], waiting: list[float], places: int
) -> None:
    running = running[:places]
    left = left_s(running, waiting, places)
    assert left >= max([*running, *waiting], default=0.0)
    assert left >= (sum(running) + sum(waiting)) / places - 1e-6
    assert left <= (sum(running) + sum(waiting)) / places + max([*running, *waiting], default=0.0) + 1e-6


def test_runs_beside_each_other_are_not_added_up() -> None:
    """Once it said 241 s when 4 s were left: five of six runs had ended, and the sixth nearly."""
    assert left_s([4.0], [], 5) == 4.0
    assert left_s([60.0] * 5, [60.0] * 5, 5) == 120.0
    assert left_s([-3.0], [10.0], 1) == 10.0


def test_runs_start_together_only_where_none_is_under_way() -> None:
    assert starts_at_once(5, 5) == 5
    assert 1 <= starts_at_once(6, 5) <= max(1, (os.cpu_count() or 1) // 2)


def test_a_forecast_is_corrected_by_what_runs_took() -> None:
    assert scale_of([]) == 1.0
    assert scale_of([(50.0, 100.0), (10.0, 20.0)]) == 0.5


def test_every_question_once_is_told_beforehand_from_the_hardware() -> None:
    plan = plan_of("yi-6b", scenarios=["explain:8"], levels=[1, 4], run={"once": "on"})
    pace = pace_of(plan, "yi-6b", "fp16")
    one, four = sorted(runs_of(plan), key=lambda run: run.level or 0)
    alone, together = forecast_of(plan, one, pace), forecast_of(plan, four, pace)
    assert alone is not None
    assert together is not None
    assert alone.bounded
    # A step of Yi-6B on an A100-40 takes 11.7 ms, as vLLM was measured; 8 answers of at most 256 tokens.
    assert 8 * 256 / 90 < alone.plays_s < 8 * 256 / 80 + 1
    assert alone.plays_s / 5 < together.plays_s < alone.plays_s / 3


def test_levels_that_are_held_are_told_from_their_times() -> None:
    plan = plan_of("x", run={"levels": "1,4", "hold": "1m", "warmup": "10s"})
    (run,) = runs_of(plan)
    forecast = forecast_of(plan, run, None)
    assert isinstance(forecast, RunForecast)
    assert not forecast.bounded
    assert forecast.plays_s == 140
    assert forecast_of(plan_of("x", run={"levels": "many"}), run, None) is None


def test_of_a_model_without_facts_nothing_is_forecasted() -> None:
    assert pace_of(plan_of("no-such-model"), "no-such-model", "fp16") is None


def test_what_can_be_seen_to_fail_is_told_at_once_before_anything_starts() -> None:
    plan = plan_of("yi-6c", "yi-6b", hardware="a100-40gb", scenarios=["chose", "choose"], levels=[1, 2],
        run={"hold": "20x", "spawn-rate": "fast", "once": "on"},
    )  # fmt: skip
    with pytest.raises(PlanError) as caught:
        require_ready(plan, runs_of(plan))
    hints = ["--hold: '20x'", "-r: 'fast'", "--once and --hold exclude each other"]
    hints += ["did you mean 'choose'?", "did you mean yi-6b?"]
    assert len(caught.value.problems) == len(hints)
    for hint, problem in zip(hints, sorted(caught.value.problems, key=_place(hints)), strict=True):
        assert hint in problem
    require_ready(WIDE, runs_of(WIDE))


def _place(hints: list[str]) -> Callable[[str], int]:
    return lambda problem: next((n for n, hint in enumerate(hints) if hint in problem), -1)


def test_the_time_left_leaves_other_variants_alone(tmp_path: Path) -> None:
    """Natural answers end early; exact ones still take all that was forecasted of them."""
    plan = plan_of("a", scenarios=["x"], variants={"natural": {}, "exact": {}}, repeats=2)
    entries = runs_of(plan)
    forecasts: dict[str, RunForecast | None] = {entry.dir: RunForecast(100.0, True) for entry in entries}
    progress = SweepProgress(SweepRecord(tmp_path, plan, entries), forecasts)
    assert progress.left_s() == pytest.approx(4 * (RUN_S + 100))
    _end(progress, next(e for e in entries if e.variant == "natural"), played_s=50, took_s=52)
    assert progress.left_s() == pytest.approx((2 + 50) + 2 * (2 + 100))
    _end(progress, next(e for e in entries if e.variant == "exact"), played_s=90, took_s=96)
    assert progress.left_s() == pytest.approx((4 + 50) + (4 + 90))


def _end(progress: SweepProgress, entry: SweepEntry, played_s: float, took_s: float) -> None:
    entry.status, entry.took_s = "finished", took_s
    progress.note(entry, played_s)


def test_to_the_last_second_a_sweep_says_where_it_stands_and_what_it_has_when_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("a", scenarios=["x"], repeats=3)
    entries = runs_of(plan)
    entries[0].status = "finished"  # in an earlier part
    now_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    forecasts: dict[str, RunForecast | None] = {entry.dir: RunForecast(10.0, True) for entry in entries}
    progress = SweepProgress(SweepRecord(tmp_path, plan, entries), forecasts)
    _end(progress, entries[1], played_s=10, took_s=10)
    entries[2].status = "running"
    progress.note(entries[2])
    for now_s[0], end in [(4.0, "about 6 s left"), (9.7, "about 1 s left"), (11.0, "longer than expected")]:
        assert progress.line().endswith(f"1 of 2 done, 1 running, {end}")
    forecasts[entries[2].dir] = RunForecast(10.0, False)
    assert progress.line().endswith("1 running"), "over its least time, which nobody promised"
    now_s[0] = 12.0
    assert progress.so_far("SIGINT") == "ended by SIGINT: 2 of 3 runs have finished, 1 of them now, in 12 s"
    progress.stopping = True
    assert progress.line().endswith("1 running, stopping")
    progress.stopping = False
    _end(progress, entries[2], played_s=10, took_s=12)
    assert progress.line().endswith("2 of 2 done, the last servers stop")
    assert progress.so_far() == "3 of 3 runs, 2 of them now, in 12 s"
