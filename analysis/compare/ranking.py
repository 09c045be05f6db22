"""Models ranked by tokens per second beside their ranking by time: do the two agree?

Speed is `tps`, the sum of tokens over the sum of time to generate; time is the mean time to generate. The
two differ by the mean length of an answer and by nothing else, so where the rankings differ, length did it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from analysis.compare.causes import effects_of, shares_of, swap_of
from analysis.compare.variants import clusters
from analysis.measures.cells import ALL
from analysis.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from analysis.turns.frame import floats
from turnbench.formats.comparison import (
    ModelComparison,
    ModelPair,
    PrecisionAgreement,
    RankedModel,
    RankingCell,
)
from turnbench.turns import Floats

SIGNIFICANT = 0.05
FULL_PRECISIONS = ("fp16", "bf16")
"""What lower precisions are compared with: FP16, or BF16 where a model has no FP16."""
_MAY_SWAP = 0.025


def comparison_of(pool: pd.DataFrame) -> ModelComparison | None:
    """Several models' turns compared, without words; None where there is but one model.

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
                if cell := ranking_of(rows):
                    cell.task, cell.load, cell.setting = str(task), str(load), setting
                    cell.shares, cell.swap = shares_of(rows), swap_of(rows)
                    cells.append(cell)
    if not cells:
        return None
    return ModelComparison(cells=cells, effects=effects_of(next(iter(settings.values()))))


def ranking_of(rows: pd.DataFrame) -> RankingCell | None:
    """Both rankings of the models in these turns, without names or causes; None with fewer than two models.

    A model with a turn that never ended has no time to generate and is last in that ranking.
    """
    groups = {}
    for name, part in rows.groupby("name", sort=True):
        ok = part["outcome"] == "ok"
        if ok.any() and part.loc[ok, "tokens"].sum() > 0:
            groups[str(name)] = part
    if len(groups) < 2:
        return None
    from scipy.stats import kendalltau, rankdata  # slow to import, and most runs have one model

    models = [_model(name, part) for name, part in groups.items()]
    tps, time_ms = speeds_of(list(groups.values()))
    speed = 1 / time_ms
    for model, by_tps, by_time in zip(models, rankdata(-tps), rankdata(time_ms), strict=True):
        model.rank_tps, model.rank_time = float(by_tps), float(by_time)
    draws = draws_of(list(groups.values()))
    first, second = np.triu_indices(len(models), 1)
    agreeing = ((tps[first] - tps[second]) * (speed[first] - speed[second]) > 0).sum()
    perfect = np.arange(len(models))
    return RankingCell(
        models=models,
        tau=_finite(tau_b(tps[None, :], speed[None, :])[0]),
        pairs_agreeing=int(agreeing),
        pairs_in_all=len(first),
        tau_ci95=None if draws is None else tau_ends(draws[0], 1 / draws[1]),
        p_value=_finite(float(kendalltau(tps, speed).pvalue)),
        least_p_value=float(kendalltau(perfect, perfect).pvalue),
        pairs=_pairs([model.name for model in models], tps, time_ms, draws),
    )


def _model(name: str, rows: pd.DataFrame) -> RankedModel:
    ok = rows[rows["outcome"] == "ok"]
    time_s = float(ok["ttg_ms"].sum()) / 1e3
    words = float(ok["words"].sum())
    return RankedModel(
        name=name,
        turns=len(ok),
        conversations=conversations_in(clusters(rows)),
        tps=float(ok["tokens"].sum()) / time_s,
        time_ms=float(ok["ttg_ms"].mean()) if len(ok) == len(rows) else None,
        tokens_mean=float(ok["tokens"].mean()),
        words_per_s=words / time_s,
        s_per_100_words=100 * time_s / words if words else None,
    )


def tau_b(left: Floats, right: Floats) -> Floats:
    """Kendall's tau-b (1945) of each row of `left` with the same row of `right`; NaN where all are tied."""
    first, second = np.triu_indices(left.shape[1], 1)
    a, b = (np.sign(part[:, first] - part[:, second]) for part in (left, right))
    pairs = np.sqrt((a != 0).sum(axis=1) * (b != 0).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), pairs, out=np.full(len(a), np.nan), where=pairs > 0))


def speeds_of(groups: list[pd.DataFrame]) -> tuple[Floats, Floats]:
    """(tps, mean time in ms) of each model's turns; the time is infinite where one never finished."""
    models = [_model("", rows) for rows in groups]
    times = [np.inf if model.time_ms is None else model.time_ms for model in models]
    return np.array([model.tps for model in models]), np.array(times)


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


def _pairs(
    names: list[str], tps: Floats, time: Floats, draws: tuple[Floats, Floats] | None
) -> list[ModelPair]:
    """Pairs of models of which one is faster in tokens per second yet slower to finish, the more likely way
    round; without those whose rankings agree in the sample and in nearly all resamples."""
    found = []
    for a, b in combinations(range(len(names)), 2):
        ways = []
        for fast, soon in ((a, b), (b, a)):
            swaps = bool(tps[fast] > tps[soon] and time[fast] > time[soon])
            p = None
            if draws is not None:
                drawn_tps, drawn = draws
                both = (drawn_tps[:, fast] > drawn_tps[:, soon]) & (drawn[:, fast] > drawn[:, soon])
                p = float(both.mean())
            ways.append(ModelPair(faster=names[fast], sooner=names[soon], swaps=swaps, p=p))
        best = max(ways, key=lambda pair: (pair.swaps, pair.p or 0.0))
        if best.swaps or (best.p or 0.0) >= _MAY_SWAP:
            found.append(best)
    return found


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def orders_by_precision(pool: pd.DataFrame) -> list[PrecisionAgreement]:
    """Is the ranking of models the same at a lower precision?

    A row a task, load and lower precision, of the models that were played at both; nothing with fewer than
    two.
    """
    lower = [p for p in pool["precision"].unique() if p and p not in FULL_PRECISIONS]
    if not lower:
        return []
    found = []
    for (task, load), rows in pool.groupby(["task", "load"], sort=False):
        for precision in lower:
            pairs = _at_both(rows, precision)
            if len(pairs) >= 2:
                found.append(_agreement(pairs, str(task), str(load), str(precision)))
    return found


def _at_both(rows: pd.DataFrame, precision: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """(turns at 16 bits, turns at this precision) of each model that has both."""
    found = []
    for _, mine in rows.groupby("any_precision", sort=True):
        parts = {name: part for name, part in mine.groupby("precision") if (part["outcome"] == "ok").any()}
        full = next((parts[name] for name in FULL_PRECISIONS if name in parts), None)
        if full is not None and precision in parts:
            found.append((full, parts[precision]))
    return found


def _agreement(
    pairs: list[tuple[pd.DataFrame, pd.DataFrame]], task: str, load: str, precision: str
) -> PrecisionAgreement:
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    (full_tps, full_time), (low_tps, low_time) = (speeds_of(groups) for groups in sides)
    tps_ends = time_ends = None
    if draws := draws_of([*sides[0], *sides[1]]):
        half = len(pairs)
        tps, time = draws
        tps_ends = tau_ends(tps[:, :half], tps[:, half:])
        time_ends = tau_ends(1 / time[:, :half], 1 / time[:, half:])
    return PrecisionAgreement(
        task=task,
        load=load,
        precision=precision,
        models=len(pairs),
        tau_tps=_finite(tau_b(full_tps[None, :], low_tps[None, :])[0]),
        tau_tps_ci95=tps_ends,
        # As speeds: a model with a turn that never finished comes last.
        tau_time=_finite(tau_b(1 / full_time[None, :], 1 / low_time[None, :])[0]),
        tau_time_ci95=time_ends,
    )
