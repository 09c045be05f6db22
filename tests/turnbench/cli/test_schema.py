"""Schemas and pages are made of the Structs that files are written by."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from turnbench.cli import schema
from turnbench.cli.schema import FORMATS, main, schema_of, unit_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [*FORMATS, "sweep-plan"])
def test_each_format_has_a_schema_in_which_fields_say_what_they_mean(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(schema_of(name)))
    assert "draft/2020-12" in found["$schema"]
    assert "description" in json.dumps(found)


def test_without_a_name_all_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [*FORMATS, "sweep-plan"]


@pytest.mark.slow
def test_the_pages_of_docs_are_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--docs", str(ROOT / "docs"), "--check"]) == 0, capsys.readouterr().err
    assert main(["--docs", str(tmp_path)]) == 0
    assert main(["--docs", str(tmp_path), "--check"]) == 0
    page = tmp_path / "formats.md"
    page.write_text(page.read_text().replace("nanoseconds", "hours"))
    assert main(["--docs", str(tmp_path), "--check"]) == 1
    assert f"write it: turnbench schema --docs {tmp_path}" in capsys.readouterr().err


def test_a_new_field_reaches_schema_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(msgspec.Struct):
        """A file of the test's own."""

        wait_ms: float = 0.0
        """How long a person waited."""

    monkeypatch.setitem(FORMATS, "toy", schema.FileFormat("toy.json", Toy))
    found = schema_of("toy")["$defs"]["Toy"]["properties"]["wait_ms"]
    assert found["description"] == "How long a person waited."
    assert "| `wait_ms` | number | ms | How long a person waited. |" in schema.formats_page()


def test_a_record_from_a_run_validates_by_its_schemas_keys() -> None:
    line = next((ROOT / "tests" / "fixtures").rglob("turns-0.jsonl")).read_bytes().splitlines()[0]
    assert json.loads(line).keys() <= schema_of("turn")["$defs"]["TurnRecord"]["properties"].keys()


@pytest.mark.parametrize(
    ("field", "unit"),
    [
        ("sent_ns", "ns"),
        ("took_s", "s"),
        ("rate_per_s", "1/s"),
        ("output_tokens", "tokens"),
        ("dir", ""),
    ],
)
def test_a_unit_is_in_the_name(field: str, unit: str) -> None:
    assert unit_of(field) == unit


def test_a_summary_has_the_keys_of_its_schema_metrics_included() -> None:
    written = json.loads((ROOT / "tests" / "fixtures" / "run-2026-11" / "run" / "summary.json").read_text())
    parts = schema_of("summary")["$defs"]
    assert written.keys() <= parts["Summary"]["properties"].keys()
    newer = {"failed_share"}  # since turnbench-summary/2
    assert set(parts["CellSummary"]["required"]) - newer <= written["cells"][0].keys()
    assert written["cells"][0].keys() <= parts["CellSummary"]["properties"].keys()
    assert written["levels"][0].keys() <= parts["LevelSummary"]["properties"].keys()
