"""Turns that were given up, in made runs whose truth is known: no metric may look better than it is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks import censoring
from benchmarks.censoring import LIMITS, SHARES, WINDOW_S, Censored, How, per_turn
from turnbench.metrics import METRICS
from turnbench.stats.percentiles import LEAST_N

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95}
CLOSE = 0.002
"""The slack of a percentile that lies between the last turn that ended and the first that was given up."""


@cache
def made(share: float, how: How) -> Censored:
    """400 turns of which this share was given up: the same for every test."""
    return censoring.made(share, how, turns=400)


@pytest.mark.parametrize("how", ["deadline", "abandoned"])
@pytest.mark.parametrize("share", SHARES)
def test_no_percentile_of_any_metric_looks_better_than_the_truth(share: float, how: How) -> None:
    run = made(share, how)
    for metric in per_turn():
        found, true = run.cell.values[metric.key], run.true[metric.key]
        for name, quantile in QUANTILES.items():
            truth, reported = float(np.quantile(true, quantile)), getattr(found, name)
            where = metric.key, name
            if len(true) < 2 * LEAST_N[name]:
                continue  # too few answers had 256 tokens
            if share == 0:
                assert reported == pytest.approx(truth, rel=1e-9), where
            elif reported is None:
                assert name in found.bound or metric.higher_is_better, where  # a rate may have been anything
            elif metric.higher_is_better:
                assert reported <= truth * (1 + CLOSE), where
            else:
                assert reported >= truth * (1 - CLOSE), where


@pytest.mark.parametrize("share", SHARES[1:])
def test_behind_a_deadline_waits_are_exact_below_it_and_bounded_above(share: float) -> None:
    run = made(share, "deadline")
    for key in ("ttft_ms", "response_delay_ms", "ttg_ms"):
        found, true = run.cell.values[key], run.true[key]
        for name, quantile in QUANTILES.items():
            truth, reported = float(np.quantile(true, quantile)), getattr(found, name)
            if reported is not None:
                assert reported == pytest.approx(truth, rel=CLOSE), (key, name)
            else:
                assert found.bound[name] <= truth * (1 + 1e-9), (key, name)
    deadline_ms = float(np.quantile(run.true["ttg_ms"], 1 - share))
    assert run.cell.values["ttg_ms"].bound["p95"] == pytest.approx(deadline_ms, rel=1e-6)


@pytest.mark.parametrize("how", ["deadline", "abandoned"])
@pytest.mark.parametrize("share", SHARES)
def test_a_restricted_mean_is_that_of_whole_answers_up_to_the_same_time(share: float, how: How) -> None:
    run = made(share, how)
    found = run.cell.values["ttg_ms"]
    truth = np.minimum(run.true["ttg_ms"], np.inf if found.mean_to is None else found.mean_to)
    ends = found.ci95["mean"]
    assert ends is not None
    low, high = ends
    assert low is not None
    assert high is not None
    assert low <= truth.mean() <= high
    if how == "deadline":
        assert found.mean == pytest.approx(truth.mean(), rel=1e-9 if share == 0 else 1e-3)


@pytest.mark.parametrize("how", ["deadline", "abandoned"])
@pytest.mark.parametrize("share", SHARES)
def test_counts_and_goodput_say_how_many_were_given_up(share: float, how: How) -> None:
    cell = (run := made(share, how)).cell
    assert (cell.turns, cell.failed, cell.failed_share) == (400, 0, 0.0)
    assert cell.unfinished == 400 - cell.ok == pytest.approx(400 * share, abs=2)
    assert cell.turn_goodput_per_s == pytest.approx(run.met / WINDOW_S)
    assert set(LIMITS["t"]) <= set(METRICS)
