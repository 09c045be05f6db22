"""What a level cost: energy of the GPUs in its window and their price, for each answer and token.

Answers and tokens are counted by how much of them lies in the window. Intervals are of a ratio of sums over
the twentieths of the window, which are resampled (Efron and Tibshirani, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.measures.throughput import tokens_by_block
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import LevelEnergy
from turnbench.formats.server import GpuSample
from turnbench.formats.summary import Interval
from turnbench.gpu_metrics import joules_at
from turnbench.outcomes import ANSWERED
from turnbench.turns import Floats

_BLOCKS, _REPEATS = 20, 1000
_HOUR_S = 3600.0


def energy_of(study: Study, level: Level, gpus: Sequence[GpuSample]) -> LevelEnergy | None:
    """None where neither power nor price is known."""
    price = study.manifest.settings.get("gpu_price")
    price_per_s = float(price) / _HOUR_S if isinstance(price, (int, float)) else None
    edges = np.linspace(level.window_start_ns, level.window_end_ns, _BLOCKS + 1).astype(np.int64)
    at = joules_at(gpus, edges.tolist()) if level.window_s > 0 else None
    if level.window_s <= 0 or (at is None and price_per_s is None):
        return None
    answers, tokens = _answers_by_block(study, level), tokens_by_block(study.frame, level)
    found = LevelEnergy(answers=float(answers.sum()), tokens=float(tokens.sum()))
    if at is not None:
        joules = np.diff(at)
        found.joules = float(joules.sum())
        found.mean_power_w = found.joules / level.window_s
        found.joules_per_answer, found.joules_per_answer_ci95 = _ratio(joules, answers)
        found.joules_per_1000_tokens, found.joules_per_1000_tokens_ci95 = _ratio(joules * 1000, tokens)
    if price_per_s is not None:
        cost = np.full(_BLOCKS, price_per_s * level.window_s / _BLOCKS)
        found.cost_per_1000_answers, found.cost_per_1000_answers_ci95 = _ratio(cost * 1000, answers)
        found.cost_per_million_tokens, found.cost_per_million_tokens_ci95 = _ratio(cost * 1e6, tokens)
    return found


def _answers_by_block(study: Study, level: Level) -> Floats:
    """Answered turns by the share of their time, from sending to end, that lies in each block."""
    rows = study.frame[study.frame["outcome"].isin(ANSWERED)]
    sent_s = floats(rows["sent_ns"] - level.window_start_ns) / 1e9
    length_s = np.maximum(floats(rows["end_ns"] - rows["sent_ns"]) / 1e9, 1e-6)
    edges = np.linspace(0, level.window_s, _BLOCKS + 1)
    by_edge = [float(np.nansum(np.clip((edge - sent_s) / length_s, 0, 1))) for edge in edges]
    return np.diff(by_edge)


def _ratio(above: Floats, below: Floats) -> tuple[float | None, Interval | None]:
    """Sum over sum, and its interval."""
    if below.sum() <= 0:
        return None, None
    draws = np.random.default_rng(0).integers(0, _BLOCKS, (_REPEATS, _BLOCKS))
    sums = below[draws].sum(axis=1)
    ratios = above[draws].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(above.sum() / below.sum()), [float(low), float(high)]
