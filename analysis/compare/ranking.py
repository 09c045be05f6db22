"""Models ranked by tokens per second beside their ranking by time: do the two agree?

Speed is `tps`, the sum of tokens over the sum of time to generate; time is the mean time to generate. The
two differ by the mean length of an answer and by nothing else, so where the rankings differ, length did it.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from analysis.compare.causes import effects_of, shares_of, swap_of
from analysis.compare.variants import clusters
from analysis.measures.cells import ALL
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from analysis.turns.frame import floats
from turnbench.turns import Floats

Ranking = dict[str, Any]
SIGNIFICANT = 0.05
FULL_PRECISIONS = ("fp16", "bf16")
"""What lower precisions are compared with: FP16, or BF16 where a model has no FP16."""
_MAY_SWAP = 0.025


def comparison_of(pool: pd.DataFrame) -> dict[str, Any] | None:
    """`{cells, effects}` of several models' turns; None where there is but one model.

    A cell is the ranking of one task (or all of them) at one load, with the causes of its times. Models are
    compared under one setting (precision, hardware, length of answers) where each setting has two models or
    more; else whatever was played is compared.
    """
    if pool["name"].nunique() < 2:
        return None
    settings = {str(name): part for name, part in pool.groupby("setting", sort=True)}
    if min(part["model"].nunique() for part in settings.values()) < 2:
        settings = {"": pool}
    cells = []
    for setting, part in settings.items():
        for load in dict.fromkeys(part["load"]):
            at_load = part[part["load"] == load]
            tasks = list(dict.fromkeys(at_load["task"]))
            for task in [*tasks, *[ALL] * (len(tasks) > 1)]:
                rows = at_load if task == ALL else at_load[at_load["task"] == task]
                if ranking := ranking_of(rows):
                    names = {"task": task, "load": load, "setting": setting}
                    cells.append(names | ranking | {"shares": shares_of(rows), "swap": swap_of(rows)})
    return {"cells": cells, "effects": effects_of(next(iter(settings.values())))} if cells else None


def ranking_of(rows: pd.DataFrame) -> Ranking | None:
    """Both rankings of the models in one task at one load; None with fewer than two models.

    A model with a turn that never ended has no time to generate and is last in that ranking.
    """
    groups = {}
    for name, part in rows.groupby("name", sort=True):
        ok = part["outcome"] == "ok"
        if ok.any() and part.loc[ok, "tokens"].sum() > 0:
            groups[str(name)] = part
    if len(groups) < 2:
        return None
    models = [_model(name, part) for name, part in groups.items()]
    tps, time_ms = (np.array([model[key] for model in models]) for key in ("tps", "time_ms"))
    speed = 1 / time_ms
    draws = draws_of(list(groups.values()))
    first, second = np.triu_indices(len(models), 1)
    agreeing = ((tps[first] - tps[second]) * (speed[first] - speed[second]) > 0).sum()
    perfect = np.arange(len(models))
    return {
        "models": _ranked(models),
        "tau": _finite(tau_b(tps[None, :], speed[None, :])[0]),
        "pairs_agreeing": int(agreeing),
        "pairs_in_all": len(first),
        "tau_ci95": None if draws is None else tau_ends(draws[0], 1 / draws[1]),
        # Of "the two rankings have nothing to do with each other", over all rankings of so many models; and
        # the same for perfect agreement, which is the most that so many models can prove.
        "p_value": _finite(float(kendalltau(tps, speed).pvalue)),
        "least_p_value": float(kendalltau(perfect, perfect).pvalue),
        "pairs": [
            pair
            for a, b in combinations(range(len(models)), 2)
            if (pair := _pair(models, draws, a, b)) is not None
        ],
    }


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
    return [
        model | {"time_ms": _finite(model["time_ms"]), "rank_tps": float(tps), "rank_time": float(time)}
        for model, tps, time in zip(models, by_tps, by_time, strict=True)
    ]


def tau_b(left: Floats, right: Floats) -> Floats:
    """Kendall's tau-b (1945) of each row of `left` with the same row of `right`; NaN where all are tied."""
    first, second = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(part[:, first] - part[:, second]) for part in (left, right))
    pairs = np.sqrt((a != 0).sum(axis=1) * (b != 0).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), pairs, out=np.full(len(a), np.nan), where=pairs > 0))


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
    """The middle 95% of tau-b over resamples, a row each; None where no resample has a ranking."""
    taus = tau_b(left, right)
    taus = taus[np.isfinite(taus)]  # a resample in which all are tied has no ranking
    if not len(taus):
        return None
    return [float(end) for end in np.quantile(taus, (0.025, 0.975), method="inverted_cdf")]


def _pair(
    models: list[dict[str, Any]], draws: tuple[Floats, Floats] | None, a: int, b: int
) -> dict[str, Any] | None:
    """Which of two models is faster in tokens per second yet slower to finish, the more likely way round;
    None where the rankings agree in the sample and in nearly all resamples."""
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


def orders_by_precision(pool: pd.DataFrame) -> list[dict[str, Any]]:
    """Is the ranking of models the same at a lower precision?

    A row a task, load and lower precision: `models`, `tau_time` and `tau_tps` with their intervals. tau_time:
    between the models' rankings by mean TTG at 16 bits and at the lower precision; tau_tps: between their
    rankings by tokens per second. Only models that were played at both; nothing with fewer than two.
    """
    lower = [p for p in pool["precision"].unique() if p and p not in FULL_PRECISIONS]
    if not lower:
        return []
    found = []
    for (task, load), rows in pool.groupby(["task", "load"], sort=False):
        for precision in lower:
            pairs = _pairs(rows, precision)
            if len(pairs) >= 2:
                names = {"task": str(task), "load": str(load), "precision": precision}
                found.append(names | {"models": len(pairs)} | _agreement(pairs))
    return found


def _pairs(rows: pd.DataFrame, precision: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """(turns at 16 bits, turns at this precision) of each model that has both."""
    found = []
    for _, mine in rows.groupby("any_precision", sort=True):
        parts = {name: part for name, part in mine.groupby("precision") if (part["outcome"] == "ok").any()}
        full = next((parts[name] for name in FULL_PRECISIONS if name in parts), None)
        if full is not None and precision in parts:
            found.append((full, parts[precision]))
    return found


def _agreement(pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> dict[str, Any]:
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    speeds = [speeds_of(groups) for groups in sides]
    draws = draws_of([*sides[0], *sides[1]])
    halves = None
    if draws is not None:
        halves = [[part[:, : len(pairs)], part[:, len(pairs) :]] for part in draws]
    found: dict[str, Any] = {}
    for index, name in enumerate(("tps", "time")):
        orders = [_order(speeds[side][index], name) for side in (0, 1)]
        tau = float(tau_b(orders[0][None, :], orders[1][None, :])[0])
        found[f"tau_{name}"] = tau if np.isfinite(tau) else None
        ends = halves and tau_ends(*(_order(part, name) for part in halves[index]))
        found[f"tau_{name}_ci95"] = ends
    return found


def _order(values: Floats, name: str) -> Floats:
    """As speeds, the higher the better; a model with a turn that never ended comes last."""
    return values if name == "tps" else 1 / values
