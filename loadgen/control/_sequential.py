"""Does a share hold? A test that may be looked at after every turn and still is right 95 % of the time.

For a null share S, M = the mean over all shares p of one side of L(p) / L(S), L the binomial likelihood, is a
non-negative martingale when the true share is S; by Ville's inequality it ever reaches 20 with a chance of at
most 5 %. So M >= 20 rejects S, whenever it is looked at (Robbins 1970, Howard et al. 2021). Turns are taken
for independent, which those of one overloaded moment are not: the levels' least times are against that.
"""

from __future__ import annotations

import math
from typing import Literal

Answer = Literal["holds", "fails", "open"]
SURE = 0.95
_STEPS = 400


def answer(met: int, turns: int, share: float) -> Answer:
    """Whether at least `share` of turns meet the limits, as far as `met` of `turns` can tell at 95 %.

    A share of 1 can't be shown by any number of turns: there the first miss decides.
    """
    if share >= 1:
        return "open" if met == turns else "fails"
    if share <= 0:
        return "holds"
    need = math.log(1 / (1 - SURE))
    if met / max(turns, 1) >= share:
        return "holds" if _evidence(met, turns, share, share, 1.0) >= need else "open"
    return "fails" if _evidence(met, turns, share, 0.0, share) >= need else "open"


def _evidence(met: int, turns: int, share: float, low: float, high: float) -> float:
    """Logarithm of M, the mean over shares in [low, high], by the midpoint rule."""
    missed = turns - met
    null = met * math.log(share) + missed * math.log(1 - share)
    logs = []
    for step in range(_STEPS):
        p = low + (high - low) * (step + 0.5) / _STEPS
        logs.append(met * math.log(p) + missed * math.log(1 - p) - null)
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / _STEPS)
