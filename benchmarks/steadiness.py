"""How often do the checks of warm-up, drift and lateness cry wolf? Below 5 % on series that never change.

    python -m benchmarks.steadiness [DRAWS]

The log of a time follows an AR(1) with this correlation of neighbours, up to 0.8, and a standard deviation of
0.3. Lateness has one of 1, and in the long run one turn in 500 is late by more than the limit.
"""

from __future__ import annotations

import sys

import numpy as np

from analysis.checks.client import SUSPECT_LATE_MS, late_open
from analysis.stats.steadiness import change_point, too_short
from turnbench.stats.distributions import normal_quantile
from turnbench.turns import Floats

SPREAD = 0.3
LATE_SHARE = 0.002
"""Of turns that are late by more than an open loop may be: a fifth of what makes a level SUSPECT."""


def autoregressive(rho: float, n: int, rng: np.random.Generator) -> Floats:
    """A stationary AR(1) with a standard deviation of 1."""
    series = rng.normal(size=n)
    series[1:] *= np.sqrt(1 - rho**2)
    for i in range(1, n):
        series[i] += rho * series[i - 1]
    return series


def main() -> int:
    """Print a table; 1 if an alarm is more frequent than 5 %."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print(f"| {draws} series | turns | warm-up | drift | lateness |\n|---|---|---|---|---|")
    limit = normal_quantile(1 - LATE_SHARE)
    most = 0.0
    for rho in (0.0, 0.5, 0.8):
        for n in (100, 200, 400, 1000, 4000):
            rng = np.random.default_rng(1)
            found = np.zeros(3)
            for _ in range(draws):
                series = autoregressive(rho, n, rng)
                logs, late_ms = SPREAD * series, SUSPECT_LATE_MS * np.exp(series - limit)
                alarms = too_short(np.exp(logs)), change_point(logs), late_open(late_ms)
                found += [alarm is not None for alarm in alarms]
            shares = " | ".join(f"{share:.1%}" for share in found / draws)
            print(f"| rho {rho} | {n} | {shares} |", flush=True)
            most = max(most, *(found / draws))
    return int(most > 0.05)


if __name__ == "__main__":
    raise SystemExit(main())
