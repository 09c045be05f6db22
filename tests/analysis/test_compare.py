"""Is it worse than the baseline? Usable in CI, and quiet where nothing changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.compare.baseline import compare
from benchmarks.comparisons import drawn, false_alarms, found_slowdowns
from tests.analysis.conftest import MadeRun, turn


def write(path: Path, slower: float = 1.0, n: int = 60, emulated: bool = False, **fields: object) -> Path:
    rng = np.random.default_rng(len(path.name))
    times = rng.normal(100, 10, n) * slower
    turns = [turn(k, sent_s=6 + k / 2, ttft_ms=t, gap_ms=20 * slower, **fields) for k, t in enumerate(times)]
    return MadeRun(path, turns, manifest={"emulated": emulated}).write()


def test_a_run_that_is_slower_than_its_baseline_exits_1_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, base = write(tmp_path / "slow", 1.3), write(tmp_path / "base")
    notes = tmp_path / "notes.md"
    assert main([str(slow), "--compare", str(base), "--single", "--markdown", str(notes)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "REGRESSION: 4 of 4 medians" in out
    assert "what differs from run to run is not known" in out
    assert notes.read_text().startswith("**REGRESSION")
    changes = json.loads((slow / "compare.json").read_text())["changes"]
    assert {change["verdict"] for change in changes} == {"worse"}


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [(True, True, "compares emulators"), (True, False, "A is EMULATED"), (False, True, "B is EMULATED")],
)
def test_a_comparison_with_an_emulator_says_so_in_its_table_its_outcome_and_its_files(
    tmp_path: Path, a: bool, b: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, base = write(tmp_path / "slow", 1.3, emulated=a), write(tmp_path / "base", emulated=b)
    notes = tmp_path / "notes.md"
    assert main([str(slow), "--compare", str(base), "--single", "--markdown", str(notes)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("EMULATED")
    assert any(line.startswith("EMULATED · REGRESSION") for line in lines)
    assert any(said in line for line in lines)
    text = notes.read_text()
    assert text.startswith("**EMULATED · REGRESSION")
    assert "**EMULATED · A against baseline B**" in text
    assert json.loads((slow / "compare.json").read_text())["emulated"] is True


def test_a_comparison_of_measured_runs_never_says_emulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(write(tmp_path / "a")), "--compare", str(write(tmp_path / "b"))])
    assert "EMULATED" not in capsys.readouterr().out


def test_a_run_that_is_faster_or_the_same_exits_0(tmp_path: Path) -> None:
    slow, base, same = write(tmp_path / "slow", 1.3), write(tmp_path / "base"), write(tmp_path / "same")
    assert main([str(base), "--compare", str(slow), "--single"]) == 0
    assert main([str(same), "--compare", str(base), "--single"]) == 0


def test_a_change_below_the_threshold_is_no_regression_however_sure(tmp_path: Path) -> None:
    slow, base = write(tmp_path / "slow", 1.3), write(tmp_path / "base")
    assert main([str(slow), "--compare", str(base), "--threshold", "0.5", "--single"]) == 0


def test_runs_without_a_common_cell_are_not_called_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", task="other")
    assert main([str(a), "--compare", str(b)]) == 1
    assert "other at 4 is gone" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["-1", "x", "nan"])
def test_a_threshold_that_is_no_share_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--compare", str(tmp_path), f"--threshold={wrong}"])
    assert ended.value.code == 2


def test_a_missing_baseline_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write(tmp_path / "a")), "--compare", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_invalid_run_proves_nothing_and_exits_3(tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    broken = MadeRun(
        tmp_path / "broken", [turn(k, sent_s=6 + k / 2) for k in range(60)], manifest={"status": "running"}
    )
    assert main([str(broken.write()), "--compare", str(base)]) == 3


def test_unfinished_turns_are_worse_than_any_that_ended() -> None:
    base = drawn(np.random.default_rng(1), 100, ["t"])
    hung = drawn(np.random.default_rng(2), 100, ["t"])
    hung["outcome"], hung["ttft_ms"] = "unfinished", np.nan
    found = compare([hung], [base], single=True)
    assert {change.metric for change in found.regressions} >= {"ttft_ms", "ttg_ms", "tpot_ms"}
    assert not compare([base], [hung], single=True).regressions
    assert found.changes[0].a_ms is None


def test_with_repeats_what_differs_between_runs_counts() -> None:
    """Runs that lie 10 % apart by themselves: one against one looks sure, three against three does not."""
    rng = np.random.default_rng(4)

    def run(factor: float) -> pd.DataFrame:
        return drawn(rng, 400, ["t"], factor)

    assert compare([run(1.15)], [run(1.0)], single=True).regressions
    repeats = compare([run(1.15), run(1.0), run(1.1)], [run(1.0), run(1.12), run(1.04)])
    assert not repeats.regressions


@pytest.mark.slow
def test_false_alarms_of_two_runs_of_one_server_are_rare() -> None:
    assert false_alarms(repeats=20, conversations=100) <= 0.1


@pytest.mark.slow
def test_a_slowdown_of_10_percent_is_found_at_300_conversations() -> None:
    assert found_slowdowns(repeats=10, conversations=300) >= 0.9


def test_many_runs_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / name, model=name) for name in ("one", "two", "three")]
    assert main([str(path) for path in paths]) == 0
    out = capsys.readouterr().out
    assert out.count("TTG s") == 1
    assert all(path.name in out for path in paths)


def test_names_in_the_markdown_cannot_act_as_markup(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|[x](http://y)"
    a, b = write(tmp_path / "a", task=name), write(tmp_path / "b", task=name)
    main([str(a), "--compare", str(b), "--markdown", str(tmp_path / "out.md")])
    text = (tmp_path / "out.md").read_text()
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
