"""How often do the 95 % intervals hold the truth? Turns drawn from a stated law, over and over.

    python -m benchmarks.coverage [--draws 100] [--seed 1]

Independent turns; conversations of 5 turns that share 0.3 of the variance of log time; and a server whose
speed wanders for everybody at once: the log of its speed is an Ornstein-Uhlenbeck process, whose standard
deviation and correlation time are the table's. People ask again as soon as they were answered. Beside each
share stands its standard error, and how wide the interval is against that over conversations alone.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.measures.distribution import Sample, TurnSums, intervals
from turnbench.stats.batches import slots_of
from turnbench.stats.bootstrap import Resampler
from turnbench.stats.percentiles import QUANTILES
from turnbench.turns import Floats, Ints

SPREAD = 0.5
"""Standard deviation of the log of an answer's length."""
MEDIAN_S = 2.0
"""Median time to generate at mean speed."""
TOKENS_PER_S = 50.0
TURNS = 3
"""Turns a conversation where speed drifts."""
STEP_S = 0.05
NUMBERS = ("mean", "p50", "p90", "tps")


@dataclass(frozen=True)
class Law:
    """One row of the table."""

    name: str
    turns: int = 0
    """Turns of a sample where nothing drifts."""
    talk_turns: int = 1
    shared: float = 0.0
    """Share of the variance that the turns of a conversation have in common."""
    sd: float = 0.0
    """Of the log of the speed."""
    correlation_s: float = 0.0
    people: int = 0
    window_s: float = 60.0

    @property
    def least(self) -> float:
        """The coverage that is promised."""
        return 0.93 if not self.sd else 0.92 if self.window_s >= 240 else 0.80


@dataclass(frozen=True)
class Drawn:
    """One sample: times, tokens, conversations, and where in the window each turn was sent (0 to 1)."""

    time_s: Floats
    tokens: Floats
    talks: Ints
    position: Floats


def laws() -> Iterator[Law]:
    for turns in (100, 1000):
        yield Law(f"independent, {turns} turns", turns)
        yield Law(f"ICC 0.3, 5 turns, {turns} turns", turns, 5, 0.3)
    for sd in (0.1, 0.2):
        for correlation_s in (5.0, 10.0):
            for people in (16, 64):
                for window_s in (60.0, 240.0):
                    name = f"speed sd {sd:g}, {correlation_s:g} s, {people} people, {window_s:g} s"
                    yield Law(name, 0, TURNS, 0.0, sd, correlation_s, people, window_s)


def draw(law: Law, rng: np.random.Generator) -> Drawn:
    """A sample of this law."""
    if not law.sd:
        talks = np.repeat(np.arange(law.turns // law.talk_turns), law.talk_turns)
        common = rng.normal(0, SPREAD * law.shared**0.5, law.turns // law.talk_turns)
        own = rng.normal(0, SPREAD * (1 - law.shared) ** 0.5, len(talks))
        time_s = MEDIAN_S * np.exp(common[talks] + own)
        position = np.sort(rng.random(len(talks) // law.talk_turns))[talks]
        return Drawn(time_s, np.full(len(talks), 100.0), talks, position)
    warm_s = 20 * MEDIAN_S
    speed_s, work = _work_done(law, warm_s + law.window_s + 40 * MEDIAN_S, rng)
    # In units of work, turns follow each other whatever the speed does; the clock is read at their ends.
    count = int(work[-1] / MEDIAN_S) + 20
    length = MEDIAN_S * np.exp(rng.normal(0, SPREAD, (law.people, count)))
    ends = np.cumsum(length, axis=1)
    begun, ended = (np.interp(at, work, speed_s) for at in (ends - length, ends))
    inside = (begun >= warm_s) & (begun < warm_s + law.window_s)
    person, turn = np.nonzero(inside)
    talks = np.unique(person * count + turn // law.talk_turns, return_inverse=True)[1]
    position = (begun[inside] - warm_s) / law.window_s
    return Drawn((ended - begun)[inside], length[inside] * TOKENS_PER_S, talks, position)


def _work_done(law: Law, until_s: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(moments, work done by each): the integral of the speed, whose log is an Ornstein-Uhlenbeck process."""
    steps = int(until_s / STEP_S)
    keep = np.exp(-STEP_S / law.correlation_s)
    noise = rng.normal(0, law.sd * np.sqrt(1 - keep**2), steps)
    noise[0] = rng.normal(0, law.sd)
    from scipy.signal import lfilter

    logs: Floats = np.asarray(lfilter([1.0], [1.0, -keep], noise), dtype=np.float64)
    work: Floats = np.concatenate(([0.0], np.cumsum(np.exp(logs)) * STEP_S))
    moments: Floats = np.arange(steps + 1, dtype=np.float64) * STEP_S
    return moments, work


def truth(law: Law, rng: np.random.Generator) -> dict[str, float]:
    """What very many turns give."""
    if law.sd:
        drawn = draw(Law("", 0, law.talk_turns, 0.0, law.sd, law.correlation_s, 20, 100_000.0), rng)
    else:
        drawn = draw(Law("", 2_000_000), rng)
    time = drawn.time_s
    found = {name: float(np.quantile(time, QUANTILES[name])) for name in ("p50", "p90")}
    return found | {"mean": float(time.mean()), "tps": float(drawn.tokens.sum() / time.sum())}


def held(law: Law, draws: int, seed: int = 1) -> dict[str, tuple[float, float]]:
    """Of each number, (share of draws that held the truth, width against conversations alone)."""
    rng = np.random.default_rng([seed, zlib.crc32(law.name.encode())])
    true = truth(law, rng)
    hits = dict.fromkeys(NUMBERS, 0)
    widths: dict[str, list[float]] = {name: [] for name in NUMBERS}
    for _ in range(draws):
        drawn = draw(law, rng)
        both, alone = ends_of(drawn, slots_of(drawn.position)), ends_of(drawn, None)
        for name in NUMBERS:
            low, high = both[name]
            hits[name] += (low or 0) <= true[name] <= (np.inf if high is None else high)
            if None not in (low, high, *alone[name]):
                widths[name].append((high - low) / max(alone[name][1] - alone[name][0], 1e-12))
    return {name: (hits[name] / draws, float(np.mean(widths[name]))) for name in NUMBERS}


def ends_of(drawn: Drawn, slots: Ints | None) -> dict[str, list[float]]:
    """The intervals of every number; without slots, over conversations alone."""
    resampler, ordered = Resampler(int(drawn.talks.max()) + 1), np.sort(drawn.time_s)
    sample = Sample(drawn.time_s, drawn.talks, slots)
    found = intervals(sample, drawn.time_s, ordered, ["p50", "p90"], resampler)
    found["tps"] = TurnSums(drawn.talks, slots, resampler).ends(drawn.tokens, drawn.time_s)
    return {name: list(ends or [0.0, np.inf]) for name, ends in found.items()}  # type: ignore[arg-type]


def main() -> int:
    """Print the table as Markdown; 1 if a share lies surely below what is promised."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"| {options.draws} draws each | mean | p50 | p90 | tps |\n|---|---|---|---|---|")
    missed = 0
    for law in laws():
        texts = []
        for share, width in held(law, options.draws, options.seed).values():
            error = np.sqrt(max(share * (1 - share), 1 / options.draws / 4) / options.draws)
            texts.append(f"{share:.1%} ± {error:.1%}, {width:.2f} x")
            missed += share + 2 * error < law.least
        print(f"| {law.name} | {' | '.join(texts)} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
