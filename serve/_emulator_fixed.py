"""The fixed schedule: event i of a request is due at received + ttft + i x itl, whatever the load."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from serve._emulator_answer import Answer, make_answer, wanted_tokens
from serve._emulator_reactor import Reactor
from serve._emulator_reply import Counters, Reply
from serve._emulator_request import Ask
from serve._emulator_text import make_ring, take

DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class FixedTimes:
    """The schedule's settings. `tokens` is where answers stop by themselves; None: at the request's limit."""

    ttft_ns: int
    itl_ns: int
    tokens: int | None


class FixedSchedule:
    """Answers every request by the clock alone."""

    def __init__(self, times: FixedTimes, reactor: Reactor, counters: Counters, room: int, seed: int) -> None:
        self._times = times
        self._reactor = reactor
        self._counters = counters
        self._room = room
        self._ring = make_ring(seed)
        self._served = 0

    def answer(self, ask: Ask) -> Answer:
        """An answer of the asked length; without --tokens the request's limit is the length."""
        natural = self._times.tokens
        if natural is None:
            natural = DEFAULT_TOKENS if ask.max_tokens is None else ask.max_tokens
        count, stop_event = wanted_tokens(ask, natural, self._room - ask.prompt_tokens)
        self._served += 1
        return make_answer(ask, take(self._ring, self._served * 61, count), stop_event)

    def start(self, reply: Reply) -> None:
        self._counters.running += 1
        self._counters.prompt_tokens += reply.ask.prompt_tokens
        reply.on_end = self._left
        reply.cached_tokens = 0
        reply.begin(with_role=True)
        first_ns = reply.ask.received_ns + self._times.ttft_ns
        self._reactor.at(first_ns, partial(self._token, reply))

    def _token(self, reply: Reply, due_ns: int) -> int | None:
        if reply.ended:
            return None
        self._counters.generation_tokens += 1
        return None if reply.token(due_ns) else due_ns + self._times.itl_ns

    def _left(self) -> None:
        self._counters.running -= 1
