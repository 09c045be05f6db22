"""What can be wrong with one level: each check gives its findings, with what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.client import client_findings
from analysis.checks.finding import of_level
from analysis.checks.rate import rate_findings
from analysis.checks.steadiness import drift
from analysis.stats.percentiles import LEAST_N, effective_turns
from analysis.stats.warmup import too_short
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding, Severity

MOST_FAILED = 0.01


def finished(rows: pd.DataFrame) -> int:
    """How many of these turns got their whole answer."""
    return int((rows["outcome"] == "ok").sum())


def nothing_finished(study: Study, at: int | None) -> Finding:
    """No turn of the run, or of the level `at`, got its answer."""
    turns = (
        study.frame[study.frame["counts"]] if at is None else study.measured[study.measured["level"] == at]
    )
    seen = turns["outcome"].value_counts()
    where = "in the run" if at is None else f"in the window of level {at}"
    named = ", ".join(f"{count} {name}" for name, count in seen.items()) or "no turn was sent"
    remedy = "see that the server answers and the window is longer than an answer takes (--hold, --drain)"
    return Finding("invalid", "no_turns", f"no turn finished {where} ({named})", remedy, at)


def level_findings(study: Study, level: Level) -> list[Finding]:
    """Everything wrong with one level."""
    rows = study.measured[study.measured["level"] == level.index]
    found = [] if level.whole else [_not_whole(level)]
    if not finished(rows):
        found.append(nothing_finished(study, level.index))
    if rows.empty:
        return found
    found += client_findings(study, level, rows)
    for check in (_failed, _unfinished, _few, _warm, _full_context):
        found += check(level, rows)
    return found + drift(study, level, rows) + rate_findings(study, level)


def _not_whole(level: Level) -> Finding:
    what = "the window was not completed: its numbers are of what there is"
    return of_level(level.index, "suspect", "window", what, "run this level again")


def _failed(level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    bad = rows[~rows["outcome"].isin(["ok", "unfinished"])]
    if len(bad) <= MOST_FAILED * len(rows):
        return
    named = ", ".join(_when(level, str(name), part) for name, part in bad.groupby("outcome"))
    what = f"{len(bad)} of {len(rows)} turns failed: {named} of the window"
    remedy = "see the errors in turns-*.jsonl and the server's log: times are of the turns that got through"
    yield of_level(level.index, "suspect", "failed", what, remedy)


def _when(level: Level, outcome: str, rows: pd.DataFrame) -> str:
    """How many turns ended so, and from when to when they were sent."""
    ends = (rows["moment_ns"].min(), rows["moment_ns"].max())
    from_s, to_s = ((int(at) - level.window_start_ns) / 1e9 for at in ends)
    return f"{len(rows)} {outcome} sent from {from_s:.0f} to {to_s:.0f} s"


def _unfinished(level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    count = int((rows["outcome"] == "unfinished").sum())
    if count:
        # Over 1 % of turns without an answer is what "failed" is for, whatever kept the answer away.
        severity: Severity = "suspect" if count > MOST_FAILED * len(rows) else "note"
        what = (
            f"{count} of {len(rows)} turns had not ended when the drain was over; "
            "they rank above all finished ones"
        )
        remedy = "give them longer (--drain) or lower the load"
        yield of_level(level.index, severity, "unfinished", what, remedy)


def _few(level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    """Which models and tasks have no median, counted in turns that say as much as independent ones."""
    if not level.whole:
        return
    least, worth = LEAST_N["p50"], {}
    for (model, task), part in rows[rows["outcome"] == "ok"].groupby(["model", "task"], sort=False):
        worth[model, task] = effective_turns(floats(part["ttg_ms"]), pd.factorize(part["talk"])[0])
    few = {key: turns for key, turns in worth.items() if turns < least}
    if few:
        several = len({model for model, _ in worth}) > 1
        named = ", ".join(f"{task} of {model}" if several else str(task) for model, task in few)
        longer = math.ceil(level.window_s * least / max(min(few.values()), 1))
        what = f"too few turns for a median ({least} are needed) in {named}: their means are told"
        remedy = f"hold the level for {longer} s (--hold), or play more questions"
        yield of_level(level.index, "note", "few_turns", what, remedy)


def _warm(level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    ok = rows[rows["outcome"] == "ok"].sort_values("moment_ns")
    values = ok["ttg_ms"].dropna()
    early = too_short(values.to_numpy(dtype=np.float64))
    if early:
        cut, share = early
        seconds = (ok.loc[values.index[cut], "moment_ns"] - level.window_start_ns) / 1e9
        what = f"the first {cut} turns took {1 + share:.0%} as long as the rest: the warm-up was too short"
        remedy = f"lengthen --warmup by {max(seconds, 1):.0f} s or more"
        yield of_level(level.index, "suspect", "warmup", what, remedy)


def _full_context(level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    """Conversations that outgrew the model's context: shorter ones were measured than were planned."""
    full = rows[rows["at_context_end"].notna()]
    if full.empty:
        return
    talks, stopped = full["talk"].nunique(), full.loc[full["at_context_end"] == "stop", "talk"].nunique()
    ways = [f"{stopped} ended there"] * bool(stopped)
    ways += [f"{talks - stopped} went on without their oldest turns"] * (talks > stopped)
    what = f"{talks} of {rows['talk'].nunique()} conversations filled the model's context: {', '.join(ways)}"
    remedy = "plan fewer or shorter turns, or serve the model with a longer context"
    yield of_level(level.index, "note", "full_context", what, remedy)
