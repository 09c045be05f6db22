"""Recorded runs whose right reading is known; test_compare_runs.py has those that are held to a baseline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.summary import summarise
from analysis.turns.study import study_run
from tests.analysis.conftest import checks
from turnbench.formats import summary_json
from turnbench.run_directory import read_run

RUNS = Path(__file__).parents[1] / "fixtures" / "readings"


def reading(tmp_path: Path, name: str) -> dict[str, Any]:
    shutil.copytree(RUNS / name, tmp_path / name)
    return summary_json(summarise(study_run(read_run(tmp_path / name))))


def test_reasoning_that_was_counted_and_never_streamed_makes_no_token_quicker(tmp_path: Path) -> None:
    """1001 tokens, 900 of them hidden; 100 events, 20 ms apart."""
    summary = reading(tmp_path, "hidden-reasoning")
    cell = summary["cells"][0]
    assert cell["tpot_ms"]["p50"] == pytest.approx(20, rel=0.011)
    assert cell["decode_tokens_per_s"]["p50"] == pytest.approx(50, rel=0.011)
    assert cell["tps"] == pytest.approx(1001 / 3.98, rel=1e-3)
    assert cell["visible_tps"] == pytest.approx(101 / 3.98, rel=1e-3)
    assert summary["verdict"]["status"] == "valid"


def test_a_server_that_stood_still_for_three_seconds_is_not_said_to_have_stayed_slow(tmp_path: Path) -> None:
    summary = reading(tmp_path, "frozen-server")
    assert "stayed so" not in " ".join(finding["what"] for finding in summary["verdict"]["findings"])
    cell = summary["cells"][0]
    assert cell["response_delay_ms"]["max"] > 2900, "who came due meanwhile shows that wait"
    assert cell["tpot_ms"]["p50"] < 30
    assert "drift" not in checks(summary)
