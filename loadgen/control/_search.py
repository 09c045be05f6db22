"""The next load to try: bracket the capacity in steps of four, then bisect by ratio."""

from __future__ import annotations

import math

MOST_POINTS = 12
NEAR = 1.08
"""Lowest load that fails over highest that holds at which the search ends."""
_STEP = 4.0


def next_load(tried: dict[float, bool], first: float, whole: bool, least: float = 0.0) -> float | None:
    """The load to try after these (load to whether its limits held), or None when the search is over.

    With `whole` a load is a number of people, at least 1. Below `least` too little would happen to judge by:
    a search that found nothing to hold would go down for ever, through ever emptier points.
    """
    if not tried:
        return first
    if len(tried) >= MOST_POINTS:
        return None
    holds, fails = bracket(tried)
    if fails is None:
        return _rounded((holds or first) * _STEP, whole)
    if holds is None:
        lower = _rounded(fails / _STEP, whole)
        return None if lower in tried or lower < least else lower
    if fails / holds <= NEAR or (whole and fails - holds <= 1):
        return None
    middle = _rounded(math.sqrt(holds * fails), whole)
    return None if middle in tried else middle


def bracket(tried: dict[float, bool]) -> tuple[float | None, float | None]:
    """The lowest load that fails, and the highest below it that holds."""
    fails = min((load for load, held in tried.items() if not held), default=None)
    holds = max(
        (load for load, held in tried.items() if held and (fails is None or load < fails)), default=None
    )
    return holds, fails


def _rounded(load: float, whole: bool) -> float:
    return float(max(round(load), 1)) if whole else float(f"{load:.4g}")
