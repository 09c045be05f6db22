"""Percentiles, effective turns, intervals and the warm-up test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures.distribution import Sample, distribution
from analysis.stats.steadiness import change_point, settled_after, too_short
from benchmarks.steadiness import autoregressive
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, Resampler
from turnbench.stats.percentiles import LEAST_N, effective_at, percentile, reportable

RNG = np.random.default_rng(7)
BEGIN = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers, whichever ran before it in its process."""
    RNG.bit_generator.state = BEGIN


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_the_linear_one_of_numpy(values: list[float], quantile: float) -> None:
    found = percentile(np.array(values), quantile)
    assert found == pytest.approx(np.quantile(values, quantile))


def test_a_percentile_that_falls_among_unfinished_turns_is_null() -> None:
    values = np.array([1.0] * 60 + [np.inf] * 40)
    assert percentile(values, 0.5) == 1.0
    assert percentile(values, 0.9) is None


@pytest.mark.parametrize(("name", "least"), LEAST_N.items())
def test_no_percentile_below_its_least_number_of_turns(name: str, least: int) -> None:
    enough, few = (np.sort(RNG.normal(size=count)) for count in (least, least - 1))
    assert name in reportable(enough, enough, np.arange(least))
    assert name not in reportable(few, few, np.arange(least - 1))


def test_turns_that_repeat_their_conversation_count_as_one() -> None:
    clusters = np.repeat(np.arange(50), 10)
    copies = np.repeat(RNG.normal(size=50), 10)
    assert effective_at(copies, clusters, 0.5) == pytest.approx(50)
    independent = RNG.normal(size=500)
    assert effective_at(independent, clusters, 0.5) > 250


def test_a_known_correlation_is_recovered() -> None:
    clusters = np.repeat(np.arange(2000), 5)
    values = np.repeat(RNG.normal(size=2000), 5) + RNG.normal(size=10_000)  # half of the variance is shared
    shared = 2 / np.pi * np.arcsin(0.5)  # of the indicator of the median (Sheppard 1899)
    assert effective_at(values, clusters, 0.5) == pytest.approx(10_000 / (1 + 4 * shared), rel=0.05)


def test_few_conversations_may_be_more_alike_than_they_look() -> None:
    clusters = np.repeat(np.arange(20), 5)
    passed = [
        "p90" in reportable(np.sort(values), values, clusters)
        for values in (np.random.default_rng(seed).normal(size=100) for seed in range(50))
    ]
    assert sum(passed) < 45


def test_turns_of_one_conversation_say_as_much_as_one_turn() -> None:
    assert effective_at(RNG.normal(size=100), np.zeros(100, dtype=int), 0.5) == pytest.approx(1)


def test_no_interval_over_fewer_than_twenty_conversations() -> None:
    for count, told in ((LEAST_CONVERSATIONS - 1, False), (LEAST_CONVERSATIONS, True)):
        clusters = np.repeat(np.arange(count), 3)
        found = distribution(Sample(RNG.normal(size=3 * count), clusters), Resampler(count))
        assert (found.ci95["mean"] is not None) == told


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = RNG.normal(10, 2, size=400)
    ends = Resampler(400).intervals(values, np.arange(400), ["p50"])
    low, high = ends["mean"]
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.2)
    low, high = ends["p50"]
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 * 2 * 1.2533 / np.sqrt(400), rel=0.35)


def test_an_interval_resamples_conversations_and_not_turns() -> None:
    shared = np.repeat(RNG.normal(size=40), 25)
    clusters = np.repeat(np.arange(40), 25)
    low, high = Resampler(40).intervals(shared, clusters, [])["mean"]
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.35)  # not / sqrt(1000)


def test_nine_in_ten_intervals_or_more_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(40), 4)
        values = np.repeat(rng.normal(size=40), 4) + rng.normal(size=160)
        low, high = Resampler(40, seed=1).intervals(values, clusters, ["p50"])["p50"]
        held += low is not None and high is not None and low <= 0 <= high
    assert held >= 180


def test_binning_many_values_moves_an_interval_by_little() -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(5, 0.5, size=5000)
    ends = Resampler(5000).intervals(values, np.arange(5000), ["p50", "p99"])
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        resampled = [np.quantile(rng.choice(values, 5000), quantile) for _ in range(300)]
        assert ends[name][0] == pytest.approx(np.quantile(resampled, 0.025), rel=0.02)
        assert ends[name][1] == pytest.approx(np.quantile(resampled, 0.975), rel=0.02)


def test_an_interval_that_reaches_unfinished_turns_has_no_upper_end() -> None:
    values = np.array([1.0] * 52 + [np.inf] * 48)
    so_far = np.where(np.isfinite(values), np.nan, 3.0)
    found = distribution(Sample(values, np.arange(100), so_far=so_far), Resampler(100))
    assert found.p50 == 1.0
    assert found.ci95["p50"] == [1.0, None]
    assert found.p90 is None
    assert found.bound == {"p90": 3.0, "max": 3.0}
    assert (found.mean, found.mean_to) == (pytest.approx(0.52 * 1 + 0.48 * 3), 3.0)


def test_a_warm_up_that_was_too_short_is_seen() -> None:
    values = np.random.default_rng(1).normal(1.0, 0.1, size=400)
    values[:60] += 0.8
    found = too_short(values)
    assert found is not None
    cut, share = found
    assert 50 <= cut <= 75
    assert share == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(("first", "longer", "seen"), [(5, 0.1, False), (60, 0.06, False), (5, 9.0, True)])
def test_a_warm_up_counts_by_what_it_moves(first: int, longer: float, seen: bool) -> None:
    """The first two are `make demo`'s, whose people all begin at once; the third is a server's cold start."""
    values = np.random.default_rng(2).normal(1.0, 0.01, size=230)
    values[:first] *= 1 + longer
    assert settled_after(values) >= first
    assert (too_short(values) is not None) is seen


def test_steady_turns_are_hardly_ever_taken_for_a_warm_up() -> None:
    alarms = sum(too_short(np.random.default_rng(s).lognormal(0, 0.6, 300)) is not None for s in range(300))
    assert alarms <= 9


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("turns", [100, 400])
def test_a_stationary_series_hardly_ever_alarms(rho: float, turns: int) -> None:
    warm = drift = 0
    for seed in range(200):
        logs = 0.3 * autoregressive(rho, turns, np.random.default_rng(seed))
        warm += too_short(100 * np.exp(logs)) is not None
        drift += change_point(logs) is not None
    assert (warm <= 10, drift <= 10) == (True, True), (warm, drift)


def test_the_warm_up_is_not_judged_below_a_hundred_turns() -> None:
    values = np.concatenate([np.full(20, 5.0), np.ones(79)])
    assert settled_after(values) == 20
    assert too_short(values) is None
