"""Limits on what a person should wait, and which turns, conversations and levels keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

LIMITED = ("ttft_ms", "response_delay_ms", "ttg_ms", "tpot_ms")
DEFAULT_SHARE = 0.95
_MOST = 1e15


@dataclass(frozen=True)
class Limits:
    """One task's limits in milliseconds, and the share of its turns that must keep them all."""

    limits_ms: dict[str, float]
    share: float


def limits_of(manifest: dict[str, Any]) -> dict[str, Limits]:
    """The limits in force for each task that has any."""
    written = manifest.get("slo")
    found = {}
    for task, keys in written.items() if isinstance(written, dict) else ():
        numbers = {k: float(v) for k, v in keys.items() if _is_number(v)} if isinstance(keys, dict) else {}
        limits_ms = {key: value for key, value in numbers.items() if key in LIMITED}
        if limits_ms:
            found[str(task)] = Limits(limits_ms, numbers.get("share", DEFAULT_SHARE))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def meets(frame: pd.DataFrame, limits: dict[str, Limits]) -> pd.Series:
    """Whether a turn is ok and at or under ALL limits of its task (a null TPOT passes); null: no limits."""
    out = pd.Series(pd.NA, index=frame.index, dtype="boolean")
    for task, item in limits.items():
        rows = frame[frame["task"] == task]
        kept = (rows["outcome"] == "ok").to_numpy(copy=True)
        for key, limit_ms in item.limits_ms.items():
            values = rows[key].to_numpy(dtype=np.float64)
            kept &= (values <= limit_ms) | (np.isnan(values) if key == "tpot_ms" else False)
        out[rows.index] = kept
    return out


def level_holds(measured: pd.DataFrame, limits: dict[str, Limits]) -> bool | None:
    """Whether enough of a level's measured turns keep their limits; None where no turn has any.

    Tasks may ask for different shares: then the turns that must keep them are summed over tasks.
    """
    limited = measured[measured["meets"].notna()]
    if limited.empty:
        return None
    needed = limited["task"].map({task: item.share for task, item in limits.items()}).astype(float).sum()
    return bool(limited["meets"].astype(int).sum() >= needed - 1e-9)
