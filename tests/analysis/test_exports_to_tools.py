"""`turnbench export`: the layouts of other tools, held against files that those tools wrote.

tests/fixtures/exports/*.json is the shape of what `vllm bench serve --save-detailed` 0.32.0 and GuideLLM
0.8.1 wrote against the emulator: keys with the type of their value, a list by its first element, and a
distribution of GuideLLM's as one word. `required` is what GuideLLM's own reader refuses to be without.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.exports.command import main
from analysis.exports.result import RunResult
from analysis.exports.trackers import numbers_by_level
from tests.analysis.conftest import START_NS, MadeRun, S, level, turn

FIXTURES = Path(__file__).parents[1] / "fixtures" / "exports"
KINDS = {bool: "bool", int: "number", float: "number", str: "text", type(None): "null"}


def shape(value: Any) -> Any:
    """Keys and types of a file."""
    if isinstance(value, dict):
        return "distribution" if "percentiles" in value else {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return KINDS[type(value)]


def strange(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where ours has a key or a type that theirs has not; null and anything may stand for each other."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        unknown = [f"{where}.{key}: unknown" for key in ours.keys() - theirs.keys()]
        return unknown + [
            each
            for key in ours.keys() & theirs.keys()
            for each in strange(ours[key], theirs[key], f"{where}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        return strange(ours[0], theirs[0], f"{where}[]") if ours and theirs else []
    return [] if ours == theirs or "null" in (ours, theirs) else [f"{where}: {ours}, not {theirs}"]


def lacking(ours: Any, required: Any, where: str = "") -> list[str]:
    if isinstance(required, list):
        return [each for one in ours for each in lacking(one, required[0], f"{where}[]")]
    if isinstance(required, dict) and isinstance(ours, dict):
        missing = [f"{where}.{key}" for key in required.keys() - ours.keys()]
        return missing + [
            each
            for key in required.keys() & ours.keys()
            for each in lacking(ours[key], required[key], f"{where}.{key}")
        ]
    return []


@pytest.fixture
def run(made: MadeRun) -> Path:
    """Two levels; a failed turn and one that was given up in the first."""
    made.levels = [level(0), level(1, start_s=80, window_s=(85, 145), end_s=150)]
    answered = [turn(n, sent_s=6 + n, ttft_ms=100 + n, gap_ms=20, events=11) for n in range(30)]
    answered += [turn(50 + n, sent_s=86 + n, events=6) for n in range(30)]
    failed = turn(90, sent_s=20, events=0, outcome="http_5xx", error="busy", output_tokens=None, status=500)
    given_up = turn(91, sent_s=21, events=3, outcome="stalled", error="silent for 30 s", output_tokens=None)
    made.turns = [*answered, failed, given_up]
    made.manifest = {"labels": {"gpu": "a100"}, "emulated": True}
    return made.write()


def exported(run: Path, to: str, capsys: pytest.CaptureFixture[str]) -> list[Path]:
    assert main([str(run), "--to", to, "--out", str(run / "out")]) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


def test_vllms_layout_has_its_keys_and_its_types(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = json.loads((FIXTURES / "vllm-0.32.0.json").read_text())
    first, second = exported(run, "vllm", capsys)
    assert [first.name, second.name] == ["vllm-level-0.json", "vllm-level-1.json"]
    ours = json.loads(first.read_text())
    metadata = {key for key in ours if key.startswith(("turnbench_", "label_"))}
    assert ours["turnbench_emulated"] == "true"
    assert ours["label_gpu"] == "a100"
    own = {key: value for key, value in ours.items() if key not in metadata}
    assert own.keys() == theirs.keys()
    assert strange(shape(own), theirs) == []


def test_vllms_numbers_are_those_of_answered_turns(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(exported(run, "vllm", capsys)[0].read_text())
    assert (first["num_prompts"], first["completed"], first["failed"]) == (32, 30, 2)
    assert (first["duration"], first["total_output_tokens"]) == (60.0, 330)
    assert first["output_throughput"] == pytest.approx(5.5)
    assert first["max_concurrency"] == 4
    assert (first["max_concurrent_requests"], first["max_output_tokens_per_s"]) == (1, 11.0)
    assert first["median_ttft_ms"] == pytest.approx(114.5)
    assert first["p99_itl_ms"] == pytest.approx(20)
    assert first["mean_tpot_ms"] == pytest.approx(20)
    assert first["mean_e2el_ms"] == pytest.approx(314.5)
    wrong = first["errors"].index("busy")
    assert (first["ttfts"][wrong], first["itls"][wrong], first["output_lens"][wrong]) == (0, [], 0)
    lists = [value for value in first.values() if isinstance(value, list)]
    assert {len(each) for each in lists} == {32}


def test_guidellms_layout_has_what_its_reader_needs_and_nothing_it_does_not_know(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = json.loads((FIXTURES / "guidellm-0.8.1.json").read_text())
    (path,) = exported(run, "guidellm", capsys)
    ours = json.loads(path.read_text())
    assert path.name == "benchmarks.json"
    assert lacking(ours, theirs["required"]) == []
    free = ("strategy", "profile", "backend", "requests", "environment", "constraints", "data", "labels")
    found = strange(shape(ours), theirs["shape"])
    assert [
        each for each in found if not any(f".{name}." in each or f".{name}[]." in each for name in free)
    ] == []
    assert ours["config"]["metadata"]["labels"]["turnbench_emulated"] == "true"


def test_guidellms_numbers_are_by_status_and_of_the_window(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = json.loads(exported(run, "guidellm", capsys)[0].read_text())["benchmarks"]
    metrics = first["metrics"]
    assert metrics["request_totals"] == {"successful": 30, "errored": 1, "incomplete": 1, "total": 32}
    ttft = metrics["time_to_first_token_ms"]
    assert ttft["successful"]["percentiles"]["p50"] == 114
    assert ttft["incomplete"]["count"] == 1
    assert ttft["errored"]["count"] == 0
    assert metrics["inter_token_latency_ms"]["successful"]["mean"] == pytest.approx(20)
    assert metrics["time_per_output_token_ms"]["successful"]["max"] == pytest.approx(329 / 11)
    assert metrics["requests_per_second"]["successful"]["mean"] == pytest.approx(0.5)
    assert metrics["output_token_count"]["successful"]["total_sum"] == 330
    assert [len(first["requests"][status]) for status in ("successful", "errored", "incomplete")] == [
        30,
        1,
        1,
    ]
    assert first["requests"]["errored"][0]["info"]["error"] == "busy"
    timings = first["requests"]["successful"][0]["info"]["timings"]
    assert timings["request_start"] == pytest.approx((START_NS + 6 * S) / 1e9)
    assert timings["first_token_iteration"] - timings["request_start"] == pytest.approx(0.1, abs=1e-6)
    assert second["start_time"] - first["start_time"] == pytest.approx(80)


def test_a_csv_has_a_row_for_every_record_and_no_name_that_a_spreadsheet_would_run(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n, sent_s=6 + n, task="=cmd()" if n else "chat") for n in range(20)]
    (path,) = exported(made.write(), "csv", capsys)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert float(rows[0]["ttft_ms"]) == 100
    assert rows[0]["expected"] == ""
    assert not [row for row in rows if row["task"].startswith("=")]


def test_several_models_are_told_apart_in_files_and_in_trackers(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [
        turn(n, sent_s=6 + n / 2, model="a/b" if n % 2 else "c", ttft_ms=100 if n % 2 else 200)
        for n in range(60)
    ]
    made.manifest = {"endpoint": {"url": "http://h/v1", "model": "a/b=0.5,c=0.5"}}
    run = made.write()
    ((level, numbers),) = numbers_by_level(RunResult(run))
    found = [numbers[f"{model}ttft_ms/p50"] for model in ("a_b/", "c/", "c/chat/", "")]
    assert (level, found[:3]) == (0, [100, 200, 200])
    assert 100 <= found[3] <= 200
    files = [path.name for path in exported(run, "vllm", capsys)]
    assert files == ["vllm-level-0-model-0.json", "vllm-level-0-model-1.json"]


def test_trackers_get_the_numbers_of_a_run_that_names_its_model_otherwise(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2) for n in range(60)]
    made.manifest = {"endpoint": {"url": "http://h/v1", "model": ""}}
    ((_, numbers),) = numbers_by_level(RunResult(made.write()))
    assert (numbers["ttft_ms/p50"], numbers["chat/ttft_ms/p50"]) == (100, 100)


@pytest.mark.parametrize("to", ["otlp", "mlflow", "wandb"])
def test_a_library_that_is_missing_is_one_line_with_what_to_install(
    run: Path, to: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnbench.extras.find_spec", lambda name: None)
    assert main([str(run), "--to", to]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"pip install 'turnbench[{to}]'" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["RUN", "--to", "excel"], "--to"),
        (["RUN", "--to", "otlp", "--out", "x"], "--out is for files"),
        (["RUN", "--to", "csv", "--endpoint", "http://x"], "--endpoint is for --to otlp"),
        (["RUN", "--to", "otlp", "--endpoint", "collector:4318"], "http://127.0.0.1:4318"),
        (["RUN", "--to", "otlp", "--endpoint", "http://[::1"], "http://127.0.0.1:4318"),
        (["RUN", "--to", "otlp", "--endpoint", "http://h:x"], "http://127.0.0.1:4318"),
        (["RUN", "--to", "otlp", "--endpoint", "http://a:key@h"], "OTEL_EXPORTER_OTLP_HEADERS"),
        (["RUN", "RUN", "--to", "csv", "--out", "x"], "one RUN"),
        (["RUN/nowhere", "--to", "csv"], "nowhere"),
        (["RUN/run.json", "--to", "csv"], "no run.json here"),
        (["RUN", "--to", "csv", "--out", "RUN/run.json"], "run.json"),
    ],
)
def test_a_mistake_ends_with_exit_2_and_one_line(
    run: Path, words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([word.replace("RUN", str(run)) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr().err
    assert code == 2
    assert hint in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (run / "nowhere").exists()


def test_a_run_without_a_measured_turn_is_written_and_says_nothing(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.write()
    assert exported(run, "vllm", capsys) == []
    (path,) = exported(run, "guidellm", capsys)
    assert json.loads(path.read_text())["benchmarks"] == []


def test_a_level_in_which_nothing_was_answered_has_zeros_as_the_tools_have(
    made: MadeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    made.turns = [turn(n, sent_s=6 + n, events=0, outcome="connect", status=None) for n in range(3)]
    found = json.loads(exported(made.write(), "vllm", capsys)[0].read_text())
    assert (found["completed"], found["mean_ttft_ms"], found["output_throughput"]) == (0, 0, 0)
    assert np.isfinite([value for value in found.values() if isinstance(value, int | float)]).all()
