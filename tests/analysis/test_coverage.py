"""Intervals against a known law; `python -m benchmarks.coverage` prints the table of docs/statistics.md."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import held, laws
from turnbench.stats.percentiles import quantile_ends

LAWS = {law.name: law for law in laws()}


@pytest.mark.parametrize("name", ["independent, 100 turns", "ICC 0.3, 5 turns, 1000 turns"])
def test_an_interval_holds_the_truth_in_about_95_percent_of_draws(name: str) -> None:
    for number, (share, width) in held(LAWS[name], draws=100).items():
        assert share >= 0.89, number
        assert 1.0 <= width <= 1.4, number


def test_an_interval_sees_a_server_that_drifts_for_everybody() -> None:
    law = LAWS["speed sd 0.2, 10 s, 64 people, 240 s"]
    for number, (share, width) in held(law, draws=40).items():
        assert share >= 0.75, number
        assert width > 2, number


def test_an_interval_that_takes_turns_of_one_conversation_for_independent_is_narrower() -> None:
    rng = np.random.default_rng(3)
    talks = np.repeat(np.arange(100), 5)
    values = rng.normal(0, 1, 100)[talks] + rng.normal(0, 0.2, 500) + 10
    ordered = np.sort(values)
    low, high = quantile_ends(ordered, values, talks, 0.5)
    naive_low, naive_high = quantile_ends(ordered, values, np.arange(500), 0.5)
    assert None not in (low, high, naive_low, naive_high)
    assert high - low > 1.5 * (naive_high - naive_low)  # type: ignore[operator]


def test_an_end_beyond_the_sample_is_not_told() -> None:
    values = np.arange(1.0, 70.0)
    _, high = quantile_ends(values, values, np.arange(len(values)), 0.99)
    assert high is None
