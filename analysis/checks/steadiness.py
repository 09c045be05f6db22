"""Did the server stay what it was? Drift in a level, lengths that follow load, restarts, warm caches."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.checks.finding import of_level
from analysis.measures.by_turn import with_expected
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding, ServerSample
from turnbench.turns import Floats

_BATCHES = 40
_LEAST_TURNS = 200
_MOST_DRIFT = 0.10
_BRIDGE = 2.22
"""A Brownian bridge goes further than this once in 10,000 times: 2 exp(-2 x^2) (Kolmogorov)."""
_MOST_LENGTH_CHANGE = 0.10
_SURE = 0.001
_MOST_WARM = 0.10
_LEAST_TOLD_TURNS = 20


def drift(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    """A change point (CUSUM of batch means) in log time per token, or in time, tasks' own means taken off."""
    ok = rows[(rows["outcome"] == "ok") & (rows["tpot_ms"] > 0)].sort_values("moment_ns")
    if len(ok) < _LEAST_TURNS:
        return []
    logs = np.log(floats(ok["tpot_ms"]))
    tasks = pd.factorize(pd.MultiIndex.from_frame(ok[["model", "task"]]))[0]
    logs -= (np.bincount(tasks, logs) / np.bincount(tasks))[tasks]
    found = change_point(logs)
    if found is None:
        return []
    cut, change = found
    after_s = (int(ok["moment_ns"].iloc[cut]) - level.window_start_ns) / 1e9
    what = f"time per token changed by {change:+.0%} about {after_s:.0f} s into the window and stayed so"
    remedy = "look for throttling, other users or a growing cache on the server, then run the level again"
    return [of_level(level.index, "suspect", "drift", what, remedy)]


def change_point(values: Floats) -> tuple[int, float] | None:
    """(where, by what share) the mean of a series of logs changes; None for what chance explains."""
    size = len(values) // _BATCHES
    means = values[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
    # The spread of neighbours' differences is not inflated by the change itself (von Neumann 1941).
    spread = float(np.sqrt(np.mean(np.diff(means) ** 2) / 2))
    if spread <= 0:
        return None
    path = np.cumsum(means - means.mean())[:-1]
    batch = int(np.argmax(np.abs(path))) + 1
    change = float(np.exp(means[batch:].mean() - means[:batch].mean()) - 1)
    if abs(path[batch - 1]) / (spread * np.sqrt(_BATCHES)) < _BRIDGE or abs(change) < _MOST_DRIFT:
        return None
    return batch * size, change


def lengths(study: Study) -> list[Finding]:
    """Answers whose length follows the load: then times at two loads are not of the same work."""
    ok = study.measured[study.measured["outcome"] == "ok"]
    played = [level for level in study.levels if (ok["level"] == level.index).any()]
    played.sort(key=lambda level: level.users or level.arrival_rate_per_s or 0)
    if len(played) < 2:
        return []
    found = []
    for (model, task), rows in ok.groupby(["model", "task"], sort=False):
        ends = [rows[rows["level"] == level.index] for level in (played[0], played[-1])]
        change = _length_change(*ends)
        if change is not None:
            what = (
                f"answers of {model} in {task} are {1 + change:.0%} as long at load {played[-1].load} as at "
                f"{played[0].load}: their times are not of the same work"
            )
            remedy = "compare time per token or TTG@256, or play again with --exact-tokens"
            found.append(Finding("note", "lengths", what, remedy))
    return found


def _length_change(low: pd.DataFrame, high: pd.DataFrame) -> float | None:
    """Share by which the mean length changed, where Welch's t of the conversations' means is sure of it."""
    a, b = (part.groupby("talk")["tokens"].mean().dropna().to_numpy(dtype=float) for part in (low, high))
    if min(len(a), len(b)) < 20 or a.mean() <= 0 or np.ptp(np.concatenate([a, b])) == 0:
        return None
    change = float(b.mean() / a.mean() - 1)
    if abs(change) < _MOST_LENGTH_CHANGE:
        return None
    from scipy.stats import ttest_ind  # slow to import, and few runs come so far

    sure = (np.ptp(a) == 0 and np.ptp(b) == 0) or ttest_ind(a, b, equal_var=False).pvalue < _SURE
    return change if sure else None


def restarts(study: Study, server: list[ServerSample]) -> list[Finding]:
    """Counters of the server that fell: it was started anew."""
    at = restart_times(server)
    if not at:
        return []
    seconds = ", ".join(f"{(t_ns - study.levels[0].start_ns) / 1e9:.0f} s" for t_ns in at[:5])
    what = f"the server was restarted {len(at)} time(s) during the run, at {seconds} after its start"
    return [Finding("suspect", "restart", what, "see the server's log for why it ended, then run again")]


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


def warm_cache(study: Study) -> list[Finding]:
    """What the prefix cache held beyond what the plan allows it to.

    A first turn starts with a tag of its own, so nothing of it can be there; a later one, at most what its
    conversation has said before. A system message that is shared may be there at the first turn as well.
    """
    rows = with_expected(study)
    first = rows["turn"] == 1
    later = _beyond(rows[~first])
    share = 0.0 if "shared: true" in (study.run.scenario_text() or "") else _beyond(rows[first])
    found = []
    if share > _MOST_WARM:
        what = (
            f"{share:.0%} of the first turns' prompts came from the server's prefix cache, where none should"
        )
        remedy = "don't fix --salt over runs against one server, or restart the server between them"
        found.append(Finding("suspect", "warm_cache", what, remedy))
    if later > _MOST_WARM:
        what = f"{later:.0%} of follow-up prompts came from the prefix cache though nobody had said it before"
        remedy = "see if another load sends the same texts, or how the server counts cached_tokens"
        found.append(Finding("suspect", "warm_cache", what, remedy))
    return found


def _beyond(rows: pd.DataFrame) -> float:
    """Cached tokens beyond the expected ones, as a share of the prompts'; 0 where too few turns tell them."""
    known = rows.dropna(subset=["cached_tokens", "prompt_tokens", "expected_cached"])
    prompt = float(known["prompt_tokens"].sum())
    if len(known) < _LEAST_TOLD_TURNS or prompt <= 0:
        return 0.0
    beyond = floats(known["cached_tokens"]) - floats(known["expected_cached"])
    return float(np.maximum(beyond, 0).sum()) / prompt
