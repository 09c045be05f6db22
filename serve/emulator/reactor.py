"""The emulator's event loop: one selector, one heap of due moments, one thread.

asyncio rounds its timeouts up to whole milliseconds and its transports may queue a write until the end of an
iteration. A server whose own sending times are the reference can afford neither, so this loop waits with
microsecond resolution and its users write straight to their sockets.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

FIRE_NS = 1_000_000
"""So long due entries are served before sockets are looked at again: a backlog must not shut out requests."""

MAX_WAIT_S = 1.0
MIN_WAIT_S = 50e-6
"""Waits are not shorter: the kernel is about that late anyway, and a wait costs more than an event."""

Action = Callable[[int], int | None]
"""Called with its due moment (monotonic ns); the moment it wants to be called next, or None."""


class Reactor:
    """Calls back when a socket is ready or a moment has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector_fd = [self._selector.fileno()]
        self._due: list[tuple[int, int, Action]] = []
        self._pushed = 0
        self._stopped = False

    def at(self, due_ns: int, action: Action) -> None:
        """Call `action(due_ns)` at or as soon as possible after `due_ns` on the monotonic clock."""
        self._pushed += 1
        heapq.heappush(self._due, (due_ns, self._pushed, action))

    def watch(self, sock: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready(mask)` whenever the socket can be read or written; replaces an earlier watch."""
        try:
            self._selector.modify(sock, events, ready)
        except KeyError:
            self._selector.register(sock, events, ready)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching a socket; it must still be open."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def stop(self) -> None:
        self._stopped = True

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT end `run` at once; a signal during a wait wakes it."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self.watch(reader, selectors.EVENT_READ, lambda _mask: self.stop())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def ignore_signals(self) -> None:
        """From here on the process ends by itself; a second signal must not change its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def run(self) -> None:
        while not self._stopped:
            self._fire_due()
            self._serve_sockets()

    def _fire_due(self) -> None:
        due = self._due
        until_ns = time.monotonic_ns() + FIRE_NS
        while due and due[0][0] <= time.monotonic_ns() < until_ns:
            due_ns, _, action = heapq.heappop(due)
            again_ns = action(due_ns)
            if again_ns is not None:
                self.at(again_ns, action)

    def _serve_sockets(self) -> None:
        wait_s = MAX_WAIT_S
        if self._due:
            wait_s = min(MAX_WAIT_S, (self._due[0][0] - time.monotonic_ns()) / 1e9)
        if wait_s > 0:
            # The selector's own timeout is in whole milliseconds; waiting for the selector is not.
            ready, _, _ = select.select(self._selector_fd, [], [], max(wait_s, MIN_WAIT_S))
            if not ready:
                return
        for key, mask in self._selector.select(0):
            key.data(mask)
