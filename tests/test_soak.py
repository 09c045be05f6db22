"""What the soak calls growth: a line and a curve are, noise whose neighbours are alike is not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from benchmarks.soak import Slope, slope

HALF_AN_HOUR_S = 1800


def slope_of(value_at: dict[int, float]) -> Slope:
    found = slope([(float(at_s), value) for at_s, value in value_at.items()])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "grown",
    [
        pytest.param(lambda share: share, id="a line"),
        pytest.param(lambda share: share**2, id="a curve"),
        pytest.param(lambda share: 1 - math.exp(-2 * share), id="less and less"),
    ],
)
def test_growth_of_any_form_is_growth(grown: Callable[[float], float]) -> None:
    found = slope_of({at_s: 200 + 40 * grown(at_s / HALF_AN_HOUR_S) for at_s in range(HALF_AN_HOUR_S)})
    assert found.grows


def test_what_never_changes_has_no_slope() -> None:
    found = slope_of(dict.fromkeys(range(HALF_AN_HOUR_S), 10.0))
    assert (found.per_hour, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.grows
    assert not found.may_grow


def test_noise_whose_neighbours_are_alike_is_seldom_growth() -> None:
    draw, missed = random.Random(5), 0
    for _ in range(200):
        at, value_at = 0.0, dict[int, float]()
        for at_s in range(0, HALF_AN_HOUR_S, 30):
            at = 0.6 * at + draw.gauss(0, 5)
            value_at[at_s] = 125 + at
        found = slope_of(value_at)
        missed += not found.low <= 0 <= found.high
    assert missed < 40, "as independent values they were missed 62 times"


def test_what_half_an_hour_cannot_tell_is_said() -> None:
    assert Slope(mean=125, per_hour=0.2, low=-2.7, high=3.2).may_grow
    assert not Slope(mean=125, per_hour=0.2, low=-2.0, high=2.4).may_grow
    assert Slope(mean=125, per_hour=4.7, low=0.1, high=9.4).grows
