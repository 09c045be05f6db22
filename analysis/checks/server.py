"""Did the server stay what it was? Drift in a level, lengths that follow load, restarts, warm caches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.checks.evidence import LevelEvidence, RunEvidence
from analysis.stats.steadiness import change_point
from analysis.turns.frame import floats
from turnbench.findings import note, suspect
from turnbench.formats import Finding, ServerSample
from turnbench.outcomes import ANSWERED
from turnbench.server_metrics import named

LEAST_DRIFT_TURNS = 200
"""Five turns in each of the 40 batches in which a change is looked for."""
MOST_LENGTH_CHANGE = 0.10
"""Change of a mean length between two loads that moves times by about as much."""
LEAST_LENGTH_CONVERSATIONS = 20
"""As for an interval: below, a mean of conversations says little of the next ones."""
SURE_OF_LENGTH = 0.001
"""p of Welch's t-test: every model and task of a sweep is tested."""
MOST_WARM = 0.10
"""Share of prompts in the prefix cache beyond what the plan allows."""
MUCH_QUICKER = 0.5
"""Share of the time of the same prompts at a lower load that no chance explains at 20 turns each."""
LEAST_COLD_MS = 20.0
"""A quicker first turn is not made of computing its prompt."""
LEAST_WARM_TURNS = 20
"""Turns that say how much of their prompt was cached, below which nothing is concluded."""

# fmt: off
DRIFT = suspect("drift",
    "time per token changed by {:+.0%} about {:.0f} s into the window {lasting}",
    "look for throttling, other users or a growing cache on the server, then run the level again",
    {"lasting": ["and stayed so", "on average, and did not stay so"]})
LENGTHS = note("lengths",
    "answers of {} in {} are {:.0%} as long at load {} as at {}: their times are not of the same work",
    "compare time per token or TTG@256, or play again with --exact-tokens")
RESTART = suspect("restart",
    "the server was restarted {} time(s) during the run, at {} after its start",
    "see the server's log for why it ended, then run again")
_ONE_SALT = "don't fix --salt over runs against one server, or restart the server between them"
WARM_FIRST = suspect("warm_cache",
    "{:.0%} of the first turns' prompts came from the server's prefix cache, where none should",
    _ONE_SALT)
WARM_LATER = suspect("warm_cache",
    "{:.0%} of follow-up prompts came from the prefix cache though nobody had said it before",
    "see if another load sends the same texts, or how the server counts cached_tokens")
WARM_BY_METRICS = suspect("warm_cache",
    "by its metrics the server found {:.0%} of prompts in its prefix cache: none should be",
    _ONE_SALT)
WARM_BY_TIME = suspect("warm_cache",
    "first turns of about {:.0f} tokens took {:.0f} ms at load {} and {:.0f} ms at load {}: the earlier "
    "level warmed the server's cache",
    "leave --salt and --cache alone, or restart the server between levels")
# fmt: on


def drift(at: LevelEvidence) -> Iterator[Finding]:
    """A change of the time per token, each task's own mean taken off."""
    rows = at.rows[at.rows["outcome"].isin(ANSWERED) & (at.rows["tpot_ms"] > 0)].sort_values("moment_ns")
    if len(rows) < LEAST_DRIFT_TURNS:
        return
    logs = np.log(floats(rows["tpot_ms"]))
    tasks = pd.factorize(pd.MultiIndex.from_frame(rows[["model", "task"]]))[0]
    logs -= (np.bincount(tasks, logs) / np.bincount(tasks))[tasks]
    if found := change_point(logs):
        after_s = at.second(int(rows["moment_ns"].iloc[found.start]))
        lasting = "and stayed so" if found.stayed else "on average, and did not stay so"
        yield at.finding(DRIFT, found.share, after_s, lasting=lasting)


def lengths(run: RunEvidence) -> Iterator[Finding]:
    """Answers whose length follows the load: then times at two loads are not of the same work."""
    study = run.study
    answered = study.measured[study.measured["outcome"].isin(ANSWERED)]
    played = [level for level in study.levels if (answered["level"] == level.index).any()]
    played.sort(key=lambda level: level.amount)
    if len(played) < 2:
        return
    for (model, task), rows in answered.groupby(["model", "task"], sort=False):
        change = _length_change(*(rows[rows["level"] == level.index] for level in (played[0], played[-1])))
        if change is not None:
            yield LENGTHS.finding(model, task, 1 + change, played[-1].load, played[0].load)


def _length_change(low: pd.DataFrame, high: pd.DataFrame) -> float | None:
    """Share by which the mean length changed, where Welch's t of the conversations' means is sure of it."""
    a, b = (part.groupby("talk")["tokens"].mean().dropna().to_numpy(dtype=float) for part in (low, high))
    few = min(len(a), len(b)) < LEAST_LENGTH_CONVERSATIONS
    if few or a.mean() <= 0 or np.ptp(np.concatenate([a, b])) == 0:
        return None
    change = float(b.mean() / a.mean() - 1)
    if abs(change) < MOST_LENGTH_CHANGE:
        return None
    from scipy.stats import ttest_ind  # slow to import, and few runs come so far

    constant = np.ptp(a) == 0 and np.ptp(b) == 0
    return change if constant or ttest_ind(a, b, equal_var=False).pvalue < SURE_OF_LENGTH else None


def restarts(run: RunEvidence) -> Iterator[Finding]:
    """Counters of the server that fell: it was started anew."""
    if at := restart_times(run.study.server):
        seconds = ", ".join(f"{(t_ns - run.study.levels[0].start_ns) / 1e9:.0f} s" for t_ns in at[:5])
        yield RESTART.finding(len(at), seconds)


def restart_times(server: list[ServerSample]) -> list[int]:
    """When a counter (`*_total`) was first seen lower than before."""
    found: list[int] = []
    last: dict[str, float] = {}
    for sample in server:
        counters = {name: value for name, value in sample.values.items() if name.endswith("_total")}
        if any(value < last.get(name, value) for name, value in counters.items()):
            found.append(sample.t_ns)
        last = counters or last
    return found


def warm_cache(run: RunEvidence) -> Iterator[Finding]:
    """What the prefix cache held beyond what the plan allows it to.

    A first turn starts with a tag of its own, so nothing of it can be there; a later one, at most what its
    conversation has said before. A system message that is shared may be there at the first turn as well.
    """
    rows = run.study.answered
    first = rows["turn"] == 1
    cache = str(run.study.manifest.settings.get("cache"))
    if cache == "warm":
        return  # as asked for
    shared = "shared: true" in (run.study.run.scenario_text() or "") or cache.startswith("shared")
    if not shared and (share := _beyond(rows[first])) > MOST_WARM:
        yield WARM_FIRST.finding(share)
    if (later := _beyond(rows[~first])) > MOST_WARM:
        yield WARM_LATER.finding(later)


def warm_by_metrics(run: RunEvidence) -> Iterator[Finding]:
    """The same by the server's own counts, where its usage says nothing of cached tokens."""
    study = run.study
    silent = study.measured["cached_tokens"].isna().all()
    shared = "shared: true" in (study.run.scenario_text() or "")
    if not silent or shared or str(study.manifest.settings.get("cache", "cold")) != "cold":
        return
    counts = [counted for sample in study.server if "cache_hits" in (counted := named(sample.values))]
    if len(counts) < 2 or restart_times(study.server):
        return
    hits, queries = (counts[-1].get(k, 0.0) - counts[0].get(k, 0.0) for k in ("cache_hits", "cache_queries"))
    queries = queries or counts[-1].get("prompt_tokens", 0.0) - counts[0].get("prompt_tokens", 0.0)
    turns = study.frame[study.frame["counts"]]
    later = turns[turns["turn"] > 1]
    if later["prompt_tokens"].isna().any():
        return  # what they may find there is not known
    # More than a conversation's own turns can leave: the last one's prompt and answer are counted too.
    own = float(turns[["prompt_tokens", "tokens"]].sum().sum()) if len(later) else 0.0
    if queries > 0 and (share := (hits - own) / queries) > MOST_WARM:
        yield WARM_BY_METRICS.finding(share)


def warm_by_time(run: RunEvidence) -> Iterator[Finding]:
    """First turns at a higher load that came much quicker than ones of the same length at a lower load.

    Load alone makes nobody quicker: what an earlier level left in the prefix cache does.
    """
    study = run.study
    if str(study.manifest.settings.get("cache", "cold")) != "cold":
        return
    first = study.measured[(study.measured["turn"] == 1) & study.measured["outcome"].isin(ANSWERED)]
    first = first.dropna(subset=["ttft_ms", "prompt_tokens"])
    levels = [level for level in study.levels if (first["level"] == level.index).any()]
    for low, high in pairwise(levels):
        if low.amount > high.amount:
            continue
        a, b = (first[first["level"] == level.index] for level in (low, high))
        sizes = [np.log2(np.maximum(floats(part["prompt_tokens"]), 1)).round() for part in (a, b)]
        for size in np.intersect1d(sizes[0], sizes[1]):
            cold, warm = (floats(part["ttft_ms"])[of == size] for part, of in zip((a, b), sizes, strict=True))
            if min(len(cold), len(warm)) < LEAST_WARM_TURNS:
                continue
            warm_ms, cold_ms = np.median(warm), np.median(cold)
            if warm_ms < MUCH_QUICKER * cold_ms and cold_ms > LEAST_COLD_MS:
                yield WARM_BY_TIME.finding(2**size, warm_ms, high.load, cold_ms, low.load, at=high.index)
                break


def _beyond(rows: pd.DataFrame) -> float:
    """Cached tokens beyond the expected ones, as a share of the prompts'; 0 where too few turns say."""
    known = rows[["cached_tokens", "prompt_tokens", "expected_cached"]].dropna()
    prompt = float(known["prompt_tokens"].sum())
    if len(known) < LEAST_WARM_TURNS or prompt <= 0:
        return 0.0
    beyond = floats(known["cached_tokens"]) - floats(known["expected_cached"])
    return float(np.maximum(beyond, 0).sum()) / prompt
