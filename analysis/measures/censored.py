"""Turns whose wait is known only to have been longer: which they are, and what is known of their numbers.

Without them the slow answers would be missing: with the slowest 30 % ended by a deadline, a median of 932 ms
was reported as 824.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.turns.frame import column_of, floats
from turnbench.metrics import Metric
from turnbench.outcomes import BROKEN_OFF, CENSORED
from turnbench.turns import Bools, Floats


def is_censored(rows: pd.DataFrame) -> Bools:
    """Which of these turns still ran when they were last seen; of broken streams, those with content."""
    broken = rows["outcome"].isin(BROKEN_OFF) & rows["ttft_ms"].notna()
    return np.asarray(rows["outcome"].isin(CENSORED) | broken, dtype=bool)


def ranked(rows: pd.DataFrame, metric: Metric) -> Floats:
    """The metric of each turn; NaN where it has none.

    A censored turn ranks as worse than all that ended, with an infinite value, unless the metric was settled
    before (its first token had come).
    """
    return _ranked(rows, is_censored(rows), metric)


def _ranked(rows: pd.DataFrame, censored: Bools, metric: Metric) -> Floats:
    values = floats(rows[column_of(metric.key)])
    open_ended = censored & np.isnan(values) if metric.early else censored
    values[open_ended] = -np.inf if metric.higher_is_better else np.inf
    return values


def values_of(rows: pd.DataFrame, censored: Bools, metric: Metric) -> tuple[Floats, Floats]:
    """(the metric of each turn as `ranked` has it, what is known of it where that is infinite).

    NaN where a turn has no such number, or nothing is known. `censored`: what `is_censored` says of `rows`.
    """
    values = _ranked(rows, censored, metric)
    so_far = np.full(len(values), np.nan)
    if (open_ended := np.isinf(values)).any():
        mine = rows[open_ended]
        so_far[open_ended] = _so_far(mine, metric, floats(mine[column_of(metric.key)]))
    return values, so_far


def _so_far(rows: pd.DataFrame, metric: Metric, seen: Floats) -> Floats:
    """What the metric was at least (of a rate: at most) when each turn was last seen."""
    watched_ms = floats(rows["end_ns"] - rows["sent_ns"]) / 1e6
    tokens = np.maximum(np.nan_to_num(floats(rows["later_tokens"])), 1.0)
    per_token_ms = (watched_ms - floats(rows["ttft_ms"])) / tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        known = {
            "ttg_ms": watched_ms,
            "response_delay_ms": watched_ms + floats(rows["sent_ns"] - rows["due_ns"]) / 1e6,
            "tpot_ms": per_token_ms,
            "decode_tokens_per_s": np.where(per_token_ms > 0, 1e3 / per_token_ms, np.nan),
            # The wait before the first token weighs less in a whole answer, so what was seen bounds nothing.
            "request_tps": np.full(len(rows), np.nan),
        }
    # An early metric that a turn has not is still being waited for.
    return known.get(metric.key, watched_ms if metric.early else seen)
