"""How often does a comparison cry wolf, and how often does it miss one? Runs drawn from a stated law.

`python -m benchmarks.comparisons [REPEATS]`: two runs of one server must be called a regression in at most
5 % of the repeats, over all cells together; a slowdown of 10 % must be found in at least 95 %.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from analysis.compare.baseline import compare

TASKS = ["choose", "paraphrase", "explain"]
LOADS = ["1", "4", "16"]
_TURNS = 3


def drawn(
    rng: np.random.Generator, conversations: int, loads: list[str], slower: float = 1.0
) -> pd.DataFrame:
    """A run's turns: `conversations` at each load, three tasks a conversation, times log-normal."""
    parts = []
    for load in loads:
        n = conversations * _TURNS
        talk = np.repeat(np.arange(conversations), _TURNS)
        shared = rng.normal(0, 0.05, conversations)[talk]
        ttft_ms = slower * 80 * np.exp(shared + rng.normal(0, 0.2, n))
        tpot_ms = slower * 20 * np.exp(shared + rng.normal(0, 0.1, n))
        later = np.exp(rng.normal(4, 0.25, n)).round()
        part = pd.DataFrame({"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "ttg_ms": ttft_ms + later * tpot_ms})
        parts.append(part.assign(talk=talk, task=np.tile(TASKS, conversations), load=load))
    return pd.concat(parts, ignore_index=True).assign(name="m", run="r", outcome="ok")


def false_alarms(repeats: int, conversations: int, seed: int = 1) -> float:
    """Share of repeats in which two runs of the same server hold any regression in any cell."""
    rng = np.random.default_rng(seed)
    pairs = ([drawn(rng, conversations, LOADS)] for _ in range(2 * repeats))
    # Without a practical threshold: the statistics alone must keep their promise.
    return (
        sum(bool(compare(a, b, threshold=0.0).regressions) for a, b in zip(pairs, pairs, strict=True))
        / repeats
    )


def found_slowdowns(repeats: int, conversations: int, slower: float = 1.1, seed: int = 2) -> float:
    """Share of repeats in which a server slower by so much is called a regression."""
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(repeats):
        slow, base = drawn(rng, conversations, LOADS, slower), drawn(rng, conversations, LOADS)
        found += bool(compare([slow], [base]).regressions)
    return found / repeats


def main() -> int:
    """Print both shares."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for conversations in (25, 100, 300):
        share = false_alarms(repeats, conversations)
        print(f"false alarms, 27 medians, {conversations:4} conversations a load: {share:6.1%}", flush=True)
    print(f"slowdown of 10 % found at 300 conversations a load: {found_slowdowns(repeats, 300):6.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
