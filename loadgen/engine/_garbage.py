"""When the engine looks for cycles among its newest objects: seldom, and while nobody waits for anything.

Turns that end well leave none; broken ones may. A look costs a microsecond an object, more than a token does:
of 800 answers that come some 40 ms. So it is made where there are more new objects than the turns under way
explain, between two pieces of work. What survives it is looked through at the end of a level, when nobody is
measured: with 5,000 people that takes 0.4 s.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from loadgen.transport._work import WorkScheduler

_OBJECTS_A_TURN, _SPARE_OBJECTS = 100, 5_000
"""What a turn under way explains (it has some 45), and how many more are let be."""
_NEVER = 1_000_000
_WAITS_AT_MOST_S = 1.0


def take_over() -> None:
    """From now on Python looks for no garbage by itself, which it does at any moment; what exists by now is
    not looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEVER, _NEVER, _NEVER)


class GarbageLook:
    """Looks through the newest objects once there is nothing more urgent, or a second later all the same."""

    def __init__(self, scheduler: WorkScheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._waits_since_s: float | None = None

    def consider(self, open_turns: int) -> None:
        """Have it done soon if there are many, while so many turns are under way; at most one look waits."""
        if not gc.isenabled() or gc.get_count()[0] <= _OBJECTS_A_TURN * open_turns + _SPARE_OBJECTS:
            return
        if self._waits_since_s is None:
            self._waits_since_s = self._clock()
            self._scheduler.later(self._look)
        elif self._clock() > self._waits_since_s + _WAITS_AT_MOST_S:  # a full core would put it off for ever
            self._look()

    def _look(self) -> None:
        if self._waits_since_s is not None:  # it was not done meanwhile
            self._waits_since_s = None
            gc.collect(0)
