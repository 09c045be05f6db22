"""One simulated person: how long they read, type and wait, and when they give up on an answer.

All human time follows --think-time: none, as the scenario says, a multiple of that, or one length for all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from loadgen.options._settings import Settings
from loadgen.transport._exchange import Exchange
from scenarios import Turn, think_after
from turnbench.clock import Timeline


@dataclass(slots=True)
class SimulatedPerson:
    """One simulated person in one conversation."""

    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: this person begins no further turn; the one under way goes on to its end."""

    async def pause_until(self, due_ns: int, timeline: Timeline) -> None:
        """Sleep until then, or until this person leaves."""
        wait_s = (due_ns - timeline.now_ns()) / 1e9
        if wait_s > 0:
            await first_of(asyncio.sleep(wait_s), self.leaving.wait())


async def first_of(*waits: Any) -> None:
    """Wait for the first of these and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def think_s(settings: Settings, turn: Turn, reply_words: int) -> float:
    """Seconds between the end of a reply of so many words and the turn after it."""
    if turn.call is not None:  # a tool's result: nobody reads or types
        return 0.0
    scale = human_scale(settings)
    if scale is None:
        return 0.0
    return think_after(turn, reply_words) * scale if _as_planned(settings) else float(settings.think_time)


def human_scale(settings: Settings) -> float | None:
    """What all human time, pauses and patience, is multiplied by; None: nobody pauses, and nobody leaves."""
    if settings.think_time == "none":
        return None
    factor = float(settings.think_time.partition("*")[2] or 1) if _as_planned(settings) else 1.0
    return factor or None


def _as_planned(settings: Settings) -> bool:
    return settings.think_time.startswith("scenario")


@dataclass(slots=True)
class PatienceTimer:
    """Seconds without a word, and seconds from the first word on, after which this person leaves."""

    first_s: float | None
    after_s: float | None
    _word_ns: int | None = None
    _seen: tuple[Exchange, int] | None = None

    def spent(self, exchange: Exchange | None, begun_ns: int, now_ns: int) -> str | None:
        """Why the person leaves now; None: they wait on. The stream is only looked at when it matters."""
        waited_s = (now_ns - begun_ns) / 1e9
        if waited_s <= min(s for s in (self.first_s, self.after_s) if s is not None):
            return None
        if exchange is not None and self._word_ns is None:
            exchange.catch_up()
            seen = (exchange, len(exchange.log.ends))
            if seen != self._seen:
                self._seen, self._word_ns = seen, exchange.first_word_ns()
        if self._word_ns is None:
            late = self.first_s is not None and waited_s > self.first_s
            return f"the person left: no word for {self.first_s:g} s" if late else None
        if self.after_s is not None and (now_ns - self._word_ns) / 1e9 > self.after_s:
            return f"the person left {self.after_s:g} s after the first word"
        return None


def patience_of(turn: Turn, settings: Settings) -> PatienceTimer | None:
    """How patient somebody is in this turn; None: without end."""
    scale = human_scale(settings)
    if scale is None or (turn.patience_s is None and turn.leave_after_s is None):
        return None
    first_s, after_s = (s if s is None else s * scale for s in (turn.patience_s, turn.leave_after_s))
    return PatienceTimer(first_s, after_s)
