"""Ends turns that went silent, run too long or say too much."""

from __future__ import annotations

import asyncio

from loadgen._exchange import Exchange
from loadgen._settings import Settings
from loadgen._wire import Wire

_OVERSIZED_BYTES = 64 * 1024 * 1024
_AFTER_DONE_S = 0.25
"""So long after [DONE] the end of the response may come, before the turn ends without it."""


async def watch(wire: Wire, every_s: float = 0.1) -> None:
    """Look at every request under way, again and again; runs until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        now_ns = wire.timeline.now_ns()
        for exchange in wire.in_flight:
            _look(exchange, wire.job.settings, now_ns)


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
    elif log.size > _OVERSIZED_BYTES:
        exchange.cut("oversized", f"over {_OVERSIZED_BYTES >> 20} MiB in one reply")
