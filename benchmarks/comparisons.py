"""How often does a comparison cry wolf, and how often does it miss one? Runs drawn from a stated law.

    python -m benchmarks.comparisons [REPEATS] [--drift 0,0.03,0.1]

The table of docs/comparisons.md: the share of comparisons of equal servers that end as a regression, where
runs drift by 0, 3 or 10 % of their speed and one, two or three runs stand on each side, and the share of
slowdowns by 10 % that are found. Standard errors in brackets.
"""

from __future__ import annotations

import argparse
from collections import Counter
from math import sqrt

import numpy as np
import pandas as pd

from analysis.compare.baseline import compare
from turnbench import exits

TASKS = ["choose", "paraphrase", "explain"]
LOADS = ["1", "4", "16"]
_TURNS = 3
_LIMIT_MS = 2500.0
"""On TTG: about 95 % of the turns meet it."""


def drawn(
    rng: np.random.Generator,
    conversations: int,
    loads: list[str],
    slower: float = 1.0,
    *,
    drift: float = 0.0,
    longer: float = 1.0,
    failed: float = 0.0,
) -> pd.DataFrame:
    """A run's turns: `conversations` at each load, three tasks a conversation, times log-normal.

    `drift`: standard deviation of the run's speed as a whole, as a share. `longer`: factor of the answers'
    lengths. `failed`: share of turns that fail.
    """
    parts = []
    slower *= np.exp(rng.normal(0, drift)) if drift else 1.0
    for load in loads:
        n = conversations * _TURNS
        talk = np.repeat(np.arange(conversations), _TURNS)
        shared = rng.normal(0, 0.05, conversations)[talk]
        ttft_ms = slower * 80 * np.exp(shared + rng.normal(0, 0.2, n))
        tpot_ms = slower * 20 * np.exp(shared + rng.normal(0, 0.1, n))
        later = np.exp(rng.normal(4, 0.25, n) + np.log(longer)).round()
        part = pd.DataFrame({"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "later_tokens": later})
        part["ttg_ms"] = ttft_ms + later * tpot_ms
        part["tokens"] = later + 1
        part["outcome"] = np.where(rng.random(n) < failed, "http_5xx", "ok")
        numbers = {
            "talk": talk,
            "conversation": talk,
            "turn": np.tile(np.arange(1, _TURNS + 1), conversations),
        }
        parts.append(part.assign(**numbers, task=np.tile(TASKS, conversations), load=load))
    turns = pd.concat(parts, ignore_index=True)
    good = (turns["ttg_ms"] <= _LIMIT_MS) & (turns["outcome"] == "ok")
    meets = good.astype("boolean")
    return turns.assign(name="m", run="r", meets=meets, prompt_tokens=50, plan="", limits="ttg")


def codes(
    repeats: int,
    runs: int,
    drift: float,
    slower: float = 1.0,
    *,
    single: bool = False,
    threshold: float = 0.05,
    conversations: int = 100,
    seed: int = 1,
) -> Counter[int]:
    """How often comparisons of `runs` runs a side end with each exit code, at three loads of three tasks."""
    rng = np.random.default_rng(seed)

    def side(factor: float) -> list[pd.DataFrame]:
        return [drawn(rng, conversations, LOADS, factor, drift=drift) for _ in range(runs)]

    return Counter(
        compare(side(slower), side(1.0), threshold, single=single).exit_code for _ in range(repeats)
    )


def false_alarms(repeats: int, conversations: int, seed: int = 1) -> float:
    """Share of repeats in which two runs of one server hold any regression in any cell, by the test within
    both runs and without a practical threshold: the statistics alone must keep their promise."""
    found = codes(repeats, 1, 0.0, single=True, threshold=0.0, conversations=conversations, seed=seed)
    return found[exits.MISSED] / repeats


def found_slowdowns(repeats: int, conversations: int, slower: float = 1.1, seed: int = 2) -> float:
    """Share of repeats in which a server slower by so much is called a regression, within both runs."""
    found = codes(repeats, 1, 0.0, slower, single=True, conversations=conversations, seed=seed)
    return found[exits.MISSED] / repeats


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repeats", type=int, nargs="?", default=200)
    parser.add_argument("--drift", default="0,0.03,0.1", help="of the speed of whole runs, as shares")
    options = parser.parse_args()
    repeats = options.repeats
    print(f"{repeats} comparisons each, 9 cells, 100 conversations a load and run.\n")
    heads = ("drift between runs", "runs a side", "false alarms", "not judged", "10 % slower: found")
    print(f"| {' | '.join(heads)} | not judged |")
    print("|---|---|---|---|---|---|")
    for drift in map(float, options.drift.split(",")):
        for runs, single in ((1, False), (1, True), (2, False), (3, False)):
            cells = []
            for slower in (1.0, 1.1):
                found = codes(repeats, runs, drift, slower, single=single)
                share = found[exits.MISSED] / repeats
                error = sqrt(share * (1 - share) / repeats)
                cells += [f"{share:.1%} ({error:.1%})", f"{found[exits.NOT_JUDGED] / repeats:.0%}"]
            how = f"{runs} (`--single`)" if single else str(runs)
            print(f"| {drift:.0%} | {how} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
