"""A run directory is read whatever stands in it: what can be used is used, the rest is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from turnbench.formats import (
    RUN_FORMAT,
    Finding,
    HealthLine,
    LevelEntry,
    RunManifest,
    ServerSample,
    WorkerEntry,
)
from turnbench.run_directory import RunDirectory, RunError, read_run, read_sweep


def run_of(path: Path, **manifest: Any) -> RunDirectory:
    (path / "run.json").write_text(json.dumps({"format": RUN_FORMAT} | manifest))
    return read_run(path)


def test_what_was_written_whole_is_read_whole(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        status="finished",
        levels=[{"index": 2, "users": 4, "start_ns": 5}],
        workers=[{"index": 1, "clock_offset_ns": 7}],
        findings=[{"level": "suspect", "check": "x", "what": "w", "remedy": "r"}],
        slo={"chat": {"ttft_ms": 100, "share": 0.9}},
    )
    assert run.manifest == RunManifest(
        status="finished",
        levels=[LevelEntry(index=2, users=4, start_ns=5)],
        workers=[WorkerEntry(index=1, clock_offset_ns=7)],
        findings=[Finding("suspect", "x", "w", "r")],
        slo={"chat": {"ttft_ms": 100.0, "share": 0.9}},
    )
    assert run.notes == []


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        ({"emulated": "yes"}, "emulated: Expected `bool`, got `str`"),
        ({"levels": 7}, "levels: Expected `array`, got `int`"),
        ({"levels": [None]}, "levels[0]: Expected `object`, got `null`"),
        ({"levels": [{"users": "four"}]}, "levels[0].users: Expected `int | null`, got `str`"),
        ({"levels": [{"start_ns": 10**30}]}, "levels[0].start_ns: "),
        ({"workers": [{"host": "a"}]}, "workers[0]: Missing required argument 'index'"),
        ({"slo": {"chat": {"ttft_ms": "fast"}}}, "slo.chat.ttft_ms: Expected `float`, got `str`"),
        ({"status": "odd"}, "status: Invalid enum value 'odd'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_broken_value_becomes_the_default_and_is_noted(
    broken: dict[str, Any], note: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path, **({"seed": 3} | broken))
    assert run.notes[0].startswith(note)
    assert run.manifest.seed == 3


def test_a_value_beside_a_broken_one_is_kept(tmp_path: Path) -> None:
    run = run_of(tmp_path, levels=[{"index": 1, "users": {}, "start_ns": 5.0}, 3, {"index": 2}])
    assert run.manifest.levels == [LevelEntry(index=1, start_ns=5), LevelEntry(index=2)]


def test_health_lines_are_salvaged_number_by_number(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    lines = ['{"t_ns": 1, "worker": 0, "begun": "?", "files": 3}', '{"t_ns": 2}', "[]", '{"t_ns": 3, "wor']
    (tmp_path / "health-0.jsonl").write_text("\n".join(lines))
    assert list(run.health()) == [HealthLine(t_ns=1, worker=0, files=3)]
    assert run.torn == 1


def test_of_the_servers_metrics_only_numbers_at_a_time_are_kept(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (tmp_path / "server.jsonl").write_text('{"t_ns": 5, "up": 1, "name": "x", "on": true}\n{"up": 1}\n[]\n{')
    assert list(run.server()) == [ServerSample(5, {"up": 1})]
    assert run.torn == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "turnbench-run/9"}', "[" * 100_000])
def test_a_file_of_another_format_is_one_line(text: str, tmp_path: Path) -> None:
    for name, read in (("run.json", read_run), ("sweep.json", read_sweep)):
        (tmp_path / name).write_text(text)
        with pytest.raises(RunError) as error:
            read(tmp_path)
        assert "\n" not in str(error.value)


def test_a_directory_without_a_sweep_has_none(tmp_path: Path) -> None:
    assert read_sweep(tmp_path) is None
