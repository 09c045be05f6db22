"""What can be wrong with one level: too few turns, failed ones, those that never ended, a short warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.evidence import LevelEvidence, RunEvidence
from analysis.stats.steadiness import too_short
from analysis.turns.frame import floats
from turnbench.findings import FindingKind, invalid, note, suspect
from turnbench.formats import Finding, RunManifest
from turnbench.outcomes import ANSWERED, CENSORED, FAILED
from turnbench.stats.batches import batch_error, slot_sums, slots_of
from turnbench.stats.percentiles import LEAST_N, effective_at

MOST_FAILED = 0.01
"""Share of turns without an answer up to which no percentile below p99 can hide them."""
LEAST_WANDERING_TURNS = 100
"""Turns below which batches say little of each other."""


_LONGER = {
    "unfinished": "--drain",
    "deadline": "--deadline",
    "stalled": "--idle-timeout",
    "abandoned": "the scenario's patience",
}
"""What ended each."""
_WORDS_CHARS = 160
"""Of a server's words, in a sentence about many turns."""
_REMEDIES = {
    "context_full": "plan fewer or shorter turns (at_context_end says what then happens), or serve the model "
    "with a longer context",
    "empty": "see the server's log: a context that is full looks so with some servers, and so does a "
    "template that the model was not made for",
    "http_429": "ask for less than the limit of the gateway or server allows, or raise it there",
    "reasoning_only": "see whether the server's reasoning parser is the model's, and raise --max-tokens",
    "tls": "name the authority with --ca, or a client certificate with --cert; --insecure checks nothing",
}
_SET_KEY = "set the server's key in the environment variable {} (--api-key-env names another)"
_OTHERS = "see the errors in turns-*.jsonl and the server's log: times are of the turns that got through"
_NO_ANSWER = "see that the server answers and the window is longer than an answer takes (--hold, --drain)"
_BY_OUTCOME = (_SET_KEY.format("OPENAI_API_KEY"), *_REMEDIES.values())

# fmt: off
WINDOW = suspect("window",
    "the window was not completed: its numbers are of what there is",
    "run this level again")
NO_TURNS = invalid("no_turns",
    "no turn finished {} ({named})",
    "{remedy}",
    {"named": ["no turn was sent"], "remedy": [_NO_ANSWER, *_BY_OUTCOME]})
FAILED_TURNS = suspect("failed",
    "{} of {} turns failed: {} of the window",
    "{remedy}",
    {"remedy": [*_BY_OUTCOME, _OTHERS]})
UNFINISHED = FindingKind(("suspect", "note"), "unfinished",
    "{} of {} turns still ran when they were last seen, and rank above all finished ones: {} of the window",
    "lower the load, or give them longer ({longer})",
    {"longer": _LONGER.values()})
FEW_TURNS = note("few_turns",
    "too few turns for a median ({} are needed) in {}: their means are shown",
    "hold the level for {hold_s} s (--hold), or play more questions")
WARM_UP = suspect("warmup",
    "the first {} turns took {:.0%} {more} {} than the rest: the warm-up was too short",
    "lengthen --warmup by {seconds:.0f} s or more",
    {"more": ["longer", "less"]})
WANDERING = note("wandering",
    "time per token wanders more slowly than this window can show: its intervals may still be too narrow",
    "hold the level for longer (--hold)")
FULL_CONTEXT = note("full_context",
    "{} of {} conversations filled the model's context: {}",
    "plan fewer or shorter turns, or serve the model with a longer context")
# fmt: on


def nothing_finished(run: RunEvidence) -> Iterator[Finding]:
    """No turn of the whole run got its answer."""
    turns = run.study.frame[run.study.frame["counts"]]
    if not turns["outcome"].isin(ANSWERED).any():
        yield _nothing_finished(turns, "in the run", None, run.study.manifest)


def not_whole(at: LevelEvidence) -> Iterator[Finding]:
    if not at.level.whole:
        yield at.finding(WINDOW)


def no_turns(at: LevelEvidence) -> Iterator[Finding]:
    """No turn of this level got its answer."""
    if not at.rows["outcome"].isin(ANSWERED).any():
        where = f"in the window of level {at.level.index}"
        yield _nothing_finished(at.rows, where, at.level.index, at.study.manifest)


def _nothing_finished(turns: pd.DataFrame, where: str, at: int | None, manifest: RunManifest) -> Finding:
    seen = turns["outcome"].value_counts()
    parts = (f"{count} {name}{_words(turns[turns['outcome'] == name])}" for name, count in seen.items())
    named = ", ".join(parts) or "no turn was sent"
    remedy = _remedy(turns, manifest) if len(turns) else None
    return NO_TURNS.finding(where, named=named, remedy=remedy or _NO_ANSWER, at=at)


def failed(at: LevelEvidence) -> Iterator[Finding]:
    is_bad = at.rows["outcome"].isin(FAILED)
    if is_bad.sum() <= MOST_FAILED * len(at.rows):
        return
    bad = at.rows[is_bad]
    remedy = _remedy(bad, at.study.manifest) or _OTHERS
    yield at.finding(FAILED_TURNS, len(bad), len(at.rows), _by_outcome(at, bad), remedy=remedy)


def _by_outcome(at: LevelEvidence, turns: pd.DataFrame) -> str:
    """How many turns ended in each way, and when they were sent."""
    named = []
    for outcome, part in turns.groupby("outcome"):
        first_s, last_s = (at.second(int(part["moment_ns"].agg(end))) for end in ("min", "max"))
        named.append(f"{len(part)} {outcome}{_words(part)} sent from {first_s:.0f} to {last_s:.0f} s")
    return ", ".join(named)


def _words(turns: pd.DataFrame) -> str:
    """What was said of most of these turns: the server's own words, where it said any."""
    said = turns["error"].dropna()
    if said.empty:
        return ""
    words = str(said.value_counts().index[0])
    if not words.strip() and turns["status"].notna().any():
        return f" (status {int(turns['status'].dropna().iloc[0])} without a word)"
    return f" ({words[:_WORDS_CHARS]}{'...' if len(words) > _WORDS_CHARS else ''})"


def _remedy(turns: pd.DataFrame, manifest: RunManifest) -> str | None:
    """What to do about the commonest way to fail, where that is known."""
    outcome = str(turns["outcome"].value_counts().index[0])
    statuses = turns.loc[turns["outcome"] == outcome, "status"].dropna()
    if outcome == "http_4xx" and statuses.isin([401, 403]).any():
        name = manifest.settings.get("api_key_env") or "OPENAI_API_KEY"
        return _SET_KEY.format(name)
    return _REMEDIES.get(outcome)


def unfinished(at: LevelEvidence) -> Iterator[Finding]:
    """Turns whose waits are known only to have been longer."""
    is_open = at.rows["outcome"].isin(CENSORED)
    if is_open.any():
        turns = at.rows[is_open]
        # Over 1 % of turns without an answer is what "failed" is for, whatever kept the answer away.
        severity = "suspect" if len(turns) > MOST_FAILED * len(at.rows) else "note"
        longer = _LONGER[str(turns["outcome"].value_counts().index[0])]
        seen = len(turns), len(at.rows), _by_outcome(at, turns)
        yield at.finding(UNFINISHED, *seen, severity=severity, longer=longer)


def few_turns(at: LevelEvidence) -> Iterator[Finding]:
    """Which models and tasks have no median, counted in turns that say as much as independent ones."""
    if not at.level.whole:
        return
    least, worth = LEAST_N["p50"], {}
    answered = at.rows[at.rows["outcome"].isin(ANSWERED) & at.rows["ttg_ms"].notna()]
    for (model, task), part in answered.groupby(["model", "task"], sort=False):
        worth[model, task] = effective_at(floats(part["ttg_ms"]), pd.factorize(part["talk"])[0], 0.5)
    few = {key: turns for key, turns in worth.items() if turns < least}
    if few:
        several = len({model for model, _ in worth}) > 1
        named = ", ".join(f"{task} of {model}" if several else str(task) for model, task in few)
        hold_s = math.ceil(at.level.window_s * least / max(min(few.values()), 1))
        yield at.finding(FEW_TURNS, least, named, hold_s=hold_s)


def warm_up(at: LevelEvidence) -> Iterator[Finding]:
    """By the time to first token and per token: how long answers are is no matter of warm-up."""
    answered = at.rows[at.rows["outcome"].isin(ANSWERED)].sort_values("moment_ns")
    for name, what_took in (("ttft_ms", "to their first token"), ("tpot_ms", "per token")):
        values = answered[name].dropna()
        if early := too_short(values.to_numpy(dtype=np.float64)):
            cut, share = early
            seconds = max(at.second(int(answered.loc[values.index[cut], "moment_ns"])), 1)
            more = "longer" if share > 0 else "less"
            yield at.finding(WARM_UP, cut, abs(share), what_took, more=more, seconds=seconds)
            return


def wandering(at: LevelEvidence) -> Iterator[Finding]:
    """Speed that wanders more slowly than the window can show."""
    answered = at.rows[at.rows["outcome"].isin(ANSWERED) & (at.rows["tpot_ms"] > 0)]
    slots = slots_of(floats(answered["position"]))
    error = batch_error(slot_sums(slots, floats(answered["tpot_ms"])), slot_sums(slots))
    if error is not None and error.slow and len(answered) >= LEAST_WANDERING_TURNS:
        yield at.finding(WANDERING)


def full_context(at: LevelEvidence) -> Iterator[Finding]:
    """Conversations that outgrew the model's context: shorter ones were measured than were planned."""
    is_full = at.rows["at_context_end"].notna()
    if not is_full.any():
        return
    full = at.rows[is_full]
    talks, stopped = full["talk"].nunique(), full.loc[full["at_context_end"] == "stop", "talk"].nunique()
    ways = [f"{stopped} ended there"] * bool(stopped)
    ways += [f"{talks - stopped} went on without their oldest turns"] * (talks > stopped)
    every = at.rows["talk"].nunique()
    yield at.finding(FULL_CONTEXT, talks, every, ", ".join(ways))
