"""Two sides of runs with a known truth: the sentence and the exit code of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.compare.baseline import compare
from benchmarks.comparisons import codes, drawn
from tests.analysis.conftest import MadeRun, level, turn
from turnbench import exits

RUNS = Path(__file__).parents[1] / "fixtures" / "compare"


def write(
    path: Path,
    slower: float = 1.0,
    *,
    longer: float = 1.0,
    failed: int = 0,
    ended: str = "http_5xx",
    n: int = 60,
    slo: dict[str, dict[str, float]] | None = None,
    **fields: object,
) -> Path:
    """A run of `n` conversations of one turn; the first `failed` of them get a 503, or end so midway."""
    rng = np.random.default_rng(sum(map(ord, path.name)))
    turns = []
    for k in range(n):
        events = round(rng.integers(20, 60) * longer)
        times = {"ttft_ms": rng.normal(100, 10) * slower, "gap_ms": 20 * slower, "events": events}
        if k < failed and ended != "http_5xx":
            times |= {"outcome": ended, "output_tokens": None}
        elif k < failed:
            times |= {"events": 0, "outcome": "http_5xx", "status": 503, "output_tokens": None}
        turns.append(turn(k, sent_s=6 + k / 2, **(times | fields)))
    levels = [level(window_s=(5.0, 120.0), end_s=130.0)]
    return MadeRun(path, turns, levels=levels, manifest={"slo": slo or {}}).write()


def repeats(tmp_path: Path, name: str, factors: tuple[float, ...], **how: object) -> list[str]:
    return [str(write(tmp_path / f"{name}{n}", f, **how)) for n, f in enumerate(factors)]  # type: ignore[arg-type]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, what was printed, on one line)."""
    code = main(list(arguments))
    return code, " ".join(capsys.readouterr().out.split())


def case(tmp_path: Path, name: str) -> str:
    """A copy of a recorded run."""
    shutil.copytree(RUNS / name, tmp_path / name)
    return str(tmp_path / name)


def test_a_recorded_run_of_which_half_the_turns_failed_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(capsys, case(tmp_path, "half-failed"), "--compare", case(tmp_path, "base"))
    assert code == exits.MISSED
    assert "the failed share of chat at 2 rose from 0% to 50% (60 of 120 turns)" in out
    assert "Medians of chat at 2 are of those answered: 60 of 120 in A, 120 of 120 in B." in out
    assert json.loads((tmp_path / "half-failed" / "compare.json").read_text())["exit_code"] == exits.MISSED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said", "single"),
    [("longer-answers", "grew by 33%", exits.OK), ("shorter-answers-slower", "shrank by 29%", exits.MISSED)],
)
def test_recorded_runs_whose_answers_changed_in_length_say_so_and_are_held_to_equal_length(
    tmp_path: Path, name: str, said: str, single: int, capsys: pytest.CaptureFixture[str]
) -> None:
    new, base = case(tmp_path, name), case(tmp_path, "base")
    code, out = run(capsys, new, "--compare", base)
    assert code == exits.NOT_JUDGED
    assert f"nor goodput are worse; answers {said} in chat at 2" in out
    assert "differences between runs are not known" in out
    assert run(capsys, new, "--compare", base, "--single")[0] == single


def test_a_task_that_is_gone_is_a_regression_with_one_run_a_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = MadeRun(tmp_path / "base", [turn(k, sent_s=6 + k / 2, task=("a", "b")[k % 2]) for k in range(80)])
    new = MadeRun(tmp_path / "new", [turn(k, sent_s=6 + k / 2, task="a") for k in range(40)])
    code, out = run(capsys, str(new.write()), "--compare", str(base.write()))
    assert code == exits.MISSED
    assert "REGRESSION: b at 4 is gone." in out


def test_a_task_that_the_baseline_lacks_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = MadeRun(tmp_path / "new", [turn(k, sent_s=6 + k / 2, task=("a", "b")[k % 2]) for k in range(80)])
    base = MadeRun(tmp_path / "base", [turn(k, sent_s=6 + k / 2, task="a") for k in range(40)])
    code, out = run(capsys, str(new.write()), "--compare", str(base.write()), "--single")
    assert code == exits.NOT_JUDGED
    assert "Not judged (the baseline did not play it): b at 4." in out


def test_a_run_that_misses_its_limits_where_the_baseline_met_them_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slo = {"chat": {"ttft_ms": 150.0}}
    new, base = write(tmp_path / "new", 2.0, slo=slo), write(tmp_path / "base", slo=slo)
    code, out = run(capsys, str(new), "--compare", str(base))
    assert code == exits.MISSED
    assert "goodput of chat at 4 fell: 0% of its turns met all limits, 100% before" in out
    assert "medians" not in out.split("REGRESSION")[1]


def test_goodput_by_other_limits_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write(tmp_path / "new", slo={"chat": {"ttft_ms": 50.0}})
    base = write(tmp_path / "base", slo={"chat": {"ttft_ms": 150.0}})
    code, out = run(capsys, str(new), "--compare", str(base))
    assert code == exits.NOT_JUDGED
    assert "within limits" not in out


@pytest.mark.slow
def test_three_runs_of_a_server_slower_by_a_fifth_are_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, base = (
        repeats(tmp_path, name, tuple(speed * f for f in (0.99, 1.0, 1.02)))
        for name, speed in (("n", 1.2), ("b", 1.0))
    )
    code, out = run(capsys, *new, "--compare", *base)
    assert code == exits.MISSED
    assert "REGRESSION: 4 of 4 medians are worse" in out
    assert "differences between runs are not known" not in out


@pytest.mark.slow
def test_three_runs_whose_answers_grew_are_no_regression_and_say_that_they_grew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = (0.99, 1.0, 1.01)
    new = repeats(tmp_path, "n", speeds, longer=1.3)
    code, out = run(capsys, *new, "--compare", *repeats(tmp_path, "b", speeds))
    assert code == exits.OK
    assert "NO REGRESSION" in out
    assert "lengths differ" in out
    assert "answers grew by" in out


@pytest.mark.slow
def test_shorter_answers_do_not_hide_a_slower_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = repeats(tmp_path, "n", (1.2, 1.21, 1.19), longer=0.7)
    code, out = run(capsys, *new, "--compare", *repeats(tmp_path, "b", (0.99, 1.0, 1.01)))
    assert code == exits.MISSED
    assert "answers shrank by" in out


@pytest.mark.slow
def test_a_few_more_failures_are_a_regression_only_if_clear_of_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write(tmp_path / "base", n=200)
    few, many = write(tmp_path / "few", n=200, failed=2), write(tmp_path / "many", n=200, failed=20)
    assert run(capsys, str(few), "--compare", str(base))[0] == exits.NOT_JUDGED
    code, out = run(capsys, str(many), "--compare", str(base))
    assert code == exits.MISSED
    assert "rose from 0% to 10% (20 of 200 turns)" in out


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("stalled", "the unfinished share of chat at 4 rose from 0% to 50% (60 of 120 turns)"),
        ("truncated", "the failed share of chat at 4 rose from 0% to 50% (60 of 120 turns)"),
    ],
)
def test_a_server_that_answers_half_of_its_turns_in_part_is_a_regression(
    tmp_path: Path, outcome: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = write(tmp_path / "base", n=120), write(tmp_path / "new", n=120, failed=60, ended=outcome)
    code, out = run(capsys, str(new), "--compare", str(base))
    assert code == exits.MISSED
    assert said in out


def test_a_model_that_is_gone_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [turn(k, sent_s=6 + k / 2, model=("a", "b")[k % 2]) for k in range(80)]
    base, new = MadeRun(tmp_path / "base", both), MadeRun(tmp_path / "new", both[::2])
    code, out = run(capsys, str(new.write()), "--compare", str(base.write()))
    assert code == exits.MISSED
    assert "b chat at 4 is gone" in out


@pytest.mark.slow
def test_fewer_failures_and_quicker_answers_in_three_runs_are_no_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = repeats(tmp_path, "n", (0.79, 0.8, 0.81))
    code, out = run(capsys, *new, "--compare", *repeats(tmp_path, "b", (0.99, 1.0, 1.01), failed=10))
    assert code == exits.OK
    assert "NO REGRESSION" in out


def test_runs_of_one_plan_are_compared_turn_by_turn() -> None:
    """A long and a short half of the prompts: a run that got less far into them is no slower for that."""
    rng = np.random.default_rng(3)
    whole = drawn(rng, 400, ["t"]).assign(plan="same")
    slow = 1 + 9 * (whole["conversation"] >= 200)
    whole[["ttft_ms", "ttg_ms"]] = whole[["ttft_ms", "ttg_ms"]].mul(slow, axis=0)
    whole["turn"] = 1
    whole["conversation"] = np.arange(len(whole))
    less = whole[whole["talk"] < 210].copy()
    found = compare([whole], [less], single=True)
    assert {change.verdict for change in found.changes} == {"same"}
    apart = compare([whole.assign(plan="")], [less.assign(plan="")], single=True)
    assert any(change.verdict == "worse" for change in apart.changes)


@pytest.mark.slow
def test_one_run_against_one_never_calls_a_median_worse_unless_asked_to() -> None:
    found = codes(8, 1, 0.1, 1.1, conversations=40)
    assert found[exits.NOT_JUDGED] == 8


@pytest.mark.slow
def test_three_runs_a_side_that_drift_are_rarely_called_worse() -> None:
    assert codes(8, 3, 0.1, conversations=40)[exits.MISSED] <= 1
