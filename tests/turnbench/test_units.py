"""TIME as people type it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnbench.units import duration, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90.0),
        ("250ms", 0.25),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        ("1m30s", 90.0),
        ("1m30", 90.0),
        ("10 s", 10.0),
        (" .5s ", 0.5),
        ("0", 0.0),
    ],
)
def test_a_time_is_read_in_its_unit(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-5",
        "5x",
        "1,5",
        "1e3",
        "nan",
        "inf",
        "1m30q",
        "1 2",
        "1.2.3",
        "5 5s",
        "9" * 400,
        "9" * 400 + "h",
    ],
)
def test_all_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s"):
        seconds(text)


@given(
    st.floats(0, 2e5, allow_nan=False),
    st.sampled_from([("ms", 1e-3), ("s", 1), ("", 1), ("m", 60), ("h", 3600)]),
)
def test_any_number_with_any_unit_is_read(number: float, unit: tuple[str, float]) -> None:
    assert seconds(f"{number:.6f}{unit[0]}") == pytest.approx(round(number, 6) * unit[1])


@given(st.text() | st.text(st.sampled_from("0123456789.smh ")))
def test_any_text_is_a_finite_time_or_refused(text: str) -> None:
    try:
        value = seconds(text)
    except ValueError:
        return
    assert math.isfinite(value)
    assert value >= 0


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (7260, "2 h 1 min")],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, says: str) -> None:
    assert duration(seconds) == says
