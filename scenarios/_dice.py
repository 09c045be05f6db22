"""What the questions with changing quantities are made with.

A kind of question is a function that takes a Dice and gives (subject, question, right choice, wrong choices,
the likeliest first). The wrong ones are what comes of a usual mistake; those that happen to be right or twice
there are passed over, so each list is a little longer than needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Drawn = tuple[str, str, str, list[str]]


class Dice:
    """Whole numbers and names out of one stream of uniform draws."""

    def __init__(self, draws: Iterator[float]) -> None:
        self._draws = draws

    def whole(self, lowest: int, highest: int, step: int = 1) -> int:
        return lowest + step * int(next(self._draws) * ((highest - lowest) // step + 1))

    def one(self, names: Sequence[str]) -> str:
        return names[self.whole(0, len(names) - 1)]


def each(unit: str, right: float, *wrong: float) -> tuple[str, list[str]]:
    right_text, *others = (f"{value:,.10g}{unit}" for value in (right, *wrong))
    return right_text, others
