"""Models in order of tokens per second beside their order by time: do the two agree?

Speed is `tps`, the sum of tokens over the sum of time to generate; time is the mean time to generate. The
two differ by the mean length of an answer and by nothing else, so where the orders part, length did it.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from analysis.compare.sample import clusters
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from analysis.turns.frame import floats
from turnbench.turns import Floats

Ranking = dict[str, Any]
SIGNIFICANT = 0.05
_MAY_SWAP = 0.025


def ranking_of(rows: pd.DataFrame) -> Ranking | None:
    """The two orders of the models in one task at one load; None with fewer than two models.

    A model with a turn that never ended has no time to generate and stands last in that order.
    """
    groups = {str(name): part for name, part in rows.groupby("name", sort=True) if _talks(part)}
    if len(groups) < 2:
        return None
    models = [_model(name, part) for name, part in groups.items()]
    tps, time_ms = (np.array([model[key] for model in models]) for key in ("tps", "time_ms"))
    draws = draws_of(list(groups.values()))
    tau = tau_b(tps[None, :], 1 / time_ms[None, :])[0]
    return {
        "models": _ranked(models),
        "tau": _finite(tau),
        "pairs_agreeing": _agreeing(tps, 1 / time_ms),
        "pairs_in_all": len(models) * (len(models) - 1) // 2,
        "tau_ci95": None if draws is None else tau_ends(draws[0], 1 / draws[1]),
        "p_value": _p_value(tps, 1 / time_ms),
        "least_p_value": _least_p_value(len(models)),
        "pairs": [pair for pair in _pairs(models, draws) if pair is not None],
    }


def _talks(rows: pd.DataFrame) -> bool:
    ok = rows["outcome"] == "ok"
    return bool(ok.any() and rows.loc[ok, "tokens"].sum() > 0)


def _model(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    ok = rows[rows["outcome"] == "ok"]
    time_s = float(ok["ttg_ms"].sum()) / 1e3
    words = float(ok["words"].sum())
    return {
        "name": name,
        "turns": len(ok),
        "conversations": conversations_in(clusters(rows)),
        "tps": float(ok["tokens"].sum()) / time_s,
        "time_ms": float(ok["ttg_ms"].mean()) if len(ok) == len(rows) else np.inf,
        "tokens_mean": float(ok["tokens"].mean()),
        "words_per_s": words / time_s,
        "s_per_100_words": 100 * time_s / words if words else None,
    }


def _ranked(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With `rank_tps` and `rank_time`, 1 the best; equal values share the mean of their ranks."""
    by_tps = rankdata([-model["tps"] for model in models])
    by_time = rankdata([model["time_ms"] for model in models])
    told = zip(models, by_tps, by_time, strict=True)
    return [
        model | {"time_ms": _finite(model["time_ms"]), "rank_tps": float(tps), "rank_time": float(time)}
        for model, tps, time in told
    ]


def tau_b(left: Floats, right: Floats) -> Floats:
    """Kendall's tau-b (1945) of each row of `left` with the same row of `right`; NaN where all are tied."""
    first, second = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(part[:, first] - part[:, second]) for part in (left, right))
    pairs = np.sqrt((a != 0).sum(axis=1) * (b != 0).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), pairs, out=np.full(len(a), np.nan), where=pairs > 0))


def _agreeing(left: Floats, right: Floats) -> int:
    first, second = np.triu_indices(len(left), 1)
    return int(((left[first] - left[second]) * (right[first] - right[second]) > 0).sum())


def speeds_of(groups: list[pd.DataFrame]) -> tuple[Floats, Floats]:
    """(tps, mean time in ms) of each model's turns."""
    models = [_model("", rows) for rows in groups]
    return np.array([model["tps"] for model in models]), np.array([model["time_ms"] for model in models])


def draws_of(groups: list[pd.DataFrame]) -> tuple[Floats, Floats] | None:
    """(tps, time) of each model in each resample; None where a model has too few conversations."""
    tps, time = [], []
    for seed, rows in enumerate(groups):  # a seed each: what one model drew says nothing of another
        talks = clusters(rows)
        if conversations_in(talks) < LEAST_CONVERSATIONS:
            return None
        ok = (rows["outcome"] == "ok").to_numpy()
        columns = [floats(rows["tokens"]) * ok, np.where(ok, floats(rows["ttg_ms"]), 0), ok, ~ok]
        sums = Resampler(int(talks.max()) + 1, seed).sums(np.stack(columns, axis=1).astype(float), talks)
        with np.errstate(invalid="ignore", divide="ignore"):
            tps.append(sums[:, 0] / sums[:, 1])
            time.append(np.where(sums[:, 3] > 0, np.inf, sums[:, 1] / sums[:, 2]))
    return np.stack(tps, axis=1), np.stack(time, axis=1)


def tau_ends(left: Floats, right: Floats) -> list[float] | None:
    """The middle 95 % of tau-b over resamples, a row each; None where no resample has an order."""
    taus = tau_b(left, right)
    taus = taus[np.isfinite(taus)]  # a resample in which all are tied has no order
    if not len(taus):
        return None
    return [float(end) for end in np.quantile(taus, (0.025, 0.975), method="inverted_cdf")]


def _p_value(tps: Floats, speed: Floats) -> float | None:
    """Of "the two orders have nothing to do with each other", over the orders of this many models."""
    return _finite(float(kendalltau(tps, speed).pvalue))


def _least_p_value(models: int) -> float:
    """What a perfect order of so many models would show: the most that they can prove."""
    order = np.arange(models)
    return float(kendalltau(order, order).pvalue)


def _pairs(models: list[dict[str, Any]], draws: tuple[Floats, Floats] | None) -> list[dict[str, Any] | None]:
    """The pairs of models that part: faster in tokens per second, slower to finish."""
    return [_pair(models, draws, *both) for both in combinations(range(len(models)), 2)]


def _pair(
    models: list[dict[str, Any]], draws: tuple[Floats, Floats] | None, a: int, b: int
) -> dict[str, Any] | None:
    """The more likely way round; None where the orders agree in the sample and in nearly all resamples."""
    found = []
    for fast, slow in ((a, b), (b, a)):
        swaps = (
            models[fast]["tps"] > models[slow]["tps"] and models[fast]["time_ms"] > models[slow]["time_ms"]
        )
        p = None
        if draws is not None:
            tps, time = draws
            p = float(((tps[:, fast] > tps[:, slow]) & (time[:, fast] > time[:, slow])).mean())
        found.append({"faster": models[fast]["name"], "sooner": models[slow]["name"], "swaps": swaps, "p": p})
    best = max(found, key=lambda pair: (pair["swaps"], pair["p"] or 0.0))
    return best if best["swaps"] or (best["p"] or 0.0) >= _MAY_SWAP else None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
