"""How long people wait before a turn, and values that are drawn or fixed."""

from __future__ import annotations

from collections.abc import Iterator

from scenarios._scenario import Turn
from scenarios._schema import Pace, Spread
from turnbench.draws import log_normal


def value(source: float | Spread, draws: Iterator[float]) -> float:
    """A fixed value as it is, a spread drawn."""
    if not isinstance(source, Spread):
        return source
    drawn = max(source.min, log_normal(next(draws), source.median, source.p90))
    return drawn if source.max is None else min(source.max, drawn)


def turn_pause(
    think: float | Spread | Pace, draws: Iterator[float], words: float, text: str, *, first: bool
) -> tuple[float, float | None, float | None]:
    """think_s, read_wpm and type_wpm of a turn with this text, after a reply of about so many words."""
    if first:
        return 0.0, None, None
    if isinstance(think, Pace):
        return round(pace_s(think.read_wpm, think.type_wpm, words, text), 2), think.read_wpm, think.type_wpm
    return round(value(think, draws), 2), None, None


def pace_s(read_wpm: float, type_wpm: float, words: float, text: str) -> float:
    """Seconds to read so many words and then to type the text."""
    return 60.0 * (words / read_wpm + len(text.split()) / type_wpm)


def think_after(turn: Turn, reply_words: int) -> float:
    """Seconds that a person waits before this turn, after a reply of so many words.

    Where the turn has a pace: reading at `read_wpm`, then typing the turn at `type_wpm`; else `think_s`.
    """
    if turn.read_wpm is None or turn.type_wpm is None:
        return turn.think_s
    return pace_s(turn.read_wpm, turn.type_wpm, reply_words, turn.user)
