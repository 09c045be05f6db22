"""Numbers for other places: Markdown for a pull request, a spreadsheet, a folder for many runs."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, turn
from tests.analysis.test_sweep import sweep

HOSTILE = "=cmd()|<script>alert(1)</script>[x](http://y)"


def two_models(path: Path, **manifest: object) -> Path:
    path.mkdir(exist_ok=True)
    cells = []
    for name, gap_ms, events in (("talker", 10, 100), ("terse", 20, 10)):
        records = [
            turn(
                n, sent_s=6 + n / 2, gap_ms=gap_ms, events=events * (1 + n % 2), model=name, task=f"t{n % 2}"
            )
            for n in range(80)
        ]
        MadeRun(path / name, records, manifest=dict(manifest)).write()
        cells.append({"dir": name, "model": name, "status": "finished"})
    return sweep(path, cells)


def sheets(path: Path) -> dict[str, str]:
    """Every sheet's name with its raw XML, and under "" all the texts."""
    with zipfile.ZipFile(path) as book:
        names = re.findall(r'<sheet name="([^"]+)"', book.read("xl/workbook.xml").decode())
        found = {
            name: book.read(f"xl/worksheets/sheet{number}.xml").decode()
            for number, name in enumerate(names, 1)
        }
        return found | {"": book.read("xl/sharedStrings.xml").decode()}


def test_a_runs_markdown_has_the_verdict_the_waits_and_what_to_mend(made: MadeRun, tmp_path: Path) -> None:
    made.turns = [turn(n, sent_s=6 + n, late_ms=5) for n in range(40)]
    target = tmp_path / "run.md"
    main([str(made.write()), "--markdown", str(target)])
    text = target.read_text()
    assert "**SUSPECT**" in text
    assert "turns were sent late by the client" in text
    assert "use fewer people a worker" in text
    assert "| tiny | chat | 4 | 40 | 0.100 s | 0.280 s |" in text
    assert "EMULATED" not in text


def test_a_sweeps_markdown_compares_models_and_tasks_each_table_marked(tmp_path: Path) -> None:
    target = tmp_path / "sweep.md"
    assert main([str(two_models(tmp_path / "s", emulated=True)), "--markdown", str(target)]) == 0
    text = target.read_text()
    captions = re.findall(r"^\*\*(.*)\*\*$", text, flags=re.MULTILINE)
    assert len(captions) == 3
    assert all(caption.startswith("EMULATED") for caption in captions)
    assert "talker generates more tokens per second than terse" in text
    assert "the study (2024)" in text


def test_names_in_a_runs_markdown_cannot_act_as_markup(made: MadeRun, tmp_path: Path) -> None:
    made.turns = [turn(n, sent_s=6 + n, task=HOSTILE, model=HOSTILE) for n in range(30)]
    made.manifest["findings"] = [{"level": "note", "check": HOSTILE, "what": HOSTILE, "remedy": HOSTILE}]
    main([str(made.write()), "--markdown", str(tmp_path / "out.md")])
    text = (tmp_path / "out.md").read_text()
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert not re.search(r"(?<!\\)\|alert|cmd\(\)\|", text)


def test_a_spreadsheet_has_a_sheet_for_each_kind_of_table_all_marked(tmp_path: Path) -> None:
    target = tmp_path / "sweep.xlsx"
    assert main([str(two_models(tmp_path / "s", emulated=True)), "--xlsx", str(target)]) == 0
    found = sheets(target)
    names = ["run", "cells", "levels", "models", "tasks"]
    assert [name for name in found if name] == [f"EMULATED {name}" for name in names]
    assert "ttg_ms_p50" in found[""]
    assert found["EMULATED cells"].count("<row ") > 10


def test_each_row_of_a_sweeps_csv_says_whether_its_run_was_emulated(tmp_path: Path) -> None:
    path = two_models(tmp_path / "s")
    manifest = json.loads((path / "terse" / "run.json").read_text())
    (path / "terse" / "run.json").write_text(json.dumps(manifest | {"emulated": True}))
    main([str(path)])
    with (path / "summary.csv").open(newline="") as file:
        told = {(row["run"], row["emulated"]) for row in csv.DictReader(file)}
    assert told == {("talker", "False"), ("terse", "True")}


def test_a_measured_runs_spreadsheet_is_not_marked(made: MadeRun, tmp_path: Path) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    main([str(made.write()), "--xlsx", str(tmp_path / "run.xlsx")])
    found = sheets(tmp_path / "run.xlsx")
    assert [name for name in found if name] == ["run", "cells", "levels"]
    assert "EMULATED" not in found[""]


def test_no_name_becomes_a_formula_or_a_link_in_a_spreadsheet(made: MadeRun, tmp_path: Path) -> None:
    made.turns = [turn(n, sent_s=6 + n, task="=1+1", model="http://evil") for n in range(30)]
    main([str(made.write()), "--xlsx", str(tmp_path / "run.xlsx")])
    found = sheets(tmp_path / "run.xlsx")
    assert "=1+1" in found[""]
    assert not any("<f>" in text or "<hyperlink" in text for text in found.values())


@pytest.mark.parametrize("extra", ["xlsx", "plots"])
def test_without_its_extra_a_file_is_refused_in_a_line_before_anything_is_read(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("turnbench.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), f"--{extra}", str(tmp_path / "x")])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"--{extra} needs" in said
    assert said.endswith(f"pip install 'turnbench[{extra}]'")


def test_a_spreadsheet_that_cant_be_written_is_a_line_and_exit_2(
    made: MadeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    assert main([str(made.write()), "--xlsx", str(tmp_path / "none" / "x.xlsx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_many_runs_can_be_written_into_a_folder_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_models(tmp_path / "s")
    out = tmp_path / "out"
    assert main([str(runs / "talker"), str(runs / "terse"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"summary.json", "summary.csv", "report.html"}
    assert f"Report: {out / 'report.html'}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    "options",
    [["--out", "x"], *(["--compare", ".", option, "x"] for option in ("--xlsx", "--out", "--plots"))],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *options])
    assert ended.value.code == 2


def test_runs_without_a_report_show_the_studys_table_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_models(tmp_path / "s", emulated=True)
    main([str(runs / "talker"), str(runs / "terse")])
    out = capsys.readouterr().out
    assert "EMULATED · Each task against the model's fastest one" in out
    assert "the study (2024)" in out
    assert "Report" not in out
