"""When each token of an answer is sent: by a fixed schedule, or when the emulated GPU would have made it.

Tokens wait for their moment in an outbox, with one entry of the reactor for all of them: a heap with an entry
for each of thousands of streams is expensive. Nearly always a token is due after all that wait already, so
a queue is enough; only what comes out of order goes through a heap.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import Protocol

from serve.emulator.answers import Answer, AnswerDraws, TextRing, make_answer, wanted_tokens
from serve.emulator.power import PowerMeter
from serve.emulator.reactor import Action
from serve.emulator.records import ServerCounters
from serve.emulator.reply import EmulatedReply
from serve.emulator.request import GenerationRequest
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence, block_hashes

BATCH = 64
"""Tokens sent before the reactor may look at its clock and its sockets again."""
DEFAULT_TOKENS = 256
"""Length of an answer whose request names none (fixed schedule)."""

At = Callable[[int, Action], None]


class AnswerSchedule(Protocol):
    """What decides what is answered and when it is sent."""

    def answer(self, request: GenerationRequest) -> Answer:
        """The answer to this request."""
        ...

    def start(self, reply: EmulatedReply) -> None:
        """Begin to send it."""
        ...

    def count(self) -> None:
        """Bring the counters up to date, for whoever wants to read them."""
        ...

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache; whether it was done."""
        ...


class TokenSender(Protocol):
    """What a reply is to the outbox."""

    ended: bool

    def token(self, due_ns: int) -> bool:
        """Send the next token, due at this moment; whether it was the last."""
        ...


OutboxEntry = tuple[int, TokenSender]


class Outbox:
    """Sends tokens when they are due; with `gap_ns` a stream's next one is due that much later of itself."""

    def __init__(self, at: At, gap_ns: int | None = None) -> None:
        self._at = at
        self._gap_ns = gap_ns
        # Two lines: first tokens come with a delay of their own, and would put all later ones out of order.
        self._asked: deque[OutboxEntry] = deque()
        self._again: deque[OutboxEntry] = deque()
        self._odd: list[tuple[int, int, TokenSender]] = []
        self._odd_ones = 0
        self._armed_ns: int | None = None

    def put(self, due_ns: int, reply: TokenSender) -> None:
        """Send the reply's next token at this moment (monotonic ns)."""
        self._enter(self._asked, due_ns, reply)
        self._arm(due_ns)

    def put_all(self, entries: list[OutboxEntry]) -> None:
        """Send the next token of many replies, each at its moment; the moments rise."""
        line = self._asked
        if not entries:
            return
        if line and entries[0][0] < line[-1][0]:
            for due_ns, reply in entries:
                self._enter(line, due_ns, reply)
        else:
            line.extend(entries)
        self._arm(entries[0][0])

    def _arm(self, due_ns: int) -> None:
        if self._armed_ns is None or due_ns < self._armed_ns:
            self._armed_ns = due_ns
            self._at(due_ns, self._send_due)

    def _enter(self, line: deque[OutboxEntry], due_ns: int, reply: TokenSender) -> None:
        if line and due_ns < line[-1][0]:
            self._odd_ones += 1
            heapq.heappush(self._odd, (due_ns, self._odd_ones, reply))
        else:
            line.append((due_ns, reply))

    def _send_due(self, armed_ns: int) -> int | None:
        """Send what is due, or a part of it; the moment of the first that is left."""
        if armed_ns != self._armed_ns:
            # An earlier token has come since, with an entry of its own.
            return None
        now_ns, gap_ns = monotonic_ns(), self._gap_ns
        for _ in range(BATCH):
            entry = self._first(now_ns)
            if entry is None:
                break
            due_ns, reply = entry
            if not reply.ended and not reply.token(due_ns) and gap_ns is not None:
                self._enter(self._again, due_ns + gap_ns, reply)
        self._armed_ns = self._next_ns()
        return self._armed_ns

    def _first(self, now_ns: int) -> OutboxEntry | None:
        """Take out the one that is due first, if its moment has come."""
        line, again, odd = self._asked, self._again, self._odd
        if not line or (again and again[0][0] < line[0][0]):
            line = again
        if odd and (not line or odd[0][0] < line[0][0]):
            due_ns = odd[0][0]
            return None if due_ns > now_ns else (due_ns, heapq.heappop(odd)[2])
        return None if not line or line[0][0] > now_ns else line.popleft()

    def _next_ns(self) -> int | None:
        waiting = (self._asked, self._again, self._odd)
        return min((line[0][0] for line in waiting if line), default=None)


@dataclass(frozen=True, slots=True)
class FixedTimes:
    """The schedule's settings. `tokens` is where answers stop by themselves; None: at the request's limit."""

    ttft_ns: int
    itl_ns: int
    tokens: int | None
    opening_at_once: bool = True
    """Whether the event that opens a stream comes with the head, or with the first token."""


class FixedSchedule:
    """Answers every request by the clock alone."""

    def __init__(self, times: FixedTimes, at: At, counters: ServerCounters, room: int, seed: int) -> None:
        self._times = times
        self._outbox = Outbox(at, times.itl_ns)
        self._counters = counters
        self._room = room
        self._text = TextRing(seed)
        self._served = 0
        self._open: set[EmulatedReply] = set()
        self._made = 0
        """Tokens of the replies that are over."""

    def answer(self, request: GenerationRequest) -> Answer:
        """An answer of the asked length; without --tokens the request's limit is the length."""
        natural = self._times.tokens
        if natural is None:
            natural = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        count, stop_event = wanted_tokens(request, natural, self._room - request.prompt_tokens)
        self._served += 1
        return make_answer(request, self._text.take(self._served * 61, count), stop_event)

    def start(self, reply: EmulatedReply) -> None:
        """Send the head now and the first token after the time to first token."""
        self._open.add(reply)
        self._counters.prompt_tokens += reply.request.prompt_tokens
        reply.on_end = partial(self._left, reply)
        reply.cached_tokens = 0
        reply.begin(with_opening=self._times.opening_at_once)
        self._outbox.put(reply.request.received_ns + self._times.ttft_ns, reply)

    def _left(self, reply: EmulatedReply) -> None:
        self._open.discard(reply)
        self._made += reply.made

    def count(self) -> None:
        """Bring the counters up to date."""
        self._counters.running = len(self._open)
        self._counters.generation_tokens = self._made + sum(reply.made for reply in self._open)

    def forget_prefixes(self) -> bool:
        """There is no prefix cache to empty."""
        return True


class RooflineSchedule:
    """Answers as the emulated model would, when the emulated GPU could."""

    def __init__(
        self,
        scheduler: BatchScheduler,
        draws: AnswerDraws,
        at: At,
        counters: ServerCounters,
        room: int,
        frontend_ns: int,
        token_ns: int,
        power: PowerMeter | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._draws = draws
        self._at = at
        self._counters = counters
        self._room = room
        self._frontend_ns = frontend_ns
        self._token_ns = token_ns
        self._power = power
        self._outbox = Outbox(at)
        self._frontend_free_ns = 0
        self._text = TextRing(0)
        self._replies: dict[ScheduledSequence, EmulatedReply] = {}
        self._stepping = False

    def answer(self, request: GenerationRequest) -> Answer:
        """The answer that the emulated model gives, the same for the same prompt."""
        drawn = self._draws.draw(request.prompt, request.first_message)
        count, stop_event = wanted_tokens(request, drawn.tokens, self._room - request.prompt_tokens)
        pieces = self._text.take(drawn.start, count)
        if drawn.letter is not None:
            pieces[0] = drawn.letter
        return make_answer(request, pieces, stop_event)

    def start(self, reply: EmulatedReply) -> None:
        """The head goes out at once, the request into the queue when the front end is done with it."""
        reply.begin(with_opening=False)
        self._at(reply.request.received_ns + self._frontend_ns, partial(self._arrive, reply))

    def _arrive(self, reply: EmulatedReply, due_ns: int) -> None:
        if reply.ended:
            return
        request = reply.request
        sequence = ScheduledSequence(
            prompt_tokens=request.prompt_tokens,
            output_tokens=reply.answer.tokens,
            blocks=block_hashes(request.prompt),
            blocks_after=block_hashes(request.prompt + "".join(reply.answer.pieces)),
        )
        self._replies[sequence] = reply
        reply.on_end = partial(self._leave, sequence)
        self._scheduler.add(sequence)
        if not self._stepping:
            self._begin(due_ns)

    def _begin(self, now_ns: int) -> None:
        took_ns = self._scheduler.begin_step()
        self._stepping = took_ns is not None
        if took_ns is not None:
            self._at(now_ns + took_ns, self._end)

    def _end(self, due_ns: int) -> None:
        """Hand what the step made to the front end, which sends token by token; begin the next step."""
        moment_ns = max(due_ns, self._frontend_free_ns)
        grown = self._scheduler.end_step()
        self._counters.generation_tokens += len(grown)
        entries: list[OutboxEntry] = []
        for sequence in grown:
            reply = self._replies.get(sequence)
            if reply is None:
                continue
            if sequence.made == 1:
                reply.cached_tokens = sequence.cached_tokens
                self._counters.prompt_tokens += sequence.prompt_tokens
                self._counters.cache_queries += sequence.prompt_tokens
                self._counters.cache_hits += sequence.cached_tokens
            moment_ns += self._token_ns
            entries.append((moment_ns, reply))
        self._outbox.put_all(entries)
        self._frontend_free_ns = moment_ns
        self._begin(due_ns)

    def _leave(self, sequence: ScheduledSequence) -> None:
        self._replies.pop(sequence, None)
        self._scheduler.abort(sequence)

    def count(self) -> None:
        """Bring the counters up to date."""
        self._counters.running = len(self._scheduler.running)
        self._counters.waiting = len(self._scheduler.waiting)
        self._counters.kv_usage = self._scheduler.kv_usage
        self._counters.preemptions = self._scheduler.preemptions
        self._counters.power_w = self._power.mean_power_w() if self._power else None

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache, unless running sequences hold parts of it; whether it was done."""
        if self._scheduler.running:
            return False
        self._scheduler.cache.clear()
        return True
