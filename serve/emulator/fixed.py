"""The fixed schedule: event i of a request is due at received + ttft + i x itl, whatever the load."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from serve.emulator.answer import Answer, make_answer, wanted_tokens
from serve.emulator.outbox import At, Outbox
from serve.emulator.reply import Counters, Reply
from serve.emulator.request import Ask
from serve.emulator.text import make_ring, take

DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class FixedTimes:
    """The schedule's settings. `tokens` is where answers stop by themselves; None: at the request's limit."""

    ttft_ns: int
    itl_ns: int
    tokens: int | None


class FixedSchedule:
    """Answers every request by the clock alone."""

    def __init__(self, times: FixedTimes, at: At, counters: Counters, room: int, seed: int) -> None:
        self._times = times
        self._outbox = Outbox(at, times.itl_ns)
        self._counters = counters
        self._room = room
        self._ring = make_ring(seed)
        self._served = 0
        self._open: set[Reply] = set()
        self._made = 0
        """Tokens of the replies that are over."""

    def answer(self, ask: Ask) -> Answer:
        """An answer of the asked length; without --tokens the request's limit is the length."""
        natural = self._times.tokens
        if natural is None:
            natural = DEFAULT_TOKENS if ask.max_tokens is None else ask.max_tokens
        count, stop_event = wanted_tokens(ask, natural, self._room - ask.prompt_tokens)
        self._served += 1
        return make_answer(ask, take(self._ring, self._served * 61, count), stop_event)

    def start(self, reply: Reply) -> None:
        self._open.add(reply)
        self._counters.prompt_tokens += reply.ask.prompt_tokens
        reply.on_end = partial(self._left, reply)
        reply.cached_tokens = 0
        reply.begin(with_role=True)
        self._outbox.put(reply.ask.received_ns + self._times.ttft_ns, reply)

    def _left(self, reply: Reply) -> None:
        self._open.discard(reply)
        self._made += reply.made

    def count(self) -> None:
        self._counters.running = len(self._open)
        self._counters.generation_tokens = self._made + sum(reply.made for reply in self._open)

    def forget_prefixes(self) -> bool:
        """There is no prefix cache to empty."""
        return True
