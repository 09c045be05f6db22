"""Random draws that are the same on every machine and in every version of Python.

A stream is SHA-256 in counter mode over its name, so no generator's state is kept and any conversation
can be drawn without the ones before it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import count
from statistics import NormalDist
from struct import unpack

_NORMAL = NormalDist()
_Z90 = _NORMAL.inv_cdf(0.9)


def stream(*name: int | str) -> Iterator[float]:
    """An endless stream of uniform draws, each strictly between 0 and 1, decided by its name alone."""
    stem = "/".join(map(str, name)).encode()
    for block in count():
        for word in unpack(">4Q", sha256(b"%b/%d" % (stem, block)).digest()):
            # 52 bits and a half: exact in a double, and never 0 or 1.
            yield ((word >> 12) + 0.5) * 2.0**-52


def log_normal(draw: float, median: float, p90: float) -> float:
    """The value at this uniform draw of a log-normal with this median and 90th percentile."""
    return median * math.exp(_NORMAL.inv_cdf(draw) * math.log(p90 / median) / _Z90)


def geometric(draws: Iterator[float], mean: float, highest: int) -> int:
    """How many trials up to the first success of chance 1/mean, at most `highest`."""
    trials = 1
    while trials < highest and next(draws) >= 1.0 / mean:
        trials += 1
    return trials


@lru_cache(maxsize=64)
def shuffled(size: int, *name: int | str) -> Sequence[int]:
    """A permutation of range(size), decided by its name alone.

    The newest are kept, of more tasks than a scenario has: four bytes an item each, since a long run goes
    through hundreds.
    """
    draws = stream(*name)
    keys = [next(draws) for _ in range(size)]
    return memoryview(array("I", sorted(range(size), key=keys.__getitem__))).toreadonly()


def pick(draw: float, weights: tuple[float, ...]) -> int:
    """The index of one weight, taken with a chance in proportion to it."""
    left = draw * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1
