"""Tokens that wait for their moment, in order: one entry of the reactor for all of them.

A heap with an entry for each of thousands of streams is dear. Nearly always a token is due after all that
wait already, so a queue is enough; only what comes out of order goes through a heap.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Protocol

from serve.emulator.clock import monotonic_ns
from serve.emulator.reactor import Action

BATCH = 64
"""Tokens sent before the reactor may look at its clock and its sockets again."""

At = Callable[[int, Action], None]


class Sender(Protocol):
    """What a reply is to the outbox."""

    ended: bool

    def token(self, due_ns: int) -> bool: ...


Entry = tuple[int, Sender]


class Outbox:
    """Sends tokens when they are due; with `gap_ns` a stream's next one is due that much later of itself."""

    def __init__(self, at: At, gap_ns: int | None = None) -> None:
        self._at = at
        self._gap_ns = gap_ns
        # Two lines: first tokens come with a delay of their own, and would put all later ones out of order.
        self._asked: deque[Entry] = deque()
        self._again: deque[Entry] = deque()
        self._odd: list[tuple[int, int, Sender]] = []
        self._odd_ones = 0
        self._armed_ns: int | None = None

    def put(self, due_ns: int, reply: Sender) -> None:
        """Send the reply's next token at this moment (monotonic ns)."""
        self._enter(self._asked, due_ns, reply)
        self._arm(due_ns)

    def put_all(self, entries: list[Entry]) -> None:
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

    def _enter(self, line: deque[Entry], due_ns: int, reply: Sender) -> None:
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

    def _first(self, now_ns: int) -> Entry | None:
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
