"""Does --until end a level too soon? Levels of drawn turns, looked at as a real one is, over and over.

    python -m benchmarks.until [--draws 100] [--seed 1]

Each law of drawing turns gives levels of ten minutes at most. One ends when the interval of the
median of TTG is near enough. Beside the share of levels whose interval then held the truth stands that of
levels which had no such option and were as long as those on average; and, of those that ended early, how long
they took against what the first look that knew the number foresaw.
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.coverage import Drawn, Law, draw, truth
from loadgen.control._until import LookPlan
from turnbench.stats.known import SentTurns, known
from turnbench.turns import Bools

LONGEST_S = 600.0
KEY = "ttg_p50"
LAWS = (
    Law("independent turns", 3000),
    Law("ICC 0.3, 5 turns", 3000, 5, 0.3),
    Law("speed sd 0.1, 5 s, 16 people", 0, 3, 0.0, 0.1, 5.0, 16, LONGEST_S),
    Law("speed sd 0.2, 10 s, 16 people", 0, 3, 0.0, 0.2, 10.0, 16, LONGEST_S),
    Law("speed sd 0.2, 10 s, 64 people", 0, 3, 0.0, 0.2, 10.0, 64, LONGEST_S),
)


@dataclass(frozen=True)
class Ended:
    """One level: how long it was, what its first forecast was, and whether its interval held the truth."""

    after_s: float
    early: bool
    foreseen_s: float | None
    held: bool


def until_of(drawn: Drawn, true_ms: float, share: float) -> Ended:
    """The level of these turns, looked at as --until does."""
    plan, foreseen_s = LookPlan(share), None
    sent_s, time_s = drawn.position * LONGEST_S, drawn.time_s
    while plan.next_s < LONGEST_S:
        now_s = plan.next_s
        seen = (sent_s < now_s) & (sent_s + time_s < now_s)  # the others have not ended
        found = known(KEY, _turns(drawn, seen, now_s))
        talks = len(np.unique(drawn.talks[seen]))
        if plan.look(now_s, found.share, talks):
            return Ended(now_s, True, foreseen_s, _held(drawn, now_s, true_ms))
        foreseen_s = plan.needed_s if foreseen_s is None else foreseen_s
    return Ended(LONGEST_S, False, foreseen_s, _held(drawn, LONGEST_S, true_ms))


def _held(drawn: Drawn, after_s: float, true_ms: float) -> bool:
    found = known(KEY, _turns(drawn, drawn.position * LONGEST_S < after_s, after_s))
    low, high = found.interval or (None, None)
    return (low or 0.0) <= true_ms <= (np.inf if high is None else high)


def _turns(drawn: Drawn, seen: Bools, after_s: float) -> SentTurns:
    time_ms = drawn.time_s[seen] * 1e3
    talks = np.unique(drawn.talks[seen], return_inverse=True)[1]
    return SentTurns(drawn.position[seen] * LONGEST_S / after_s, talks, time_ms, time_ms, drawn.tokens[seen])


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    heads = ("law", "asked", "ended early", "after, s (median)", "held", "of fixed length", "took / foreseen")
    print("|", " | ".join(heads), "|")
    print("|---" * len(heads) + "|")
    for law in LAWS:
        rng = np.random.default_rng([options.seed, zlib.crc32(law.name.encode())])
        true_ms = truth(law, rng)["p50"] * 1e3
        for share in (0.10, 0.05):
            drawns = [draw(law, rng) for _ in range(options.draws)]
            levels = [until_of(drawn, true_ms, share) for drawn in drawns]
            early = [one for one in levels if one.early]
            typical_s = float(np.median([one.after_s for one in levels]))
            fixed = np.mean([_held(draw(replace(law), rng), typical_s, true_ms) for _ in drawns])
            ratios = [one.after_s / one.foreseen_s for one in early if one.foreseen_s]
            cells = (
                law.name,
                f"{share:.0%}",
                f"{len(early) / len(levels):.0%}",
                f"{typical_s:.0f}",
                _with_error(float(np.mean([one.held for one in levels])), len(levels)),
                _with_error(float(fixed), len(levels)),
                f"{np.median(ratios):.2f} ({np.quantile(ratios, 0.1):.2f} to {np.quantile(ratios, 0.9):.2f})"
                if ratios
                else "-",
            )
            print("|", " | ".join(cells), "|", flush=True)
    return 0


def _with_error(share: float, n: int) -> str:
    return f"{share:.1%} ± {(share * (1 - share) / n) ** 0.5:.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
