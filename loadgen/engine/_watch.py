"""Ends turns that went silent, run too long, say too much, or whose person has left."""

from __future__ import annotations

import asyncio

from loadgen._settings import Settings
from loadgen.engine._run import EngineRun, OpenTurn
from loadgen.transport._exchange import Exchange

_OVERSIZED_BYTES = 64 * 1024 * 1024
_AFTER_DONE_S = 0.25
"""So long after [DONE] the end of the response may come, before the turn ends without it."""


async def watch(run: EngineRun, every_s: float = 0.1) -> None:
    """Look at every turn under way, again and again; runs until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        now_ns = run.timeline.now_ns()
        for turn in run.open:
            _look_at_person(turn, now_ns)
            if turn.exchange is not None:
                _look(turn.exchange, run.job.settings, now_ns)


def _look_at_person(turn: OpenTurn, now_ns: int) -> None:
    """Let a person leave who has lost patience, also while the turn waits for another attempt."""
    if turn.patience is None or turn.person.leaving.is_set():
        return
    why = turn.patience.spent(turn.exchange, turn.begun_ns, now_ns)
    if why is not None:
        turn.person.leaving.set()
        if turn.exchange is not None:
            turn.exchange.cut("abandoned", why)


def _look(exchange: Exchange, settings: Settings, now_ns: int) -> None:
    log = exchange.log
    if log.sent_ns is None:
        return
    silent_s = (now_ns - (log.at_ns[-1] if log.at_ns else log.sent_ns)) / 1e9
    if (now_ns - log.sent_ns) / 1e9 > settings.deadline_s:
        exchange.cut("deadline", f"not done {settings.deadline_s:g} s after sending (--deadline)")
    elif silent_s > settings.idle_timeout_s:
        exchange.cut("stalled", f"no byte for {settings.idle_timeout_s:g} s (--idle-timeout)")
    elif silent_s > _AFTER_DONE_S and log.said_done():
        exchange.cut("ok", None)
    elif len(log.raw) > _OVERSIZED_BYTES:
        exchange.cut("oversized", f"over {_OVERSIZED_BYTES >> 20} MiB in one reply")
