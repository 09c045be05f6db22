"""summary.json: one run's verdict, levels, cells, client and outcomes as plain values."""

from __future__ import annotations

from typing import Any

import msgspec

from analysis.checks.evidence import RunEvidence, worst
from analysis.checks.verdict import findings_of
from analysis.measures.by_turn import by_context, by_turn, conversations_of
from analysis.measures.cells import cells_of
from analysis.measures.client import client_of
from analysis.measures.ledger import ledger_of, outcomes_of
from analysis.measures.load_curve import little, load_curve
from analysis.measures.throughput import streams_mean
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding
from turnbench.limits import holds

SUMMARY_FORMAT = "turnbench-summary/1"
EXIT_VALID, EXIT_MISSED, EXIT_BAD_CONFIGURATION, EXIT_INVALID = 0, 1, 2, 3

Summary = dict[str, Any]


def summarise(study: Study) -> Summary:
    """The summary of one run; every number is finite or null."""
    ledger = ledger_of(study)
    findings = findings_of(RunEvidence(study, ledger))
    levels = [_level(study, level, findings) for level in study.levels]
    return {
        "format": SUMMARY_FORMAT,
        "run": study.run.path.resolve().name,
        "emulated": study.emulated,
        "partial": study.manifest.status != "finished",
        "verdict": {"status": worst(findings), "findings": msgspec.to_builtins(findings)},
        "levels": levels,
        "curve": load_curve(study, levels),
        "by_turn": by_turn(study),
        "by_context": by_context(study),
        "cells": cells_of(study),
        "reading_words_per_min": study.words_per_min,
        "client": client_of(study),
        "outcomes": outcomes_of(study, ledger),
        "ledger": vars(ledger),
    }


def _level(study: Study, level: Level, findings: list[Finding]) -> dict[str, Any]:
    rows = study.measured[study.measured["level"] == level.index]
    limited = rows[rows["meets"].notna()]
    shares = limited["task"].map({task: item.share for task, item in study.limits.items()}).astype(float)
    streams = streams_mean(study.frame, level)
    return {
        "index": level.index,
        "users": level.users,
        "arrival_rate_per_s": level.arrival_rate_per_s,
        "load": level.load,
        "status": worst(finding for finding in findings if _concerns(finding, level)),
        "window_s": level.window_s,
        "streams_mean": streams,
        "little": little(rows, level, streams),
        "conversations": conversations_of(study, level),
        "holds_limits": holds(int(limited["meets"].astype(int).sum()), floats(shares)),
    }


def _concerns(finding: Finding, level: Level) -> bool:
    """Whether it says something of this level: where the whole run is INVALID, no level can be trusted."""
    return finding.at == level.index or (finding.at is None and finding.level == "invalid")


def exit_code(summary: Summary) -> int:
    """3 for INVALID, 1 where a level misses its limits, else 0."""
    if summary["verdict"]["status"] == "invalid":
        return EXIT_INVALID
    missed = any(level["holds_limits"] is False for level in summary["levels"])
    return EXIT_MISSED if missed else EXIT_VALID
