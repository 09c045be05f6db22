"""Models ranked by tokens per second beside their ranking by time: do the two agree?

Speed is `tps`, the sum of tokens over the sum of time to generate; time is the mean time to generate. The
two differ by the mean length of an answer and by nothing else, so where the rankings differ, length did it.
How much they agree where length and speed are independent is found by shuffling lengths among models.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd

from analysis.compare.causes import effects_of, shares_of, swap_of
from analysis.compare.variants import clusters
from analysis.measures.cells import ALL
from analysis.turns.frame import floats
from turnbench.formats.comparison import (
    ModelComparison,
    ModelPair,
    PrecisionAgreement,
    RankedModel,
    RankingCell,
)
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from turnbench.stats.distributions import normal_cdf
from turnbench.turns import Floats

SIGNIFICANT = 0.05
FULL_PRECISIONS = ("fp16", "bf16")
"""What lower precisions are compared with: FP16, or BF16 where a model has no FP16."""
_MAY_SWAP = 0.025
_ALL_ORDERS = 6
_SHUFFLES = 1000


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
    _adjust(cells)
    return ModelComparison(cells=cells, effects=effects_of(next(iter(settings.values()))))


def _adjust(cells: list[RankingCell]) -> None:
    """p-values of all pairs, tasks and loads shown, adjusted for their number (Holm 1979)."""
    pairs = [pair for cell in cells for pair in cell.pairs if pair.p_value is not None]
    number, worst = sum(cell.pairs_in_all for cell in cells), 0.0
    for step, pair in enumerate(sorted(pairs, key=lambda pair: pair.p_value or 0.0)):
        worst = max(worst, min((number - step) * (pair.p_value or 0.0), 1.0))
        pair.p_adjusted = worst


def ranking_of(rows: pd.DataFrame) -> RankingCell | None:
    """Both rankings of the models in these turns, without names or causes; None with fewer than two models.

    Where a turn never ended, times are restricted to one horizon for all models: the longest time to the end
    that every model has (Karrison 1997); a turn that was still running then counts with the horizon.
    """
    groups = {}
    for name, part in rows.groupby("name", sort=True):
        ok = part["outcome"] == "ok"
        if ok.any() and part.loc[ok, "tokens"].sum() > 0:
            groups[str(name)] = part
    if len(groups) < 2:
        return None
    from scipy.stats import kendalltau, rankdata  # slow to import, and most runs have one model

    horizon_ms = _horizon_ms(list(groups.values()))
    models = [_model(name, part, horizon_ms) for name, part in groups.items()]
    tps, time_ms = speeds_of(list(groups.values()))
    speed = 1 / time_ms
    for model, by_tps, by_time in zip(models, rankdata(-tps), rankdata(time_ms), strict=True):
        model.rank_tps, model.rank_time = float(by_tps), float(by_time)
    draws = draws_of(list(groups.values()))
    first, second = np.triu_indices(len(models), 1)
    agreeing = ((tps[first] - tps[second]) * (speed[first] - speed[second]) > 0).sum()
    perfect = np.arange(len(models))
    tau = _finite(tau_b(tps[None, :], speed[None, :])[0])
    shuffled = _shuffled_taus(list(groups.values()))
    return RankingCell(
        models=models,
        tau=tau,
        tau_shuffled=float(shuffled.mean()) if len(shuffled) else None,
        tau_shuffled_ci95=_middle(shuffled),
        horizon_ms=_finite(horizon_ms),
        pairs_agreeing=int(agreeing),
        pairs_in_all=len(first),
        tau_ci95=None if draws is None else tau_ends(draws[0], 1 / draws[1]),
        p_value=_finite(float(kendalltau(tps, speed).pvalue)),
        least_p_value=float(kendalltau(perfect, perfect).pvalue),
        pairs=_pairs([model.name for model in models], tps, time_ms, draws),
    )


def _horizon_ms(groups: list[pd.DataFrame]) -> float:
    """Infinite where every turn ended."""
    if all((rows["outcome"] == "ok").all() for rows in groups):
        return np.inf
    return min(float(rows.loc[rows["outcome"] == "ok", "ttg_ms"].max()) for rows in groups)


def _times_ms(rows: pd.DataFrame, horizon_ms: float) -> Floats:
    """Time to generate of each turn, at most the horizon."""
    times = floats(rows["ttg_ms"])
    times[(rows["outcome"] != "ok").to_numpy()] = np.inf
    return np.minimum(times, horizon_ms)


def _shuffled_taus(groups: list[pd.DataFrame]) -> Floats:
    """Kendall's tau-b of both rankings, where each model takes the lengths of another one's answers.

    tps and time share the time to generate, so they agree well (+0.49 on average) where length and speed have
    nothing to do with each other: what verbosity does lies below that, not below 0. All orders of up to six
    models, else a thousand of them.
    """
    means = []
    for rows in groups:
        ok = rows[rows["outcome"] == "ok"]
        means.append(ok[["ttft_ms", "tpot_ms", "later_tokens", "tokens"]].mean().to_numpy(dtype=float))
    ttft, tpot, later, tokens = np.nan_to_num(np.stack(means, axis=1))
    if len(groups) <= _ALL_ORDERS:
        orders = np.array(list(permutations(range(len(groups)))))
    else:
        rng = np.random.default_rng(0)
        orders = np.stack([rng.permutation(len(groups)) for _ in range(_SHUFFLES)])
    times = ttft + tpot * later[orders]
    with np.errstate(invalid="ignore", divide="ignore"):
        taus = tau_b(tokens[orders] / times, 1 / times)
    return taus[np.isfinite(taus)]


def _middle(taus: Floats) -> list[float] | None:
    if not len(taus):
        return None
    return [float(end) for end in np.quantile(taus, (0.025, 0.975), method="inverted_cdf")]


def _model(name: str, rows: pd.DataFrame, horizon_ms: float) -> RankedModel:
    ok = rows[rows["outcome"] == "ok"]
    time_s = float(ok["ttg_ms"].sum()) / 1e3
    words = float(ok["words"].sum())
    return RankedModel(
        name=name,
        turns=len(ok),
        conversations=conversations_in(clusters(rows)),
        tps=float(ok["tokens"].sum()) / time_s,
        time_ms=float(_times_ms(rows, horizon_ms).mean()),
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
    """(tps, mean time in ms) of each model's turns; restricted where one never finished."""
    horizon_ms = _horizon_ms(groups)
    models = [_model("", rows, horizon_ms) for rows in groups]
    return np.array([model.tps for model in models]), np.array(
        [model.time_ms for model in models], dtype=float
    )


def draws_of(groups: list[pd.DataFrame]) -> tuple[Floats, Floats] | None:
    """(tps, time) of each model in each resample; None where a model has too few conversations."""
    tps, time = [], []
    horizon_ms = _horizon_ms(groups)
    for seed, rows in enumerate(groups):  # a seed each: what one model drew says nothing of another
        talks = clusters(rows)
        if conversations_in(talks) < LEAST_CONVERSATIONS:
            return None
        ok = (rows["outcome"] == "ok").to_numpy()
        columns = [
            np.nan_to_num(floats(rows["tokens"])) * ok,
            np.where(ok, floats(rows["ttg_ms"]), 0),
            _times_ms(rows, horizon_ms),
            np.ones(len(rows)),
        ]
        sums = Resampler(int(talks.max()) + 1, seed).sums(np.stack(columns, axis=1).astype(float), talks)
        with np.errstate(invalid="ignore", divide="ignore"):
            tps.append(sums[:, 0] / sums[:, 1])
            time.append(sums[:, 2] / sums[:, 3])
    return np.stack(tps, axis=1), np.stack(time, axis=1)


def tau_ends(left: Floats, right: Floats) -> list[float] | None:
    """The middle 95% of tau-b over resamples, a row each; None where no resample has a ranking."""
    taus = tau_b(left, right)
    return _middle(taus[np.isfinite(taus)])  # a resample in which all are tied has no ranking


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
            p = p_value = None
            if draws is not None:
                logs = [np.log(part[:, fast]) - np.log(part[:, soon]) for part in draws]
                p = float(((logs[0] > 0) & (logs[1] > 0)).mean())
                # Both must hold, so the less sure one counts (Berger 1982); both ways round were looked at.
                p_value = min(2 * max(_tail(part) for part in logs), 1.0)
            ways.append(ModelPair(faster=names[fast], sooner=names[soon], swaps=swaps, p=p, p_value=p_value))
        best = max(ways, key=lambda pair: (pair.swaps, pair.p or 0.0))
        if best.swaps or (best.p or 0.0) >= _MAY_SWAP:
            found.append(best)
    return found


def _tail(apart: Floats) -> float:
    """P(no difference or the other way round) of resampled log ratios, by a normal tail: a thousand resamples
    alone can't say what is left after the adjustment for many pairs."""
    spread = float(apart.std())
    mean = float(apart.mean())
    if spread <= 1e-12:
        return 0.0 if mean > 0 else 1.0
    return normal_cdf(-mean / spread)


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
