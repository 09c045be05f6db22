"""Our numbers against a second, plain implementation: a stored run, a drawn one, and every outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from analysis.summary import summarise
from analysis.turns.study import study_run
from tests.analysis import plain_metrics as plain
from tests.analysis.conftest import MS, MadeRun, turn
from tests.analysis.conftest import level as level_entry
from tests.analysis.drawn import WINDOWS_S, drawn_run, record_of
from turnbench.formats import TurnRecord, summary_json
from turnbench.run_directory import read_run

STORED = Path(__file__).parents[1] / "fixtures" / "run-2026-11" / "run"
Turns = dict[tuple[int, int], plain.Record]
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def compared(path: Path) -> int:
    """Compare every cell of one level of a run; how many numbers were."""
    summary: dict[str, Any] = summary_json(summarise(study_run(read_run(path))))
    manifest = json.loads((path / "run.json").read_text())
    stop_counted = manifest.get("server", {}).get("backend") in ("vllm", "emulator")
    lines = [line for file in sorted(path.glob("turns-*.jsonl")) for line in file.read_bytes().splitlines()]
    blank = msgspec.to_builtins(TurnRecord(run="", conversation=0, turn=1, task="", model="", due_ns=0))
    records = [blank | json.loads(line) for line in lines]
    attempts = {}
    for r in records:
        key = r["conversation"], r["turn"]
        if key not in attempts or r["attempt"] > attempts[key]["attempt"]:
            attempts[key] = r
    first = {(r["conversation"], r["turn"]): r for r in sorted(records, key=lambda r: -r["attempt"])}
    levels = {entry["index"]: entry for entry in manifest["levels"]}
    count = 0
    for cell in summary["cells"]:
        if cell["level"] == "all":
            continue
        at = levels[cell["level"]]
        window = at["window_start_ns"], at["window_end_ns"]
        mine = [
            r
            for key, r in attempts.items()
            if r["outcome"] not in plain.NOT_MEASURED
            and window[0] <= (first[key]["sent_ns"] or first[key]["due_ns"]) < window[1]
            and cell["task"] in ("all", r["task"])
        ]
        count += same(plain.cell_of(mine, stop_counted), cell)
        every = [r for r in records if cell["task"] in ("all", r["task"])]
        tokens = plain.arrived(every, *window, stop_counted)
        assert cell["aggregate_tps"] == pytest.approx(tokens / ((window[1] - window[0]) / 1e9), **CLOSE)
        limits, window_s = manifest.get("slo") or {}, (window[1] - window[0]) / 1e9
        rest = {
            "fluidity": plain.fluidity(mine, limits, stop_counted),
            "turn_goodput_per_s": plain.turn_goodput(mine, limits, window_s, stop_counted),
        }
        talks = [talk for talk in conversations(attempts, first, window) if any(r in mine for r in talk)]
        whole = plain.conversation_goodput(talks, limits, window_s, stop_counted)
        rest["conversation_goodput_per_s"], rest["conversations_cut"] = whole or (None, None)
        count += 1 + same(rest, cell)
    return count


def conversations(attempts: Turns, first: Turns, window: tuple[int, int]) -> list[list[plain.Record]]:
    """The turns of each conversation whose first turn was sent in the window, in order."""
    found: dict[int, list[plain.Record]] = {}
    for (talk, _), r in sorted(attempts.items()):
        found.setdefault(talk, []).append(r)
    sent = {talk: r["sent_ns"] or r["due_ns"] for (talk, number), r in first.items() if number == 1}
    return [turns for talk, turns in found.items() if window[0] <= sent.get(talk, 0) < window[1]]


def same(expected: dict[str, Any], found: dict[str, Any]) -> int:
    count = 0
    for key, value in expected.items():
        if isinstance(value, dict) and key != "bound":
            for name, inner in value.items():
                if name in plain.LEAST and found[key][name] is None:
                    continue  # too few effective turns for it, or among those that never ended
                if name == "bound":
                    assert found[key]["bound"] == {
                        k: pytest.approx(v, **CLOSE) for k, v in inner.items() if k in found[key]["bound"]
                    }
                    assert inner.keys() >= found[key]["bound"].keys()
                elif inner is None:
                    assert found[key][name] is None, (key, name)
                else:
                    assert found[key][name] == pytest.approx(inner, **CLOSE), (key, name)
                count += 1
        elif value is None:
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(value, **CLOSE), key
            count += 1
    return count


def test_a_stored_run_agrees_with_the_plain_definitions() -> None:
    assert compared(STORED) > 300


def test_a_drawn_run_agrees_with_the_plain_definitions(tmp_path: Path) -> None:
    levels = [
        level_entry(n, start_s=start - 5, window_s=(start, end), end_s=end + 30)
        for n, (start, end) in enumerate(WINDOWS_S)
    ]
    run = MadeRun(tmp_path / "drawn", [record_of(one) for one in drawn_run()], levels)
    assert compared(run.write()) > 300


@pytest.mark.parametrize("server", [{}, {"backend": "vllm"}])
def test_every_way_to_end_agrees_with_the_plain_definitions(tmp_path: Path, server: dict[str, str]) -> None:
    rng = np.random.default_rng(4)
    outcomes = ["ok"] * 12 + ["deadline", "stalled", "abandoned", "unfinished", "truncated", "disconnected"]
    outcomes += ["http_5xx", "empty", "bad_json"]
    records = []
    for n in range(400):
        outcome = outcomes[int(rng.integers(len(outcomes)))]
        k = int(rng.integers(0 if outcome != "ok" else 1, 400)) if outcome not in ("http_5xx", "empty") else 0
        ttft, gap = float(rng.uniform(50, 900)), float(rng.uniform(1, 40))
        total = int(k * rng.choice([1, 1.5, 0.7, 3])) + int(rng.integers(0, 2))
        hidden = int(rng.choice([0, 0, 50]))
        record = turn(
            n // 3, n % 3 + 1, sent_s=6 + n / 8, ttft_ms=ttft, gap_ms=gap, events=k,
            late_ms=float(rng.uniform(0, 3)),
            outcome=outcome, output_tokens=total + hidden if k else None, reasoning_tokens=hidden or None,
            finish_reason=["stop", "length"][n % 2], token_source=["usage", "events"][n % 5 == 0],
            answer_event=(int(rng.integers(0, k)) if n % 7 == 0 else 0) if k else None,
        )  # fmt: skip
        watched = round(float(rng.uniform(0, 500)) * MS) if outcome != "ok" else 0
        records.append(msgspec.structs.replace(record, end_ns=(record.end_ns or 0) + watched))
    run = MadeRun(tmp_path / "all", records, manifest={"server": server})
    assert compared(run.write()) > 60
