"""When a person gives up on an answer."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen._settings import Settings
from loadgen.engine._request import human_scale
from loadgen.transport._exchange import Exchange
from scenarios import Turn


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
        if exchange is not None:
            self._look(exchange)
        if self._word_ns is None:
            late = self.first_s is not None and waited_s > self.first_s
            return f"the person left: no word for {self.first_s:g} s" if late else None
        if self.after_s is not None and (now_ns - self._word_ns) / 1e9 > self.after_s:
            return f"the person left {self.after_s:g} s after the first word"
        return None

    def _look(self, exchange: Exchange) -> None:
        seen = (exchange, len(exchange.log.ends))
        if self._word_ns is None and seen != self._seen:
            self._seen, self._word_ns = seen, exchange.first_word_ns()


def patience_of(turn: Turn, settings: Settings) -> PatienceTimer | None:
    """How patient somebody is in this turn; None: without end."""
    scale = human_scale(settings)
    if scale is None or (turn.patience_s is None and turn.leave_after_s is None):
        return None
    return PatienceTimer(_scaled(turn.patience_s, scale), _scaled(turn.leave_after_s, scale))


def _scaled(seconds: float | None, scale: float) -> float | None:
    return None if seconds is None else seconds * scale
