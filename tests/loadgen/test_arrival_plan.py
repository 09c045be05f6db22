"""Open loop: arrivals come at the asked rate, in the asked gaps, the same for every worker."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from loadgen._messages import ArrivalSchedule, Job
from loadgen.engine._arrivals import arrival_offsets_s, arrivals_of, gap, ramped_offsets_s
from loadgen.options._settings import Settings
from loadgen.options._shape import ChangingRate
from loadgen.options._shapes import Ramp
from loadgen.options._values import ArrivalRates, arrival_rates
from tests.tries import tries


def planned(count: int, rate: float = 50.0, shape: float = 1.0, seed: int = 0, **more: object) -> list[float]:
    return list(islice(arrival_offsets_s(seed, 0, rate, shape, **more), count))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [0.25, 0.5, 1.0, 2.0, 10.0])
def test_gaps_pass_a_kolmogorov_smirnov_test_for_the_asked_gamma(shape: float) -> None:
    gaps = np.diff([0.0, *planned(6000, shape=shape, spans_s=(5.0, 55.0))])
    told = scipy.stats.kstest(gaps, scipy.stats.gamma(shape, scale=1 / (50 * shape)).cdf)
    assert told.pvalue > 0.01
    wrong = scipy.stats.kstest(gaps, scipy.stats.gamma(shape * 1.5, scale=1 / (75 * shape)).cdf)
    assert wrong.pvalue < 1e-3, "this test could not fail"


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_a_window_is_offered_the_asked_rate(shape: float) -> None:
    times = np.array(planned(4000, shape=shape, spans_s=(5.0, 60.0)))
    assert np.count_nonzero(times <= 5.0 + 1e-9) == 250
    assert np.count_nonzero((times > 5.0 + 1e-9) & (times <= 65.0 + 1e-9)) == 3000


@pytest.mark.parametrize("rate", [2.0, 1.7, 2.55])
def test_a_window_after_a_short_warm_up_is_offered_the_asked_rate_too(rate: float) -> None:
    for seed in range(20):
        due_ns = [round(at * 1e9) for at in planned(400, rate, seed=seed, spans_s=(10.0, 60.0, 0.0))]
        assert sum(10 * 10**9 <= at < 70 * 10**9 for at in due_ns) == round(rate * 60)


@tries(40)
@given(
    seed=st.integers(0, 2**63),
    workers=st.integers(1, 9),
    rate=st.floats(0.01, 50),
    shape=st.floats(0.05, 20),
)
def test_workers_together_play_exactly_the_arrivals_of_one(
    seed: int, workers: int, rate: float, shape: float
) -> None:
    settings = Settings(host="http://127.0.0.1", seed=seed, burstiness=shape)
    schedule = ArrivalSchedule(7_000, first=5, rate_per_s=rate, spans_s=[])

    def first_fifty(worker: int, workers: int) -> list[tuple[int, int]]:
        job = Job(run="r", worker=worker, workers=workers, settings=settings, salt="ab", model="m",
                  usage_in_events=False, scenario="")  # fmt: skip
        return list(takewhile(lambda arrival: arrival[0] < 55, arrivals_of(job, schedule)))

    alone = first_fifty(0, 1)
    assert [number for number, _ in alone] == list(range(5, 55))
    assert alone == sorted(alone, key=lambda arrival: arrival[1])
    shares = [first_fifty(worker, workers) for worker in range(workers)]
    assert sorted(arrival for share in shares for arrival in share) == alone
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_draw_is_decided_by_seed_and_number_alone() -> None:
    assert gap(7, 5, 1.0) == gap(7, 5, 1.0)
    assert len({gap(seed, k, 1.0) for seed in range(10) for k in range(100)}) == 1000


def test_rare_arrivals_are_not_clockwork() -> None:
    gaps = np.diff([0.0, *planned(2000, rate=0.01, spans_s=(5.0, 300.0))])
    assert scipy.stats.kstest(gaps, scipy.stats.expon(scale=100).cdf).pvalue > 0.01


def test_a_long_window_does_not_drift_from_its_rate() -> None:
    times = planned(60_000, rate=1000.0)  # blocks of 20,000
    assert times[-1] == pytest.approx(60.0, abs=1e-6)


ramps = st.builds(
    ChangingRate,
    from_per_s=st.floats(1e-3, 1e4),
    to_per_s=st.floats(1e-3, 1e4),
    over_s=st.floats(1, 1e5),
)


@given(ramp=ramps, share=st.floats(0.001, 2))
def test_the_moment_of_so_many_arrivals_is_when_so_many_are_expected(ramp: Any, share: float) -> None:
    at_s = share * ramp.over_s
    assert ramp.moment_s(ramp.expected(at_s)) == pytest.approx(at_s, rel=1e-6)


def test_a_ramp_gives_each_span_the_arrivals_that_it_expects() -> None:
    ramp = ChangingRate(10, 90, 60)
    times = np.array(list(islice(ramped_offsets_s(0, 0, ramp, 1.0, (6.0, 54.0)), 4000)))
    assert np.all(np.diff(times) >= 0)
    assert np.count_nonzero(times <= 60 + 1e-9) == ramp.expected(60) == 3000
    counts, _ = np.histogram(times, bins=np.arange(0, 61, 10))
    rates = 10 + 80 * (np.arange(5, 60, 10) / 60)
    assert counts / 10 == pytest.approx(rates, rel=0.15)
    shape = Ramp(from_per_s=10, to_per_s=90, run_time_s=60, warmup_s=6)
    assert shape.mean_rate_per_s(*shape.loads()) == pytest.approx((3000 - 84) / 54)


def test_a_rate_may_be_one_a_ramp_or_steps() -> None:
    assert arrival_rates("2.5") == ArrivalRates(2.5)
    assert arrival_rates("1..20") == ArrivalRates(1.0, ramp_to_per_s=20.0)
    assert arrival_rates("1,2,5") == ArrivalRates(1.0, steps_per_s=[1.0, 2.0, 5.0])


@pytest.mark.parametrize("text", ["", "1..", "..5", "0..5", "1,,2", "nan", "1..2..3", "5,-1", "1, two"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        arrival_rates(text)
