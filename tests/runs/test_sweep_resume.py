"""A sweep that is killed in the middle goes on where it stopped, and counts nothing twice."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import alive, below
from tests.verdicts import exit_code_of
from turnbench.sweep.processes import SweepBusy, SweepLock

HELD = """\
format: turnbench-sweep-plan/1
name: short
models: [yi-6b]
scenarios: [choose, explain]
repeats: 2
seed: 5
run: {levels: "2", hold: 1s, warmup: "0", drain: 2s, max-tokens: "8"}
"""

ONCE = """\
format: turnbench-sweep-plan/1
name: short
models: [yi-6b]
scenarios: [choose, paraphrase]
levels: [2, 6, 12]
variants: {natural: {}, exact: {exact-tokens: "on", max-tokens: "64"}}
parallel: 2
run: {once: "on"}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Starts sweeps in a folder of their own; kills whatever is left of them."""
    started: list[Sweep] = []

    def start(*options: str) -> Sweep:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadgen", "sweep", *options], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(Sweep(process, tmp_path))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


@dataclass
class Sweep:
    """A running sweep, and what it has written so far."""

    process: subprocess.Popen[str]
    home: Path
    said: str = ""

    @property
    def where(self) -> Path:
        (found,) = (path for path in self.home.glob("runs/*") if path.is_dir() and not path.is_symlink())
        return found

    def end(self, limit_s: float = 110) -> int:
        self.said, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode

    def end_as_judged(self, limit_s: float = 110) -> None:
        """Wait for its end; its exit code must be the worst that its own runs stand for."""
        assert self.end(limit_s) == exit_code_of(self.where / "summary.json"), self.said

    def cells(self) -> dict[str, str]:
        """The status of each run by its directory."""
        if not list(self.home.glob("runs/*/sweep.json")):
            return {}
        return {c["dir"]: c["status"] for c in json.loads((self.where / "sweep.json").read_bytes())["cells"]}

    def half_way(self) -> bool:
        """One run has ended and another one has turns."""
        assert self.process.poll() is None, "the sweep has ended by itself"
        cells = self.cells()
        running = [name for name, status in cells.items() if status == "running"]
        return "finished" in cells.values() and any(self.turns_of(name) for name in running)

    def amid_a_window(self) -> bool:
        """One run has ended; another one has turns, and measures for a second more at least."""
        running = [name for name, status in self.cells().items() if status == "running"]
        return self.half_way() and any(self.turns_of(name) and self.left_s(name) > 1 for name in running)

    def left_s(self, name: str) -> float:
        """How long the last window of a run still is; 0 where none has begun."""
        levels = json.loads((self.where / name / "run.json").read_bytes())["levels"]
        ends_ns = levels[-1]["window_end_ns"] if levels else None
        return (ends_ns - time.time_ns()) / 1e9 if ends_ns else 0.0

    def amid_a_long_run(self) -> bool:
        """One run has ended; in another one, of six turns that take seconds, half are still to come."""
        slow = [name for name in self.cells() if name.endswith("exact-u2")]
        return self.half_way() and any(1 <= self.turns_of(name) <= 3 for name in slow)

    def turns_of(self, name: str) -> int:
        file = self.where / name / "turns-0.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    def kept(self) -> dict[str, bytes]:
        """The records of the runs that have ended."""
        done = [name for name, status in self.cells().items() if status == "finished"]
        return {name: (self.where / name / "turns-0.jsonl").read_bytes() for name in done}

    def index(self) -> list[dict[str, str]]:
        with (self.where / "index.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def family(self) -> list[psutil.Process]:
        return below(self.process.pid)


def turns_in(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "turns-0.jsonl").read_text().splitlines()]


def places_of(run: Path) -> list[tuple[int, int]]:
    """Conversation and turn of every record."""
    return [(turn["conversation"], turn["turn"]) for turn in turns_in(run)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_sweep_is_resumed_with_nothing_counted_twice(
    tmp_path: Path, sweep: Callable[..., Sweep], tools: Any
) -> None:
    """`make paper` in small: every question once, some runs beside each other, kill -9 in the middle."""
    (tmp_path / "plan.yaml").write_text(ONCE)
    first = sweep("plan.yaml", "--questions", "6")
    tools.wait_until(first.amid_a_long_run, "one run done and a long one begun", 60)
    assert list(first.where.glob("servers/*.json")), "where `serve stop` does not look"
    left = first.family()
    first.process.kill()
    first.end()
    before, kept = first.cells(), first.kept()
    second = sweep("--resume", "runs/LATEST")
    second.end_as_judged(150)
    assert (tmp_path / "runs" / "LATEST").resolve() == second.where
    assert not any(map(alive, left)), "something of the killed sweep still runs"
    parts = ("yi-6b",), ("choose-6", "paraphrase-6"), ("natural", "exact"), ("u2", "u6")
    assert set(second.cells()) == set(before) == {"-".join(each) for each in itertools.product(*parts)}
    assert set(second.cells().values()) == {"finished"}
    for name, turns in kept.items():
        assert (second.where / name / "turns-0.jsonl").read_bytes() == turns, (
            "a finished run was played again"
        )
    for name in before:  # every question of every run, and none twice
        assert sorted(places_of(second.where / name)) == [(number, 1) for number in range(6)]
    halves = {path.name.rpartition("-")[0] for path in (second.where / "half-done").iterdir()}
    assert halves
    assert halves <= {name for name, status in before.items() if status == "running"}
    assert [row["turns"] for row in second.index()] == [row["planned"] for row in second.index()] == ["6"] * 8
    assert "8 of 8 runs" in second.said
    assert "48 turns recorded, 48 planned" in second.said
    assert "this takes about" in second.said
    assert "half-done" not in (second.where / "summary.json").read_text()


@pytest.mark.timeout(240)
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_stops_runs_before_servers_and_leaves_none(
    tmp_path: Path, sweep: Callable[..., Sweep], tools: Any, number: int, code: int
) -> None:
    plan = HELD.replace("[choose, explain]", "[choose]").replace("repeats: 2", "repeats: 3")
    (tmp_path / "plan.yaml").write_text(plan.replace("hold: 1s", "hold: 3s"))
    first = sweep("plan.yaml")
    tools.wait_until(first.amid_a_window, "one run done and the next one amid its window", 60)
    family = first.family()
    os.killpg(first.process.pid, number)  # as Ctrl-C in a terminal does
    assert first.end(60) == code, first.said
    assert not any(map(alive, family))
    assert f"--resume {first.where.relative_to(first.home)}" in first.said
    cells = first.cells()
    (half,) = [name for name, status in cells.items() if status == "interrupted"]
    outcomes = {turn["outcome"] for turn in turns_in(first.where / half)}
    assert outcomes <= {"ok", "cut", "unfinished"}, "its server went before the run had drained"
    assert f"ended by {signal.Signals(number).name}: 1 of 3 runs have finished in " in first.said
    assert f"to play the others: turnbench sweep --resume {Path('runs') / first.where.name}\n" in first.said
    kept = first.kept()
    second = sweep("--resume", str(first.where))
    second.end_as_judged()
    assert set(second.cells().values()) == {"finished"}
    assert "to go, about" in second.said
    assert {name: second.kept()[name] for name in kept} == kept


@pytest.mark.slow
def test_one_server_answers_all_runs_of_a_model_and_precision(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    plan = HELD.replace("repeats: 2", "precisions: [fp16, int8]").replace("hold: 1s", "hold: 0.5s")
    (tmp_path / "plan.yaml").write_text(plan)
    one = sweep("plan.yaml")
    one.end_as_judged()
    assert set(one.cells().values()) == {"finished"}
    assert one.said.count("starting a server: yi-6b fp16") == 1
    assert one.said.count("starting a server: yi-6b int8") == 1


def test_two_never_play_one_sweep_at_once(tmp_path: Path) -> None:
    lock = SweepLock(tmp_path, print)
    said: list[str] = []
    with pytest.raises(SweepBusy):
        SweepLock(tmp_path, said.append, wait_s=0.2)
    assert said == ["waiting for what is left of this sweep's last time to end"]
    os.close(lock.file)
    SweepLock(tmp_path, said.append)


def test_a_directory_without_a_sweep_cannot_be_resumed(tmp_path: Path, sweep: Callable[..., Sweep]) -> None:
    one = sweep("--resume", str(tmp_path))
    assert one.end(30) == 2
    assert "no sweep that can be resumed" in one.said


@pytest.mark.slow
def test_a_sweep_loads_servers_that_run_already(
    server: Any, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    at = server("--ttft", "5ms", "--itl", "1ms", "--tokens", "3")
    plan = HELD.replace("models: [yi-6b]", f"endpoints: {{mine: '{at.url}', again: '{at.url}/v1'}}")
    plan = plan.replace("[choose, explain]", "[choose]").replace("repeats: 2", "repeats: 1")
    (tmp_path / "plan.yaml").write_text(plan)
    one = sweep("plan.yaml")
    one.end_as_judged()
    sent = [sum(turn["sent_ns"] is not None for turn in turns_in(one.where / f"{name}-choose"))
            for name in ("mine", "again")]  # fmt: skip
    assert min(sent) > 0
    assert sum(sent) == len(at.truth())
