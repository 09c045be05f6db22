"""Which of model, task and load a time depends on: analysis of variance with effect sizes.

Type II sums of squares of the mean log TTG of each conversation in each cell, two-way interactions
included where cells allow them. Effect sizes are omega squared (Hays 1963): the part of the variance that a
term explains beyond what chance would.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.sample import clusters

_FACTORS = {"model": "name", "task": "task", "load": "load"}
_MOST_ROWS = 20_000


def effects_of(pool: pd.DataFrame) -> list[dict[str, Any]] | None:
    """`[{term, df, omega_squared, p_value}]`; None where fewer than two models or too few conversations."""
    means = _means(pool[(pool["outcome"] == "ok") & (pool["ttg_ms"] > 0)])
    factors = [name for name in _FACTORS if len(means) and means[name].nunique() > 1]
    if "model" not in factors:
        return None
    terms = [f"C({name})" for name in factors]
    whole = means.groupby(factors).ngroups == np.prod([means[name].nunique() for name in factors])
    if whole:  # with a cell missing, an interaction with it can't be told
        terms += [f"{a}:{b}" for a, b in combinations(terms, 2)]
    return _table(means, terms)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """One mean of log TTG for each conversation in each cell; factors as numbers: names may be hostile."""
    columns = {name: pd.factorize(rows[column])[0] for name, column in _FACTORS.items()}
    frame = pd.DataFrame(columns).assign(talk=clusters(rows), y=np.log(rows["ttg_ms"].to_numpy(dtype=float)))
    means = frame.groupby(["talk", *_FACTORS])["y"].mean().reset_index()
    return means.sample(_MOST_ROWS, random_state=0) if len(means) > _MOST_ROWS else means


def _table(means: pd.DataFrame, terms: list[str]) -> list[dict[str, Any]] | None:
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
        found.append({"term": name, "df": int(df), "omega_squared": float(omega), "p_value": p})
    return found
