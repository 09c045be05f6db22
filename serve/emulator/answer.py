"""An answer before it is sent: its pieces, and how and after how many tokens it ends."""

from __future__ import annotations

from dataclasses import dataclass

from serve.emulator.request import Ask


@dataclass(frozen=True, slots=True)
class Answer:
    """`pieces` are the content events' texts, one token each.

    `stop_event`: the stop token, which counts in usage and goes out as an event without text. A stop string
    ends an answer with such an event too, where nothing is left of its last token's text.
    """

    pieces: list[str]
    stop_event: bool
    finish_reason: str
    stop_string: str | None = None

    @property
    def tokens(self) -> int:
        return len(self.pieces) + self.stop_event


def wanted_tokens(ask: Ask, natural: int, room: int) -> tuple[int, bool]:
    """Content tokens of an answer that would naturally have `natural`, and whether a stop token follows.

    `room` is what the context length leaves. The limit wins over the stop token.
    """
    limit = min(room, ask.max_tokens if ask.max_tokens is not None else room)
    if ask.ignore_eos:
        return limit, False
    natural = max(natural, ask.min_tokens)
    return (natural, True) if natural + 1 <= limit else (limit, False)


def make_answer(ask: Ask, pieces: list[str], stop_event: bool) -> Answer:
    """The answer with these pieces, cut at the first stop string after min_tokens."""
    least = sum(map(len, pieces[: ask.min_tokens]))
    cut = _first_stop("".join(pieces), ask.stop, least) if ask.stop else None
    if cut is None:
        return Answer(pieces, stop_event, "stop" if stop_event else "length")
    at, stop_string = cut
    kept: list[str] = []
    used, needed = 0, at + len(stop_string)
    for piece in pieces:
        kept.append(piece[: max(0, at - used)])
        used += len(piece)
        if used >= needed:
            break
    return _cut_answer(kept, stop_string)


def _cut_answer(kept: list[str], stop_string: str) -> Answer:
    """Tokens that hold only the stop string's text merge into the one empty event at the end."""
    whole = [piece for piece in kept if piece]
    return Answer(whole, len(whole) < len(kept), "stop", stop_string)


def _first_stop(text: str, stops: tuple[str, ...], least: int) -> tuple[int, str] | None:
    found = [(text.find(stop, least), stop) for stop in stops if stop]
    return min((place for place in found if place[0] >= 0), default=None)
