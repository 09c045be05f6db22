"""The emulator's time line and its own lateness.

Everything runs on the monotonic clock; one reading of the real-time clock at import places it on the Unix
epoch, so that a stepped wall clock bends no interval.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from array import array
from collections import Counter
from itertools import repeat
from operator import floordiv, sub

monotonic_ns = time.monotonic_ns

_EPOCH_OFFSET_NS = time.time_ns() - time.monotonic_ns()

BUCKET_NS = 10_000
FOLD_EVENTS = 1_000
SECOND_NS = 1_000_000_000


def epoch_ns(moment_ns: int) -> int:
    """A moment of the monotonic clock in nanoseconds since the Unix epoch."""
    return moment_ns + _EPOCH_OFFSET_NS


_TIMESTAMPNS = 35
"""SO_TIMESTAMPNS and SCM_TIMESTAMPNS on Linux; the socket module names neither."""
_STAMP = struct.Struct("@qq")
STAMP_BYTES = socket.CMSG_SPACE(_STAMP.size)


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel say when it received what is read; elsewhere `arrival_ns` says when it was read."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)


def arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The monotonic moment at which the kernel received the last byte of a read: now minus the stamp's age.

    A request that came while this process was busy came when it came, not when it was looked at.
    """
    age_ns = 0
    for _, kind, data in ancillary:
        if kind == _TIMESTAMPNS and len(data) >= _STAMP.size:
            seconds, nanoseconds = _STAMP.unpack_from(data)
            age_ns = max(time.time_ns() - seconds * 1_000_000_000 - nanoseconds, 0)
    return monotonic_ns() - age_ns


class Lateness:
    """How far behind its own schedule the emulator sent: actual minus due, for each content event.

    All streams' events go into the same two columns: a place for each stream would be out of the processor's
    cache whenever its turn comes, with thousands of them.
    """

    def __init__(self) -> None:
        self._due_ns = array("q")
        self._sent_ns = array("q")
        self._buckets: Counter[int] = Counter()
        self._seconds: Counter[int] = Counter()
        self._max_ns = 0

    def note(self, due_ns: int, sent_ns: int) -> None:
        """One event, due and sent at these moments."""
        self._due_ns.append(due_ns)
        self._sent_ns.append(sent_ns)
        if len(self._sent_ns) >= FOLD_EVENTS:
            self.fold()

    def fold(self) -> None:
        """Count what was noted: many at once, since counting each of tens of thousands a second is dear."""
        if not self._sent_ns:
            return
        late_ns = list(map(sub, self._sent_ns, self._due_ns))
        self._max_ns = max(self._max_ns, max(late_ns))
        self._buckets.update(map(floordiv, late_ns, repeat(BUCKET_NS)))
        self._seconds.update(map(floordiv, self._sent_ns, repeat(SECOND_NS)))
        del self._due_ns[:], self._sent_ns[:]

    def percentile_ms(self, share: float) -> float:
        """Upper edge of the bucket that holds this share of the events; 0 when none was sent."""
        below, wanted = 0, share * self._seconds.total()
        for bucket, count in sorted(self._buckets.items()):
            below += count
            if below >= wanted:
                return min((bucket + 1) * BUCKET_NS, self._max_ns) / 1e6
        return 0.0

    def line(self) -> str:
        """The sentence that the emulator prints when it stops."""
        self.fold()
        return (
            f"lateness: {self._seconds.total()} events sent, p50 {self.percentile_ms(0.5):.2f} ms, "
            f"p99 {self.percentile_ms(0.99):.2f} ms, max {self._max_ns / 1e6:.2f} ms, "
            f"peak {max(self._seconds.values(), default=0)} events/s"
        )
