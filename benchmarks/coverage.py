"""How often do the 95 % intervals hold the truth? Conversations drawn from a stated law, many times.

`python -m benchmarks.coverage [DRAWS]`; the log of a turn's time is normal, with a part of its variance
shared by the turns of one conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from analysis.stats.bootstrap import Resampler
from analysis.stats.percentiles import QUANTILES
from turnbench.turns import Floats, Ints

SPREAD = 0.5
"""Standard deviation of log time."""
SHARED = 0.2
"""Part of its variance that the turns of a conversation share."""
TURNS = 3


@dataclass(frozen=True)
class Coverage:
    """How often the interval of `name` held the truth with so many conversations."""

    name: str
    conversations: int
    share: float


def sample(rng: np.random.Generator, conversations: int) -> tuple[Floats, Ints]:
    """(times in ms, conversation of each), log-normal with a median of 1000 ms."""
    talks = np.repeat(np.arange(conversations), TURNS)
    shared = rng.normal(0, SPREAD * SHARED**0.5, conversations)
    own = rng.normal(0, SPREAD * (1 - SHARED) ** 0.5, len(talks))
    return 1000 * np.exp(shared[talks] + own), talks


def truth(name: str) -> float:
    """The law's own mean or percentile."""
    if name == "mean":
        return float(1000 * np.exp(SPREAD**2 / 2))
    return float(1000 * np.exp(SPREAD * norm.ppf(QUANTILES[name])))


def coverage(names: list[str], conversations: int, draws: int, seed: int = 1) -> list[Coverage]:
    """Over so many draws, how often each interval holds the truth; an open end holds everything."""
    rng = np.random.default_rng(seed)
    held = dict.fromkeys(names, 0)
    for _ in range(draws):
        values, talks = sample(rng, conversations)
        found = Resampler(conversations).intervals(values, talks, [n for n in names if n != "mean"])
        for name in names:
            low, high = found[name]
            held[name] += (low or 0) <= truth(name) <= (np.inf if high is None else high)
    return [Coverage(name, conversations, count / draws) for name, count in held.items()]


def plan() -> Iterator[tuple[list[str], int]]:
    """Mean and p50 from 100 conversations; each tail at its least n and at ten times it."""
    design = 1 + (TURNS - 1) * SHARED
    yield ["mean", "p50"], 100
    yield ["mean", "p50"], 300
    for name, least in (("p90", 64), ("p95", 130), ("p99", 662)):
        for times in (1, 10):
            yield [name], int(np.ceil(least * times * design / TURNS))


def main() -> int:
    """Print a table."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"coverage of 95 % intervals over {draws} draws, {TURNS} turns a conversation")
    for names, conversations in plan():
        for item in coverage(names, conversations, draws):
            print(f"{item.name:5} {item.conversations:5} conversations  {item.share:6.1%}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
