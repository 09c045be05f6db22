"""A rate of arrivals that changes evenly: how many are expected by a moment, and when so many are."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """From one rate to another within `over_s`; after that the last rate stays."""

    from_per_s: float
    to_per_s: float
    over_s: float

    def expected(self, at_s: float) -> float:
        """Arrivals expected until then: the integral of the rate."""
        inside_s = min(at_s, self.over_s)
        risen = (self.to_per_s - self.from_per_s) * inside_s / self.over_s
        return inside_s * (self.from_per_s + risen / 2) + max(at_s - self.over_s, 0.0) * self.to_per_s

    def moment_s(self, expected: float) -> float:
        """When so many are expected: the inverse of `expected`."""
        on_ramp = self.expected(self.over_s)
        if expected >= on_ramp:
            return self.over_s + (expected - on_ramp) / self.to_per_s
        growth = (self.to_per_s - self.from_per_s) / self.over_s
        # The root of growth/2 t^2 + from t = expected, in the form that does not cancel.
        return 2 * expected / (self.from_per_s + math.sqrt(self.from_per_s**2 + 2 * growth * expected))


def mean_rate_per_s(from_per_s: float, to_per_s: float, over_s: float, warmup_s: float) -> float:
    """The mean rate of a ramp's window, which begins after the warm-up."""
    ramp = Ramp(from_per_s, to_per_s, over_s)
    return (ramp.expected(over_s) - ramp.expected(warmup_s)) / (over_s - warmup_s)
