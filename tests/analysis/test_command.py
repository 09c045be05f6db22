"""`python -m analysis`: files, table, exit codes, and runs in any state a crash leaves."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, level, turn

FILES = ("summary.json", "summary.csv", "report.html", "turns.parquet")


def simple(made: MadeRun, count: int = 40) -> Path:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=100 + n) for n in range(count)]
    return made.write()


def test_all_files_are_written_and_the_table_is_shown(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simple(made)
    assert main([str(path)]) == 0
    assert all((path / name).exists() for name in FILES)
    out = capsys.readouterr().out
    assert "VALID" in out
    assert str(path / "report.html") in out.replace("\n", "")
    assert " 0.119 " in out  # TTFT p50 of 100 ... 139 ms
    assert max(len(line) for line in out.splitlines() if "report.html" not in line) <= 100
    assert "\x1b" not in out


def test_the_summary_has_the_keys_that_scripts_rely_on(made: MadeRun) -> None:
    path = simple(made)
    main([str(path)])
    summary = json.loads((path / "summary.json").read_text())
    assert summary["format"] == "turnbench-summary/2"
    assert {"verdict", "levels", "cells", "client", "outcomes"} <= set(summary)
    assert {"index", "users", "arrival_rate_per_s", "status", "window_s", "streams_mean"} <= set(
        summary["levels"][0]
    )
    assert {"clock", "lag_ms", "coalesced_share", "cpu_share"} <= set(summary["client"])
    distributions = [
        "ttft_ms",
        "ttfat_ms",
        "response_delay_ms",
        "ttg_ms",
        "ttg256_ms",
        "tpot_ms",
        "itl_ms",
        "decode_tokens_per_s",
        "request_tps",
        "stall_ms",
        "output_tokens",
    ]
    scalars = [
        "model",
        "task",
        "level",
        "turns",
        "conversations",
        "tps",
        "aggregate_tps",
        "chars_per_s",
        "words_per_s",
        "cached_share",
        "turn_goodput_per_s",
        "conversation_goodput_per_s",
        "fluidity",
    ]
    for cell in summary["cells"]:
        assert {*distributions, *scalars} <= set(cell)
        for name in distributions:
            told = {"n", "mean", "p50", "p90", "p95", "p99", "p999", "max", "mean_to", "bound", "ci95"}
            assert set(cell[name]) == told
            assert set(cell[name]["ci95"]) == {"mean", "p50", "p90", "p95", "p99", "p999"}


def test_the_same_run_gives_the_same_summary_twice(made: MadeRun) -> None:
    path = simple(made)
    main([str(path)])
    first = (path / "summary.json").read_bytes()
    main([str(path)])
    assert (path / "summary.json").read_bytes() == first


def test_a_link_to_the_newest_run_will_do(made: MadeRun) -> None:
    path = simple(made)
    link = path.parent / "LATEST"
    link.symlink_to(path.name)
    assert main([str(link)]) == 0
    assert json.loads((path / "summary.json").read_text())["run"] == path.name


def test_the_csv_has_one_row_a_cell_and_quotes_formulas(made: MadeRun) -> None:
    made.turns = [turn(n, task=task, model="@sum") for n, task in enumerate(("=1+1", "-x", "+2"))]
    path = made.write()
    main([str(path)])
    with (path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(json.loads((path / "summary.json").read_text())["cells"])
    assert {row["model"] for row in rows} == {"'@sum"}
    assert {row["task"] for row in rows} == {"'=1+1", "'-x", "'+2", "all"}
    assert rows[0]["ttft_ms_mean"] == "100.0"
    assert {"ttft_ms_ci95_p50_lo", "ttft_ms_ci95_p50_hi"} <= set(rows[0])


def test_the_parquet_holds_every_record_with_its_events(made: MadeRun) -> None:
    path = simple(made, 5)
    main([str(path)])
    table = pq.read_table(path / "turns.parquet").to_pylist()
    assert [len(row["event_us"]) for row in table] == [10] * 5
    assert table[0]["event_us"][0] == 100_000
    assert table[0]["sent_ns"] == made.turns[0].sent_ns


def test_a_column_of_the_parquet_has_its_type_in_a_run_without_a_value_too(
    made: MadeRun, tmp_path: Path
) -> None:
    scored = MadeRun(tmp_path / "scored", [turn(0, expected="B", answered="B", right=True, branch="b")])
    paths = [simple(made), scored.write()]
    for path in paths:
        main([str(path)])
    schemas = [pq.read_schema(path / "turns.parquet") for path in paths]
    assert schemas[0].equals(schemas[1])
    assert str(schemas[0].field("expected").type) == str(schemas[0].field("model").type) == "large_string"


def test_an_answer_without_a_request_is_counted_as_torn(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n) for n in range(3)] + [turn(3, sent_ns=None), turn(4, end_ns=None)]
    assert main([str(made.write())]) == 3, "two turns that ended have no record"
    assert "2 line(s) could not be read" in capsys.readouterr().out


def test_a_torn_line_is_counted_and_never_fatal(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = simple(made)
    with (path / "turns-0.jsonl").open("ab") as file:
        file.write(b'{"run":"made","conversation":9,"task":"\xff"}\n{"run":"made","conversation":9')
    with (path / "health-0.jsonl").open("ab") as file:
        file.write(b'{"t_ns": 1, "wor')
    assert main([str(path)]) == 0
    assert "3 line(s) could not be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        b"[1, 2]",
        b'{"t_ns": "x"}',
        b'{"t_ns": null, "worker": {}}',
        b'"text"',
        b'{"t_ns": 1e400, "worker": 0, "begun": "many"}',
    ],
)
def test_health_lines_that_make_no_sense_are_left_out(made: MadeRun, line: bytes) -> None:
    path = simple(made)
    with (path / "health-0.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert main([str(path)]) == 0


def test_event_lists_that_are_not_aligned_are_not_fatal(made: MadeRun) -> None:
    made.turns = [turn(0, event_words=[1], event_tokens=[1, 2], answer_event=99), turn(1)]
    assert main([str(made.write())]) == 0


def test_numbers_out_of_all_range_are_counted_as_unreadable(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simple(made)
    good = (path / "turns-0.jsonl").read_bytes().splitlines()[0]
    for field, bad in (
        (b'"due_ns":', b"9" * 30),
        (b'"event_us":[', b"9" * 30 + b","),
        (b'"worker":', b"9" * 19),
    ):
        with (path / "turns-0.jsonl").open("ab") as file:
            file.write(good.replace(field, field + bad, 1) + b"\n")
    assert main([str(path)]) == 0
    assert "could not be read" in capsys.readouterr().out


def test_a_run_without_turns_exits_3_and_says_so(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.write()
    assert main([str(path)]) == 3
    out = capsys.readouterr().out
    assert "no turn finished in the run (no turn was sent)" in out
    assert all((path / name).exists() for name in FILES)


def test_a_killed_run_is_called_incomplete(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    made.manifest |= {"status": "running", "ended_at": None, "exit_code": None}
    made.levels = [level() | {"window_end_ns": None, "end_ns": None}]
    assert main([str(simple(made))]) == 3
    assert "incomplete" in capsys.readouterr().out


@pytest.mark.parametrize(
    "manifest",
    [
        {"levels": []},
        {"levels": None, "workers": None, "slo": None, "settings": None, "findings": None},
        {"levels": [{}], "workers": [{}], "slo": {"chat": 3}, "findings": [3]},
        {"levels": [{"index": "x", "start_ns": None, "users": "many", "arrival_rate_per_s": "fast"}]},
        {"settings": [], "endpoint": 7, "server": "vllm", "versions": None, "host": [1], "labels": "x"},
    ],
)
def test_a_manifest_with_holes_is_not_fatal(made: MadeRun, manifest: dict[str, object]) -> None:
    made.manifest |= manifest
    assert main([str(simple(made))]) == 0


def test_what_is_no_run_gets_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text('{"format": "turnbench-run/9"}')
    for path in (tmp_path / "none", tmp_path, tmp_path / "bad"):
        assert main([str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error


def test_a_directory_that_cant_be_written_gets_one_line_and_exit_2(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simple(made)
    (path / "summary.json").mkdir()
    assert main([str(path)]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_an_emulated_run_says_so_over_its_table(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    made.manifest["emulated"] = True
    main([str(simple(made))])
    assert capsys.readouterr().out.splitlines()[0].startswith("EMULATED")


def test_assumed_lengths_are_said_under_the_table_and_in_the_report(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.manifest |= {"emulated": True, "server": {"answer_lengths": "assumed"}}
    path = simple(made)
    said = "Lengths of its answers: assumed, and with them what depends on who says more."
    main([str(path)])
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (path / "report.html").read_text(encoding="utf-8")
    assert json.loads((path / "summary.json").read_text())["answer_lengths"] == "assumed"
    # Forced lengths hang on nothing.
    made.manifest["settings"] = {"exact_tokens": True}
    main([str(made.write())])
    assert "Lengths of" not in capsys.readouterr().out


def test_a_mean_in_place_of_a_median_is_marked(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(simple(made, 5))])
    out = capsys.readouterr().out
    assert "m 0.102 " in out
    assert "m: mean of the n turns" in out


def test_names_cannot_steer_the_terminal_or_its_markup(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n, task="\x1b[31mred[/bold]", model="[link=x]m\r\n") for n in range(3)]
    main([str(made.write())])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert "[link=x]" in out.replace("\n", "")


def test_the_command_runs_as_a_module(made: MadeRun) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis", str(simple(made))],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "VALID" in done.stdout
