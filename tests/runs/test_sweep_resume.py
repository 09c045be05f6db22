"""A sweep that is killed in the middle goes on where it stopped, and counts nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PLAN = """\
format: turnbench-sweep-plan/1
name: short
models: [yi-6b]
scenarios: [choose, explain]
repeats: 2
seed: 5
run: {levels: "2", hold: 1s, warmup: "0", drain: 2s, max-tokens: "8"}
"""


def sweep(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadgen", "sweep", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_killed_sweep_is_resumed_with_nothing_counted_twice(tmp_path: Path, tools: Any) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    first = sweep(tmp_path, "plan.yaml")

    def cells() -> dict[str, str]:
        found = list(tmp_path.glob("runs/*-short/sweep.json"))
        return {c["dir"]: c["status"] for c in json.loads(found[0].read_bytes())["cells"]} if found else {}

    def half_way() -> bool:
        running = [name for name, status in cells().items() if status == "running"]
        begun = [r for r in running if any(tmp_path.glob(f"runs/*-short/{r}/run.json"))]
        return "finished" in cells().values() and bool(begun)

    tools.wait_until(half_way, "one run done and the next one begun", 60)
    before = cells()
    first.kill()
    first.communicate()
    (where,) = tmp_path.glob("runs/*-short")
    kept = {n: (where / n / "turns-0.jsonl").read_bytes() for n, s in before.items() if s == "finished"}
    second = sweep(tmp_path, "--resume", str(where))
    said, _ = second.communicate(timeout=110)
    assert second.returncode in (0, 1, 3), said
    assert "left, about" in said
    assert "this takes at least" in said
    assert set(cells()) == set(before) == {f"yi-6b-{s}-r{r}" for s in ("choose", "explain") for r in (1, 2)}
    assert set(cells().values()) == {"finished"}
    for name, turns in kept.items():
        assert (where / name / "turns-0.jsonl").read_bytes() == turns, "a finished run was played again"
    (half,) = [name for name, status in before.items() if status == "running"]
    assert list((where / "half-done").iterdir()) == [where / "half-done" / f"{half}-1"]
    summary = json.loads((where / "summary.json").read_bytes())
    assert "half-done" not in json.dumps(summary)


def test_a_directory_without_a_sweep_cannot_be_resumed(tmp_path: Path) -> None:
    said, _ = (process := sweep(tmp_path, "--resume", str(tmp_path))).communicate(timeout=30)
    assert process.returncode == 2
    assert "no sweep that can be resumed" in said


def test_a_sweep_loads_servers_that_run_already(server: Any, tmp_path: Path) -> None:
    at = server("--ttft", "5ms", "--itl", "1ms", "--tokens", "3")
    plan = PLAN.replace("models: [yi-6b]", f"endpoints: {{mine: '{at.url}', again: '{at.url}/v1'}}")
    plan = plan.replace("[choose, explain]", "[choose]").replace("repeats: 2", "repeats: 1")
    (tmp_path / "plan.yaml").write_text(plan)
    said, _ = (process := sweep(tmp_path, "plan.yaml")).communicate(timeout=100)
    assert process.returncode in (0, 1, 3), said
    (where,) = tmp_path.glob("runs/*-short")
    lines = [(where / f"{n}-choose" / "turns-0.jsonl").read_bytes().count(b"\n") for n in ("mine", "again")]
    assert min(lines) > 0
    assert sum(lines) == len(at.truth())
