"""A sweep: several runs as one result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, turn


def sweep(path: Path, cells: list[dict[str, Any]]) -> Path:
    path.mkdir(exist_ok=True)
    text = json.dumps({"format": "turnbench-sweep/1", "name": "study", "cells": cells})
    (path / "sweep.json").write_text(text)
    return path


def run(path: Path, model: str, ttft_ms: float = 100, **manifest: Any) -> dict[str, Any]:
    records = [turn(n, sent_s=6 + n, ttft_ms=ttft_ms, model=model) for n in range(40)]
    MadeRun(path, records, manifest=manifest).write()
    return {"dir": path.name, "model": model, "status": "finished"}


def test_all_models_stand_in_one_table_and_one_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    sweep(path, [run(path / "a", "yi-6b"), run(path / "b", "gemma-7b", 300)])
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("TTG s") == 1
    assert "yi-6b" in out
    assert "gemma-7b" in out
    summary = json.loads((path / "summary.json").read_text())
    assert {(cell["run"], cell["model"]) for cell in summary["cells"]} == {("a", "yi-6b"), ("b", "gemma-7b")}
    for name in ("summary.csv", "report.html", "a/summary.json", "b/report.html"):
        assert (path / name).exists(), name


@pytest.mark.parametrize(("statuses", "code"), [(("ok", "slow"), 1), (("lost", "slow"), 3)])
def test_the_exit_code_is_the_worst(tmp_path: Path, statuses: tuple[str, str], code: int) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "ok": {},
        "slow": {"slo": {"chat": {"ttft_ms": 1}}},
        "lost": {"status": "running"},
    }
    path = tmp_path / "sweep"
    path.mkdir()
    cells = [run(path / f"c{n}", f"m{n}", **kinds[kind]) for n, kind in enumerate(statuses)]
    assert main([str(sweep(path, cells))]) == code


def test_what_several_runs_have_in_the_same_words_is_said_once_of_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    cells = [run(path / name, f"model-{name}", status="running") for name in ("a", "b", "c")]
    assert main([str(sweep(path, cells)), "--markdown", str(tmp_path / "sweep.md")]) == 3
    found = json.loads((path / "summary.json").read_text())["verdict"]["findings"]
    said = [each for each in found if each["level"] == "invalid"]
    assert [each["run"] for each in said] == ["a", "b", "c"]
    what = said[0]["what"]
    pages = [capsys.readouterr().out, (path / "report.html").read_text(), (tmp_path / "sweep.md").read_text()]
    for page in pages:
        text = " ".join(page.split())
        assert text.count(f"a, b, c: {what}") == text.count(f": {what}") > 0


def test_the_worst_findings_are_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    MadeRun(path / "a", [turn(n, sent_s=6 + n, model="yi-6b") for n in range(5)]).write()  # a note: so few
    few = {"dir": "a", "model": "yi-6b", "status": "finished"}
    assert main([str(sweep(path, [few, run(path / "b", "gemma-7b", status="running")]))]) == 3
    levels = re.findall(r"^  (invalid|suspect|note) ", capsys.readouterr().out, re.M)
    assert levels == sorted(levels, key=["invalid", "suspect", "note"].index)
    assert len(set(levels)) > 1


def test_a_cell_without_a_run_is_a_finding_and_the_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    sweep(path, [run(path / "a", "yi-6b"), {"dir": "b", "model": "phi", "status": "failed"}])
    assert main([str(path)]) == 3
    out = capsys.readouterr().out
    assert "yi-6b" in out
    assert "this run has no result (status 'failed')" in " ".join(out.split())


def test_runs_of_one_model_are_told_apart_by_their_directories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    sweep(path, [run(path / "yi-fp16", "yi"), run(path / "yi-int8", "yi")])
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "yi-fp16" in out
    assert "yi-int8" in out


@pytest.mark.parametrize("folder", ["../other", "/etc", "", "a/../../b"])
def test_a_cell_outside_the_sweep_is_refused(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(tmp_path / "sweep", [{"dir": folder, "model": "m", "status": "finished"}])
    assert main([str(path)]) == 2
    assert "not inside the sweep" in capsys.readouterr().err


def test_an_empty_or_broken_sweep_is_no_traceback(tmp_path: Path) -> None:
    path = sweep(tmp_path / "sweep", [])
    assert main([str(path)]) == 3
    (path / "sweep.json").write_text("{")
    assert main([str(path)]) == 2
    (path / "sweep.json").write_text('{"format": "x"}')
    assert main([str(path)]) == 2


def test_one_emulated_run_stamps_the_whole_sweep(tmp_path: Path) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    sweep(path, [run(path / "a", "x"), run(path / "b", "y", emulated=True)])
    main([str(path)])
    assert "EMULATED" in (path / "report.html").read_text()
