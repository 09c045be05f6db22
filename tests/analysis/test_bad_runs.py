"""Runs that hold little or nothing: a clear page or message each, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, turn


@pytest.mark.parametrize(
    ("turns", "code"),
    [
        ([turn(0, sent_s=6), turn(1, sent_s=7)], 0),
        ([turn(n, sent_s=6 + n, outcome="connect", events=0, error="refused") for n in range(30)], 3),
        ([turn(n, sent_s=6 + n) for n in range(30)], 0),
        ([], 3),
    ],
    ids=["two turns", "only errors", "one model", "nothing"],
)
def test_a_thin_run_has_a_report_and_a_comparison_of_it_has_a_message(
    made: MadeRun, turns: list[Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = turns
    path = made.write()
    assert main([str(path)]) == code
    assert "<h1>How long does a person wait?</h1>" in (path / "report.html").read_text()
    assert main([str(path), "--compare", str(path)]) in (0, 3)
    assert "REGRESSION" in (out := capsys.readouterr().out) or "Nothing could be compared" in out


def test_a_torn_line_is_counted_and_the_rest_is_told(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    path = made.write()
    with (path / "turns-0.jsonl").open("a") as file:
        file.write('{"run":"made","conv')
    assert main([str(path)]) == 0
    findings = json.loads((path / "summary.json").read_text())["verdict"]["findings"]
    assert [finding["check"] for finding in findings] == ["torn"]


@pytest.mark.parametrize("version", ["turnbench-run/0", "turnbench-run/99", 0, 99, None])
def test_another_format_is_one_line_and_exit_2(
    made: MadeRun, version: object, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made.manifest = {"format": version}
    assert main([str(made.write())]) == 2
    assert capsys.readouterr().err.count("\n") == 1
