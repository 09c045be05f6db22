"""How much of the spread in time is verbosity, how much time per token, how much the first token.

v(S) = variance of log(TTFT + M TPOT) where the quantities in S take each turn's value and the others their
median (M: tokens after the first event). Shares are Shapley values (1953) over v(all): they sum to one and
may be negative.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.sample import clusters
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from analysis.turns.frame import floats
from turnbench.turns import Floats

PARTS = ("verbosity", "time_per_token", "first_token")
_LEAST_TURNS = 11
_LEAST_VARIANCE = 1e-12

Subset = frozenset[int]


def shares_of(rows: pd.DataFrame) -> dict[str, Any] | None:
    """`{verbosity, time_per_token, first_token, variance, ci95}`; None where there is no spread to split."""
    rows = rows[(rows["outcome"] == "ok") & rows["ttft_ms"].notna() & rows["later_tokens"].notna()]
    if len(rows) < _LEAST_TURNS:
        return None
    logs = _logs(rows)
    ones = np.ones((1, len(rows)))
    whole = _shares({which: _variance(ones, log) for which, log in logs.items()})
    if whole is None:
        return None
    told = dict(zip(PARTS, map(float, whole[0]), strict=True))
    return told | {"variance": float(np.var(logs[frozenset(range(3))])), "ci95": _ends(rows, logs)}


def _logs(rows: pd.DataFrame) -> dict[Subset, Floats]:
    """log(TTFT + M TPOT) for every choice of what varies; a turn without TPOT has no second term."""
    values = [floats(rows["later_tokens"]), floats(rows["tpot_ms"]), floats(rows["ttft_ms"])]
    middles = [float(np.nanmedian(part)) if not np.isnan(part).all() else 0.0 for part in values]
    values[1] = np.nan_to_num(values[1])
    logs = {}
    for size in range(4):
        for chosen in combinations(range(3), size):
            m, tpot, ttft = (values[i] if i in chosen else np.full(len(rows), middles[i]) for i in range(3))
            logs[frozenset(chosen)] = np.log(np.maximum(ttft + m * tpot, 1e-6))
    return logs


def _variance(weights: Floats, log: Floats) -> Floats:
    n = weights.sum(axis=1)
    mean = weights @ log / n
    return np.asarray(weights @ log**2 / n - mean**2)


def _shares(v: dict[Subset, Floats]) -> Floats | None:
    """Shapley values over v(all), a row for each resample."""
    everything = frozenset(range(3))
    if float(np.min(v[everything])) < _LEAST_VARIANCE:
        return None
    parts = []
    for who in range(3):
        value = np.zeros_like(v[everything])
        for subset in (s for s in v if who not in s):
            weight = factorial(len(subset)) * factorial(2 - len(subset)) / factorial(3)
            value += weight * (v[subset | {who}] - v[subset])
        parts.append(value / v[everything])
    return np.stack(parts, axis=1)


def _ends(rows: pd.DataFrame, logs: dict[Subset, Floats]) -> dict[str, Any] | None:
    """Interval of each share over resampled conversations, the medians kept where they are."""
    talks = clusters(rows)
    if conversations_in(talks) < LEAST_CONVERSATIONS:
        return None
    resampler = Resampler(int(talks.max()) + 1)
    v = {}
    for which, log in logs.items():
        centred = log - log.mean()  # the variance is a difference of squares: keep them small
        sums = resampler.sums(np.stack([np.ones(len(log)), centred, centred**2], axis=1), talks)
        n = np.maximum(sums[:, 0], 1)
        v[which] = sums[:, 2] / n - (sums[:, 1] / n) ** 2
    draws = _shares(v)
    if draws is None:
        return None
    return {name: resampler.ends(part) for name, part in zip(PARTS, draws.T, strict=True)}
