"""How often do the checks of warm-up and drift cry wolf? Below 5 % on series that never change.

Run with `python -m benchmarks.steadiness [DRAWS]`. The log of a time follows an AR(1) with
this correlation of neighbours, up to 0.8, and a standard deviation of 0.3.
"""

from __future__ import annotations

import sys

import numpy as np

from analysis.stats.steadiness import change_point, too_short
from turnbench.turns import Floats

SPREAD = 0.3


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
    print(f"false alarms over {draws} series\n rho  turns  warm-up   drift")
    most = 0.0
    for rho in (0.0, 0.5, 0.8):
        for n in (100, 200, 400, 1000, 4000):
            rng = np.random.default_rng(1)
            found = np.zeros(2)
            for _ in range(draws):
                logs = SPREAD * autoregressive(rho, n, rng)
                found += too_short(np.exp(logs)) is not None, change_point(logs) is not None
            warm, drift = found / draws
            print(f"{rho:4.1f} {n:6} {warm:8.1%} {drift:7.1%}", flush=True)
            most = max(most, warm, drift)
    return int(most > 0.05)


if __name__ == "__main__":
    raise SystemExit(main())
