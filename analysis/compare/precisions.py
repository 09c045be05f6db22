"""Is the order of models the same at a lower precision? Kendall's tau between the two orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.ranking import draws_of, speeds_of, tau_b, tau_ends
from turnbench.turns import Floats

FULL = ("fp16", "bf16")
"""What the others are set beside: FP16, or BF16 where a model has no FP16."""


def orders_by_precision(pool: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a task, load and lower precision: `models`, `tau_time` and `tau_tps` with their intervals.

    tau_time: between the models' orders by mean TTG at 16 bits and at the lower precision; tau_tps: between
    their orders by tokens per second. Only models that were played at both; nothing with fewer than two.
    """
    lower = [p for p in pool["precision"].unique() if p and p not in FULL]
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
    for _, family in rows.groupby("family", sort=True):
        parts = {name: part for name, part in family.groupby("precision") if (part["outcome"] == "ok").any()}
        full = next((parts[name] for name in FULL if name in parts), None)
        if full is not None and precision in parts:
            found.append((full, parts[precision]))
    return found


def _agreement(pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> dict[str, Any]:
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    told = [speeds_of(groups) for groups in sides]
    draws = draws_of([*sides[0], *sides[1]])
    halves = None
    if draws is not None:
        halves = [[part[:, : len(pairs)], part[:, len(pairs) :]] for part in draws]
    found: dict[str, Any] = {}
    for index, name in enumerate(("tps", "time")):
        orders = [_order(told[side][index], name) for side in (0, 1)]
        tau = float(tau_b(orders[0][None, :], orders[1][None, :])[0])
        found[f"tau_{name}"] = tau if np.isfinite(tau) else None
        ends = halves and tau_ends(*(_order(part, name) for part in halves[index]))
        found[f"tau_{name}_ci95"] = ends
    return found


def _order(values: Floats, name: str) -> Floats:
    """As speeds, the higher the better; a model with a turn that never ended comes last."""
    return values if name == "tps" else 1 / values
