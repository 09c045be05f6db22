"""Runs that hold little or nothing, or aren't one: a clear page or message each, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, turn
from turnbench.exits import INVALID, NOT_JUDGED

ERRORS = [turn(n, sent_s=6 + n, outcome="connect", events=0, error="refused") for n in range(30)]


@pytest.mark.parametrize(
    ("turns", "code", "status", "findings", "told"),
    [
        ([turn(0, sent_s=6), turn(1, sent_s=7)], 0, "valid", {"few_turns"}, "too few turns for a median"),
        (ERRORS, 3, "invalid", {"no_turns"}, "no turn finished in the run (30 connect (refused))"),
        ([turn(n, sent_s=6 + n) for n in range(30)], 0, "valid", set(), None),
        ([], 3, "invalid", {"no_turns"}, "no turn was sent"),
    ],
    ids=["two turns", "only errors", "one model", "nothing"],
)
def test_a_thin_run_has_a_page_a_summary_and_a_message(
    made: MadeRun,
    turns: list[Any],
    code: int,
    status: str,
    findings: set[str],
    told: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made.turns = turns
    path = made.write()
    assert main([str(path)]) == code
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["format"], summary["verdict"]["status"]) == ("turnbench-summary/2", status)
    assert {finding["check"] for finding in summary["verdict"]["findings"]} == findings
    assert sum(summary["outcomes"].values()) == len(turns)
    assert [cell["turns"] for cell in summary["cells"]][-1:] == [len(turns)][: len(turns)]
    page = (path / "report.html").read_text()
    assert "<h1>How long does a person wait?</h1>" in page
    said = " ".join(capsys.readouterr().out.split())
    assert status.upper() in said
    if told:
        assert told in said
        assert told in page


@pytest.mark.parametrize(
    ("turns", "code"),
    [(ERRORS, INVALID), ([], INVALID), ([turn(0, sent_s=6), turn(1, sent_s=7)], NOT_JUDGED)],
)
def test_a_comparison_of_a_thin_run_has_a_message(
    made: MadeRun, turns: list[Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = turns
    path = str(made.write())
    assert main([path, "--compare", path]) == code
    assert "NOT JUDGED" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("line", ['{"run":"made","conv', "[" * 100_000, "null", "\x00", '{"run": 7}'])
def test_a_line_that_cannot_be_read_is_counted_and_the_rest_is_told(made: MadeRun, line: str) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    path = made.write()
    for name in ("turns-0.jsonl", "health-0.jsonl", "server.jsonl"):
        with (path / name).open("a") as file:
            file.write(line)
    assert main([str(path)]) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert [finding["check"] for finding in summary["verdict"]["findings"]] == ["torn"]
    assert summary["outcomes"] == {"ok": 30}


@pytest.mark.parametrize("version", ["turnbench-run/0", "turnbench-run/99", 0, 99, None])
def test_another_format_is_one_line_that_says_what_to_do_and_exit_2(
    made: MadeRun, version: object, capsys: pytest.CaptureFixture[str]
) -> None:
    made.manifest = {"format": version}
    path = made.write()
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"run.json: format {version!r}" in said
    assert "analyse it with the turnbench that wrote it" in said
    assert not (path / "summary.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"7"])
def test_a_manifest_that_is_none_is_one_line_and_exit_2(
    made: MadeRun, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.write()
    (path / "run.json").write_bytes(content)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_scenario_that_is_no_text_is_survived(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    path = made.write()
    (path / "scenario.yaml").write_bytes(b"\xff\xfe\x00")
    assert main([str(path)]) == 0


def test_a_run_without_records_files_is_told_as_one_without_turns(made: MadeRun) -> None:
    path = made.write()
    assert not list(path.glob("turns-*"))
    assert main([str(path)]) == 3


def test_a_file_in_place_of_a_run_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("hello")
    assert main([str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_readers_speed_is_an_option_and_recorded(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n, sent_s=6 + n, gap_ms=400) for n in range(30)]
    path = made.write()
    stalls = []
    for speed in ("238", "600"):
        assert main([str(path), "--reading-speed", speed]) == 0
        summary = json.loads((path / "summary.json").read_text())
        assert summary["reading_words_per_min"] == float(speed)
        stalls.append(summary["cells"][0]["stall_ms"]["mean"])
    assert stalls == pytest.approx([9 * (400 - 60_000 / 238), 9 * 300])
    for wrong in ("0", "-1", "nan", "fast"):
        with pytest.raises(SystemExit) as refused:
            main([str(path), "--reading-speed", wrong])
        assert refused.value.code == 2
    assert "--reading-speed" in capsys.readouterr().err
