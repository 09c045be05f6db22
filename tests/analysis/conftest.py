"""Made runs with a known truth: a small writer of run directories, without any engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analysis.summary import exit_code, summarise
from analysis.turns.study import study_run
from turnbench.formats import RUN_FORMAT, TurnRecord, summary_json
from turnbench.run_directory import read_run

START_NS = 1_700_000_000_000_000_000
S = 1_000_000_000
MS = 1_000_000


def turn(
    conversation: int = 0,
    number: int = 1,
    *,
    sent_s: float = 10.0,
    ttft_ms: float = 100.0,
    gap_ms: float = 20.0,
    events: int = 10,
    late_ms: float = 0.0,
    **other: Any,
) -> TurnRecord:
    """One turn with an even stream; `sent_s` counts from the run's start, other fields as given."""
    event_us = [round(ttft_ms * 1000 + i * gap_ms * 1000) for i in range(events)]
    sent_ns = START_NS + round(sent_s * S)
    fields: dict[str, Any] = {
        "run": "made",
        "conversation": conversation,
        "turn": number,
        "task": "chat",
        "model": "tiny",
        "due_ns": sent_ns - round(late_ms * MS),
        "sent_ns": sent_ns,
        "head_ns": sent_ns + MS,
        "end_ns": sent_ns + (event_us[-1] * 1000 if event_us else MS),
        "connect_us": 0,
        "event_us": event_us,
        "event_words": [1] * events,
        "answer_event": 0 if events else None,
        "output_tokens": events,
        "prompt_tokens": 50,
        "token_source": "usage",
        "chars": 5 * events,
        "words": events,
        "finish_reason": "stop",
        "status": 200,
    }
    return TurnRecord(**(fields | other))


def level(
    index: int = 0,
    *,
    start_s: float = 0.0,
    window_s: tuple[float, float] = (5.0, 65.0),
    end_s: float = 70.0,
    **other: Any,
) -> dict[str, Any]:
    """One level of run.json, times counted from the run's start."""
    times = {
        "start_ns": start_s,
        "window_start_ns": window_s[0],
        "window_end_ns": window_s[1],
        "end_ns": end_s,
    }
    stamped = {key: START_NS + round(value * S) for key, value in times.items()}
    return {"index": index, "users": 4, "arrival_rate_per_s": None} | stamped | other


@dataclass
class MadeRun:
    """A run directory in the making; `write()` puts it on the disk, with health lines that fit."""

    path: Path
    turns: list[TurnRecord] = field(default_factory=list)
    levels: list[dict[str, Any]] = field(default_factory=lambda: [level()])
    manifest: dict[str, Any] = field(default_factory=dict)
    health: list[dict[str, Any]] | None = None
    """None: one line a second and worker whose ledger closes."""
    cpu_share: float = 0.2
    loop_lag_ms: float = 1.0

    def write(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        manifest = {
            "format": RUN_FORMAT,
            "status": "finished",
            "started_at": "2023-11-14T22:13:20Z",
            "ended_at": "2023-11-14T22:14:30Z",
            "exit_code": 0,
            "settings": {"scenario": "chat", "model": "tiny"},
            "seed": 0,
            "salt": "00",
            "versions": {"turnbench": "0.1.0"},
            "host": {"cpus": 2},
            "endpoint": {"url": "http://127.0.0.1:8000/v1", "model": "tiny"},
            "server": {},
            "emulated": False,
            "workers": [{"index": 0, "host": "here", "clock_offset_ns": 0, "clock_error_ns": 0}],
            "levels": self.levels,
            "labels": {},
            "slo": {},
            "findings": [],
        }
        (self.path / "run.json").write_text(json.dumps(manifest | self.manifest))
        by_worker: dict[int, list[TurnRecord]] = {}
        for record in self.turns:
            by_worker.setdefault(record.worker, []).append(record)
        encoder = msgspec.json.Encoder()
        for worker, records in by_worker.items():
            lines = encoder.encode_lines(records)
            (self.path / f"turns-{worker}.jsonl").write_bytes(lines)
        self._write_health(by_worker)
        return self.path

    def _write_health(self, by_worker: dict[int, list[TurnRecord]]) -> None:
        made = [line for worker in by_worker for line in self._health_of(worker, by_worker[worker])]
        for line in made if self.health is None else self.health:
            with (self.path / f"health-{line.get('worker', 0)}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _health_of(self, worker: int, records: list[TurnRecord]) -> list[dict[str, Any]]:
        turns = {(r.conversation, r.turn, r.due_ns): r for r in records}
        count = sum(r.outcome != "dropped" for r in turns.values())
        dropped = len(turns) - count
        return [
            {
                "t_ns": START_NS + second * S,
                "worker": worker,
                "loop_lag_ms": self.loop_lag_ms,
                "cpu_share": self.cpu_share,
                "rss_mb": 80.0,
                "files": 20,
                "in_flight": 0,
                "planned": len(turns),
                "dropped": dropped,
                "begun": count,
                "finished": count,
            }
            for second in range(70)
        ]


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """An empty made run; add turns, then `write()` it."""
    return MadeRun(tmp_path / "run")


def summary_of(run: MadeRun) -> dict[str, Any]:
    """Write a made run and summarise it."""
    return summary_json(summarise(study_run(read_run(run.write()))))


def exit_code_of(path: Path) -> int:
    """The exit code of analysing a run directory."""
    return exit_code(summarise(study_run(read_run(path))))


def cell_of(
    summary: dict[str, Any], task: str = "all", level: int | str = 0, model: str = "tiny"
) -> dict[str, Any]:
    """One cell of a summary."""
    keys = (model, task, level)
    return next(c for c in summary["cells"] if (c["model"], c["task"], c["level"]) == keys)


def checks(summary: dict[str, Any]) -> dict[str, str]:
    """check -> level of every finding."""
    return {finding["check"]: finding["level"] for finding in summary["verdict"]["findings"]}
