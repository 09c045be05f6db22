"""The verdict: is this a measurement of the server, and what to do if it isn't.

Every check stands in one of the lists below, in the order in which findings are shown.
"""

from __future__ import annotations

from analysis.checks import answers, client, level, records, server
from analysis.checks.evidence import LevelCheck, RunCheck, RunEvidence
from turnbench.formats import Finding

RECORD_CHECKS: list[RunCheck] = [
    records.recorded,
    records.not_finished,
    records.no_health,
    records.missing,
    records.lost,
    records.does_not_close,
    records.unusable,
    records.torn,
    records.token_split,
    records.token_source,
    records.outside,
    level.nothing_finished,
]
"""Made of every run."""

WINDOW_CHECKS: list[LevelCheck] = [level.not_whole, level.no_turns]
"""Made of each level of a run in which some turn got its answer."""

LEVEL_CHECKS: list[LevelCheck] = [
    client.faults,
    client.late,
    client.before_sent,
    client.lag,
    client.coalesced,
    client.busy,
    client.stolen,
    answers.buffered,
    answers.limits_missed,
    level.failed,
    answers.rate_limited,
    level.unfinished,
    level.few_turns,
    level.warm_up,
    level.wandering,
    level.full_context,
    server.drift,
    client.rate,
]
"""Made of those that have measured turns."""

SERVER_CHECKS: list[RunCheck] = [
    answers.longer_than_asked,
    answers.not_exact,
    answers.prompts_unlike,
    answers.cut_reasoning,
    server.lengths,
    server.restarts,
    server.warm_cache,
    server.warm_by_metrics,
    server.warm_by_time,
]
"""Made of such a run as a whole."""


def findings_of(run: RunEvidence) -> list[Finding]:
    """Everything wrong with a run: the load generator's own findings first, then ours, level by level."""
    found = [finding for check in RECORD_CHECKS for finding in check(run)]
    if not any(level.nothing_finished(run)):
        for at in run.levels:
            checks = WINDOW_CHECKS if at.rows.empty else [*WINDOW_CHECKS, *LEVEL_CHECKS]
            found += [finding for check in checks for finding in check(at)]
        found += [finding for check in SERVER_CHECKS for finding in check(run)]
    return list(dict.fromkeys(found))
