"""A finding is one kind and one function in one list: it stands in verdict, summary and status by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from analysis.checks import verdict
from analysis.checks.evidence import LevelEvidence, RunEvidence
from tests.analysis.conftest import MadeRun, checks, level, summary_of, turn
from turnbench.findings import note, suspect
from turnbench.formats import Finding

MANY = suspect("many", "{} turns", "send fewer of them")
ODD = note("odd", "the seed is odd", "take another one")


def many_turns(at: LevelEvidence) -> Iterator[Finding]:
    if len(at.rows) > 2:
        yield at.finding(MANY, len(at.rows))


def odd_seed(run: RunEvidence) -> Iterator[Finding]:
    if run.study.manifest.seed % 2:
        yield ODD.finding()


def test_a_toy_finding_of_a_level_makes_that_level_suspect(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "LEVEL_CHECKS", [*verdict.LEVEL_CHECKS, many_turns])
    made.levels = [level(0, window_s=(5, 30), end_s=40), level(1, start_s=40, window_s=(45, 65))]
    made.turns = [*(turn(n) for n in range(3)), turn(3, sent_s=50)]
    summary = summary_of(made)
    assert checks(summary)["many"] == "suspect"
    found = next(f for f in summary["verdict"]["findings"] if f["check"] == "many")
    assert (found["level"], found["what"], found["at"]) == ("suspect", "level 0: 3 turns", 0)
    assert [one["status"] for one in summary["levels"]] == ["suspect", "valid"]


def test_a_toy_finding_of_the_run_is_one_of_its_findings(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "RECORD_CHECKS", [*verdict.RECORD_CHECKS, odd_seed])
    made.manifest["seed"] = 3
    made.turns = [turn(0)]
    assert checks(summary_of(made))["odd"] == "note"
