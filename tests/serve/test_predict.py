"""`serve predict FILE.csv`: rows in, the same rows with seconds and watts out, bad ones named by line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from serve.__main__ import main
from serve.fit import PUBLISHED

HEAD = "gpu,model,batch,input_tokens,output_tokens"


def predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *more: str) -> tuple:
    """Exit code, rows and what was said."""
    file = tmp_path / "batches.csv"
    file.write_text(text, encoding="utf-8")
    code = main(["predict", str(file), *more])
    said = capsys.readouterr()
    return code, list(csv.DictReader(io.StringIO(said.out))), said.err.replace(str(file), "FILE")


def test_published_batches_come_back_whole_and_nearly_as_they_were_measured(tmp_path, capsys) -> None:
    text = (PUBLISHED / "vllm.csv").read_text()
    code, rows, _ = predicted(tmp_path, capsys, text)
    assert code == 0
    assert [dict(list(row.items())[:-2]) for row in rows] == list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        assert float(row["predicted_seconds"]) == pytest.approx(float(row["seconds"]), rel=0.12)
        assert 100 < float(row["mean_power_w"]) <= 400


def test_power_is_nearly_as_it_was_measured(tmp_path, capsys) -> None:
    text = (PUBLISHED / "power.csv").read_text()
    code, rows, said = predicted(tmp_path, capsys, text)
    assert code == 0
    for row, was in zip(rows, csv.DictReader(io.StringIO(text)), strict=True):
        assert float(row["mean_power_w"]) == pytest.approx(float(was["mean_power_w"]), rel=0.10)
    assert "FILE:1: mean_power_w of the file is replaced" in said


def test_columns_in_any_order_and_more_of_them_are_kept(tmp_path, capsys) -> None:
    text = 'note,batch,model,gpu,output_tokens,input_tokens\n"a, b",4,yi-6b,RTX 4090,20,10\n'
    code, (row,), said = predicted(tmp_path, capsys, text)
    assert code == 0
    assert "no published time or power was found for rtx4090-24gb" in said
    assert said.count("\n") == 1
    assert list(row) == [*text.split("\n")[0].split(","), "predicted_seconds", "mean_power_w"]
    assert row["note"] == "a, b"
    assert 0 < float(row["predicted_seconds"]) < 2


def test_bad_rows_are_named_by_line_and_the_others_predicted(tmp_path, capsys) -> None:
    bad = {
        "a100,yi-6b,1,1,1": "gpu 'a100' is a100-40gb or a100-80gb",
        "h100,yi6b,1,1,1": "did you mean 'yi-6b'?",
        "h100,yi-6b,0,1,1": "batch is '0'; write a whole number from 1",
        "h100,yi-6b,1,1,-3": "output_tokens is '-3'",
        "h100,yi-6b,1,1": "has 4 cells, and the header 5",
        "h100,llama-2-7b,1,4000,97": "4097 tokens are more than the 4096",
        "rtx4090,mistral-small-24b,1,100,100": "holds 0 tokens of context",
        "h100,yi-6b,999999999,1000,1000": "too many to play",
        "gtx,yi-6b,1,1,1": "gpu 'gtx' is not in the catalogue",
    }
    good = "h100,yi-6b,1,10,10"
    text = "\n".join([HEAD, *bad, "", good, ""])
    code, rows, said = predicted(tmp_path, capsys, text)
    assert code == 2
    for line, says in enumerate(bad.values(), 2):
        assert any(says in each for each in said.splitlines() if f"FILE:{line}:" in each)
    assert [bool(row["predicted_seconds"]) for row in rows] == [False] * len(bad) + [True]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "FILE:1: no column gpu, model"),
        ("gpu,gpu,model,batch,input_tokens,output_tokens\n", "FILE:1: more than one column gpu"),
        (HEAD.replace(",", ";"), "with commas between"),
        ("gpu,model,batch,output_tokens\n", "FILE:1: no column input_tokens"),
        (HEAD + '\n"a\n', "FILE:2: not CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, capsys, text: str, says: str) -> None:
    code, rows, said = predicted(tmp_path, capsys, text)
    assert (code, rows) == (2, [])
    assert says in said


def test_a_missing_file_is_one_line(tmp_path, capsys) -> None:
    assert main(["predict", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_fewer_bits_take_less_time_and_are_said_to_be_unvalidated(tmp_path, capsys) -> None:
    text = f"{HEAD}\nh100-80gb,llama-3-8b,1,100,100\n"
    seconds = {}
    for precision in ("fp16", "int8", "fp8", "int4"):
        code, (row,), said = predicted(tmp_path, capsys, text, "--precision", precision)
        assert code == 0
        assert ("no published" in said) == (precision != "fp16")
        seconds[precision] = float(row["predicted_seconds"])
    assert seconds["fp16"] > seconds["int8"] == seconds["fp8"] > seconds["int4"]


def test_the_table_goes_to_a_file_if_asked_for(tmp_path, capsys) -> None:
    out = tmp_path / "out.csv"
    code, rows, _ = predicted(tmp_path, capsys, f"{HEAD}\nh200,gemma-7b,300,50,5\n", "--out", str(out))
    assert (code, rows) == (0, [])
    assert len(out.read_text().splitlines()) == 2
