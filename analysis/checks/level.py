"""What can be wrong with one level: too few turns, failed ones, those that never ended, a short warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.evidence import LevelEvidence, RunEvidence
from analysis.stats.percentiles import LEAST_N, effective_turns
from analysis.stats.steadiness import too_short
from analysis.turns.frame import floats
from turnbench.formats import Finding, Severity
from turnbench.outcomes import ANSWERED, STILL_RUNNING

MOST_FAILED = 0.01
"""Share of turns without an answer up to which no percentile below p99 can hide them."""


def nothing_finished(run: RunEvidence) -> Iterator[Finding]:
    """No turn of the whole run got its answer."""
    turns = run.study.frame[run.study.frame["counts"]]
    if not turns["outcome"].isin(ANSWERED).any():
        yield _nothing_finished(turns, "in the run", None)


def not_whole(at: LevelEvidence) -> Iterator[Finding]:
    if not at.level.whole:
        what = "the window was not completed: its numbers are of what there is"
        yield at.finding("suspect", "window", what, "run this level again")


def no_turns(at: LevelEvidence) -> Iterator[Finding]:
    """No turn of this level got its answer."""
    if not at.rows["outcome"].isin(ANSWERED).any():
        yield _nothing_finished(at.rows, f"in the window of level {at.level.index}", at.level.index)


def _nothing_finished(turns: pd.DataFrame, where: str, at: int | None) -> Finding:
    seen = turns["outcome"].value_counts()
    named = ", ".join(f"{count} {name}" for name, count in seen.items()) or "no turn was sent"
    remedy = "see that the server answers and the window is longer than an answer takes (--hold, --drain)"
    return Finding("invalid", "no_turns", f"no turn finished {where} ({named})", remedy, at)


def failed(at: LevelEvidence) -> Iterator[Finding]:
    bad = at.rows[~at.rows["outcome"].isin([*ANSWERED, *STILL_RUNNING])]
    if len(bad) <= MOST_FAILED * len(at.rows):
        return
    named = []
    for outcome, part in bad.groupby("outcome"):
        first_s, last_s = (at.second(int(part["moment_ns"].agg(end))) for end in ("min", "max"))
        named.append(f"{len(part)} {outcome} sent from {first_s:.0f} to {last_s:.0f} s")
    what = f"{len(bad)} of {len(at.rows)} turns failed: {', '.join(named)} of the window"
    remedy = "see the errors in turns-*.jsonl and the server's log: times are of the turns that got through"
    yield at.finding("suspect", "failed", what, remedy)


def unfinished(at: LevelEvidence) -> Iterator[Finding]:
    count = int(at.rows["outcome"].isin(STILL_RUNNING).sum())
    if count:
        # Over 1 % of turns without an answer is what "failed" is for, whatever kept the answer away.
        severity: Severity = "suspect" if count > MOST_FAILED * len(at.rows) else "note"
        what = (
            f"{count} of {len(at.rows)} turns had not ended when the drain was over; "
            "they rank above all finished ones"
        )
        yield at.finding(severity, "unfinished", what, "give them longer (--drain) or lower the load")


def few_turns(at: LevelEvidence) -> Iterator[Finding]:
    """Which models and tasks have no median, counted in turns that say as much as independent ones."""
    if not at.level.whole:
        return
    least, worth = LEAST_N["p50"], {}
    answered = at.rows[at.rows["outcome"].isin(ANSWERED)]
    for (model, task), part in answered.groupby(["model", "task"], sort=False):
        worth[model, task] = effective_turns(floats(part["ttg_ms"]), pd.factorize(part["talk"])[0])
    few = {key: turns for key, turns in worth.items() if turns < least}
    if few:
        several = len({model for model, _ in worth}) > 1
        named = ", ".join(f"{task} of {model}" if several else str(task) for model, task in few)
        longer = math.ceil(at.level.window_s * least / max(min(few.values()), 1))
        what = f"too few turns for a median ({least} are needed) in {named}: their means are shown"
        remedy = f"hold the level for {longer} s (--hold), or play more questions"
        yield at.finding("note", "few_turns", what, remedy)


def warm_up(at: LevelEvidence) -> Iterator[Finding]:
    answered = at.rows[at.rows["outcome"].isin(ANSWERED)].sort_values("moment_ns")
    values = answered["ttg_ms"].dropna()
    if early := too_short(values.to_numpy(dtype=np.float64)):
        cut, share = early
        seconds = at.second(int(answered.loc[values.index[cut], "moment_ns"]))
        what = f"the first {cut} turns took {1 + share:.0%} as long as the rest: the warm-up was too short"
        remedy = f"lengthen --warmup by {max(seconds, 1):.0f} s or more"
        yield at.finding("suspect", "warmup", what, remedy)


def full_context(at: LevelEvidence) -> Iterator[Finding]:
    """Conversations that outgrew the model's context: shorter ones were measured than were planned."""
    full = at.rows[at.rows["at_context_end"].notna()]
    if full.empty:
        return
    talks, stopped = full["talk"].nunique(), full.loc[full["at_context_end"] == "stop", "talk"].nunique()
    ways = [f"{stopped} ended there"] * bool(stopped)
    ways += [f"{talks - stopped} went on without their oldest turns"] * (talks > stopped)
    every = at.rows["talk"].nunique()
    what = f"{talks} of {every} conversations filled the model's context: {', '.join(ways)}"
    remedy = "plan fewer or shorter turns, or serve the model with a longer context"
    yield at.finding("note", "full_context", what, remedy)
