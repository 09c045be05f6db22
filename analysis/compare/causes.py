"""What a time depends on: length of the answer, time per token, first token; model, task and load.

Four views of the same turns: shares of the variance (Shapley 1953), the swap table, an analysis of variance,
and each task against the model's fastest one, as the study has it.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd

from analysis.compare.variants import clusters
from analysis.measures.censored import ranked
from analysis.turns.frame import floats
from turnbench.formats.comparison import Effect, SwapTable, TaskRatio, TaskRatios, TimeShares
from turnbench.metrics import METRICS
from turnbench.outcomes import BROKEN_OFF
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, Resampler, conversations_in
from turnbench.turns import Bools, Floats

PARTS = ("verbosity", "time_per_token", "first_token")
LENGTHS = {"natural": "ttg_ms", "at_256": "ttg256_ms"}
"""Of tasks' ratios: which time is compared at each length of answers."""
STUDY_RATIO = (1.3, 1.4)
"""What a summary of the study (Conde et al., IEEE Computer 2024) reports for complex tasks at 256 tokens:
30 to 40% more."""
_LEAST_TURNS = 11
_LEAST_VARIANCE = 1e-12
_FACTORS = {"model": "name", "task": "task", "load": "load"}
_MOST_ROWS = 20_000

Subset = frozenset[int]


def shares_of(rows: pd.DataFrame) -> TimeShares | None:
    """How much of the spread in time is verbosity, how much time per token, how much the first token.

    None where there is no spread to split.
    v(S) = variance of log(TTFT + M TPOT) where the quantities in S take each turn's value and the others
    their median (M: tokens after the first event). Shares are Shapley values over v(all): they sum to one
    and may be negative.
    """
    rows = rows[(rows["outcome"] == "ok") & rows["ttft_ms"].notna() & rows["later_tokens"].notna()]
    if len(rows) < _LEAST_TURNS:
        return None
    logs = _logs(rows)
    whole = _shares({which: np.array([np.var(log)]) for which, log in logs.items()})
    if whole is None:
        return None
    variance = float(np.var(logs[frozenset(range(3))]))
    shares = dict(zip(PARTS, map(float, whole[0]), strict=True))
    return TimeShares(**shares, variance=variance, ci95=_share_ends(rows, logs))


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


def _share_ends(rows: pd.DataFrame, logs: dict[Subset, Floats]) -> dict[str, list[float | None]] | None:
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


def swap_of(rows: pd.DataFrame) -> SwapTable | None:
    """How long would model A take for answers as long as model B's?

    Row A, column B is A's mean TTFT + A's time per token x B's mean length.

    The diagonal is each model's own mean time to generate. Lengths are in tokens after the first event, each
    counted by the tokenizer of the model that wrote them. None with fewer than two models.
    """
    ok = rows[(rows["outcome"] == "ok") & rows["ttft_ms"].notna() & rows["later_tokens"].notna()]
    if ok["name"].nunique() < 2:
        return None
    by = ok.assign(after_ms=ok["ttg_ms"] - ok["ttft_ms"]).groupby("name", sort=True)
    first_ms, length = by["ttft_ms"].mean(), by["later_tokens"].mean()
    pace_ms = (by["after_ms"].sum() / by["later_tokens"].sum().where(lambda total: total > 0)).astype(float)
    names = [str(name) for name in first_ms.index]
    table = [
        [
            None if pd.isna(pace_ms.iloc[a]) else float(first_ms.iloc[a] + pace_ms.iloc[a] * length.iloc[b])
            for b in range(len(names))
        ]
        for a in range(len(names))
    ]
    return SwapTable(names=names, time_ms=table)


def effects_of(pool: pd.DataFrame) -> list[Effect] | None:
    """Analysis of variance; None where there are fewer than two models or too few conversations.

    Type II sums of squares of the mean log TTG of each conversation in each cell, with two-way interactions
    where no cell is missing. Effect sizes are omega squared (Hays 1963): the part of the variance that a
    term explains beyond what chance would.
    """
    means = _means(pool[(pool["outcome"] == "ok") & (pool["ttg_ms"] > 0)])
    factors = [name for name in _FACTORS if len(means) and means[name].nunique() > 1]
    if "model" not in factors:
        return None
    terms = [f"C({name})" for name in factors]
    whole = means.groupby(factors).ngroups == np.prod([means[name].nunique() for name in factors])
    if whole:  # with a cell missing, its interaction can't be estimated
        terms += [f"{a}:{b}" for a, b in combinations(terms, 2)]
    return _table(means, terms)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """One mean of log TTG for each conversation in each cell; factors as numbers: names may be hostile."""
    columns = {name: pd.factorize(rows[column])[0] for name, column in _FACTORS.items()}
    frame = pd.DataFrame(columns).assign(talk=clusters(rows), y=np.log(rows["ttg_ms"].to_numpy(dtype=float)))
    means = frame.groupby(["talk", *_FACTORS])["y"].mean().reset_index()
    return means.sample(_MOST_ROWS, random_state=0) if len(means) > _MOST_ROWS else means


def _table(means: pd.DataFrame, terms: list[str]) -> list[Effect] | None:
    from statsmodels.formula.api import ols  # slow to import, and most runs have one model
    from statsmodels.stats.anova import anova_lm

    fit = ols(f"y ~ {' + '.join(terms)}", means).fit()
    if fit.df_resid < 1 or not fit.mse_resid > 0:
        return None
    table = anova_lm(fit, typ=2)
    total = float(((means["y"] - means["y"].mean()) ** 2).sum())
    found = []
    for term in terms:
        df, squares, p = (float(table.loc[term, key]) for key in ("df", "sum_sq", "PR(>F)"))
        omega = (squares - df * fit.mse_resid) / (total + fit.mse_resid)
        name = term.replace("C(", "").replace(")", "").replace(":", " x ")
        found.append(Effect(term=name, df=int(df), omega_squared=float(omega), p_value=p))
    return found


def ratios_of(pool: pd.DataFrame) -> list[TaskRatios]:
    """Mean TTG of each task over that of the task which was quickest for the same model and load.

    A row a model, load and task. The natural length is that of answers that could end by themselves; the
    time at 256 tokens is that of answers that were made to have an exact length, where there are any, else of
    those that were longer. A length is null where no turn of the task has it (256 tokens are never
    extrapolated) or where a turn never finished, so that its time isn't known. Nothing where a model played
    only one task at a load. A later turn of a conversation has its history before it, and which turns a
    window holds depends on the load: where two tasks are of one turn, only such are compared, else all by
    first turns.
    """
    found = []
    single = pool[~pool["task"].isin(pool[pool["turn"] > 1]["task"].unique())]
    if single["task"].nunique() < 2:
        single = pool[pool["turn"] == 1]
    for (name, load), rows in single.groupby(["any_length", "load"], sort=False):
        tasks = list(dict.fromkeys(rows["task"]))
        if len(tasks) < 2:
            continue
        exact = rows["exact"].to_numpy(dtype=bool)
        of = {"natural": rows[~exact], "at_256": rows[exact] if exact.any() else rows}
        ratios = {length: _ratios(of[length], tasks, column) for length, column in LENGTHS.items()}
        for task in tasks:
            at = {length: ratios[length].get(task) for length in LENGTHS}
            found.append(TaskRatios(name=str(name), load=str(load), task=str(task), **at))
    return [row for row in found if row.natural or row.at_256]


def _ratios(rows: pd.DataFrame, tasks: list[str], column: str) -> dict[str, TaskRatio]:
    rows = rows[~rows["outcome"].isin(BROKEN_OFF)]  # failed: one of them would leave its task without a mean
    values = ranked(rows, METRICS[column])
    known = ~np.isnan(values)
    rows, values = rows[known], values[known]
    of_task = np.stack([(rows["task"] == task).to_numpy() for task in tasks], axis=1)
    counts = of_task.sum(axis=0)
    sums = np.where(of_task, values[:, None], 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(tasks), np.nan), where=counts > 0)
    if len(rows) == 0 or np.isfinite(means).sum() < 2:
        return {}
    quickest = int(np.nanargmin(means))
    ends = _ratio_ends(rows, values, of_task, quickest)
    return {
        task: TaskRatio(
            n=int(counts[i]),
            time_ms=float(means[i]),
            ratio=float(means[i] / means[quickest]),
            ci95=ends[i],
            quickest=tasks[quickest],
        )
        for i, task in enumerate(tasks)
        if np.isfinite(means[i])
    }


def _ratio_ends(
    rows: pd.DataFrame, values: Floats, of_task: Bools, quickest: int
) -> list[list[float] | None]:
    """Interval of each task's ratio, tasks resampled together: one conversation may play several."""
    talks = clusters(rows)
    enough = [conversations_in(talks[mine]) >= LEAST_CONVERSATIONS for mine in of_task.T]
    if not (len(values) and enough[quickest]):
        return [None] * len(enough)
    times = np.where(of_task & np.isfinite(values)[:, None], values[:, None], 0.0)
    resampler = Resampler(int(talks.max()) + 1)
    sums = resampler.sums(np.concatenate([times, of_task.astype(float)], axis=1), talks)
    above, below = np.split(sums, 2, axis=1)
    means = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    found: list[list[float] | None] = []
    for i, known in enumerate(enough):
        ends = resampler.ends(means[:, i] / means[:, quickest]) if known and i != quickest else [None, None]
        found.append(None if None in ends else [float(end or 0) for end in ends])
    return found
