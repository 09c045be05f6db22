"""turnbench plan: forecasts of made runs whose variance within and between is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.compare.baseline import ALPHA_MEDIANS
from analysis.plan import PilotCell, main, pilot_cells, runs_needed
from analysis.turns.study import study_run
from tests.analysis.conftest import MadeRun, level, turn
from turnbench.run_directory import read_run
from turnbench.stats.known import KnownNumber


def pilot(within: float, window_s: float = 60.0, runs: int = 1, drift: float = 0.0) -> PilotCell:
    """Runs whose interval of a median of 1 s is `within` wide to each side."""
    logs = np.linspace(-1, 1, runs) * drift if runs > 1 else [0.0]
    numbers = [KnownNumber(m, [m * (1 - within), m * (1 + within)]) for m in 1000 * np.exp(logs)]
    return PilotCell("8", "ttg_p50", numbers, window_s, 10.0, 0.5)


def made_run(path: Path, median_ms: float, seed: int, window_s: float = 60.0, every_s: float = 0.5) -> Path:
    rng = np.random.default_rng(seed)
    count = int(window_s / every_s)
    turns = [
        turn(k, sent_s=5 + k * every_s, ttft_ms=float(median_ms * math.exp(rng.normal(0, 0.3))), events=2)
        for k in range(count)
    ]
    end_s = 5 + window_s
    return MadeRun(path, turns, [level(0, window_s=(5.0, end_s), end_s=end_s + 5)]).write()


@pytest.mark.parametrize("asked", [0.1, 0.05, 0.02])
def test_a_window_grows_with_the_square_of_the_precision(asked: float) -> None:
    needed_s = pilot(0.08).window_for(asked)
    assert needed_s == pytest.approx(60 * (0.08 / asked) ** 2)


def test_the_forecast_of_a_window_is_what_longer_windows_then_need(tmp_path: Path) -> None:
    (cell,) = [
        c
        for c in pilot_cells([study_run(read_run(made_run(tmp_path / "short", 200, 1)))])
        if c.key == "ttft_p50"
    ]
    needed_s = cell.window_for(0.03)
    assert needed_s is not None
    long = made_run(tmp_path / "long", 200, 2, window_s=round(needed_s))
    (then,) = [c for c in pilot_cells([study_run(read_run(long))]) if c.key == "ttft_p50"]
    assert then.runs[0].share == pytest.approx(0.03, rel=0.6)


def test_runs_that_differ_need_more_runs_and_not_longer_ones() -> None:
    alike, apart = (runs_needed(pilot(0.02), 0.05, between, 4) for between in (0.0, 0.03))
    assert alike is not None
    assert apart is not None
    assert apart.runs > alike.runs
    assert apart.total_s > alike.total_s


def test_a_change_far_below_what_runs_differ_by_is_found_by_no_number_of_runs() -> None:
    assert runs_needed(pilot(0.02), 0.001, 0.1, 4) is None


@pytest.mark.parametrize(("within", "between"), [(0.05, 0.0), (0.02, 0.03), (0.10, 0.02)])
def test_the_runs_that_a_plan_asks_for_find_the_change_in_four_of_five_tries(
    within: float, between: float
) -> None:
    from scipy.stats import ttest_ind  # slow to import, and every process of `make test` reads this file

    cell, tests, change = pilot(within), 4, 0.05
    plan = runs_needed(cell, change, between, tests)
    assert plan is not None
    assert cell.within is not None
    sd = math.sqrt(cell.within**2 * cell.window_s / plan.window_s + between**2)
    rng = np.random.default_rng(1)
    a = rng.normal(math.log1p(change), sd, (4000, plan.runs))
    b = rng.normal(0, sd, (4000, plan.runs))
    found = ttest_ind(a, b, axis=1).pvalue < ALPHA_MEDIANS / tests
    assert 0.74 < found.mean() < 0.95


def test_what_runs_differ_by_is_estimated_beyond_what_differs_within() -> None:
    assert pilot(0.02).between is None
    assert pilot(0.02, runs=5, drift=0.05).between == pytest.approx(0.0395 - 0.0013, abs=2e-3)
    assert pilot(0.2, runs=5, drift=0.05).between == 0


def test_one_run_says_that_it_cannot_know_how_runs_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run", 200, 1)
    assert main([str(run)]) == 0
    said = capsys.readouterr().out
    assert "How much runs differ is not known from one run" in said
    assert "--threshold 0.025" in said
    assert main([str(run), "--between", "3%", "--within", "2%"]) == 0
    said = capsys.readouterr().out
    assert "3% as given" in said
    assert "not known" not in said
    assert "within 2%" in said


def test_several_runs_show_what_they_differ_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    medians = (200, 220, 185)
    runs = [str(made_run(tmp_path / f"r{n}", median, n)) for n, median in enumerate(medians)]
    assert main(runs) == 0
    assert "of 3 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "no run.json"), (["RUN", "--detect", "x"], "--detect: 'x' is not a share")],
)
def test_what_cannot_be_planned_is_a_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    run = made_run(tmp_path / "run", 200, 1)
    try:
        code = main([str(run) if each == "RUN" else each for each in arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_runs_of_different_levels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made_run(tmp_path / "one", 200, 1)
    other = MadeRun(tmp_path / "two", [turn(0, sent_s=6)], [level(0, users=3)]).write()
    assert main([str(one), str(other)]) == 2
    assert "played different levels" in capsys.readouterr().err


def test_a_run_without_turns_is_a_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = MadeRun(tmp_path / "empty", []).write()
    assert main([str(empty)]) == 2
    assert "play a longer one" in capsys.readouterr().err
