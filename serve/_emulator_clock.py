"""The emulator's time line and its own lateness.

Everything runs on the monotonic clock; one reading of the real-time clock at import places it on the Unix
epoch, so that a stepped wall clock bends no interval.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

monotonic_ns = time.monotonic_ns

_EPOCH_OFFSET_NS = time.time_ns() - time.monotonic_ns()

BUCKET_NS = 10_000
BUCKETS = 200_000
"""Ten microseconds each: lateness is told apart up to two seconds."""


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
    """How far behind its own schedule the emulator sent: actual minus due, for each content event."""

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self._max_ns = 0
        self._second = 0
        self._in_second = 0
        self.sent = 0
        self.peak_per_s = 0

    def add(self, late_ns: int, now_ns: int) -> None:
        self._buckets[min(late_ns // BUCKET_NS, BUCKETS - 1)] += 1
        if late_ns > self._max_ns:
            self._max_ns = late_ns
        second = now_ns // 1_000_000_000
        if second != self._second:
            self._end_second(second)
        self._in_second += 1

    def _end_second(self, second: int) -> None:
        self.sent += self._in_second
        self.peak_per_s = max(self.peak_per_s, self._in_second)
        self._second, self._in_second = second, 0

    def percentile_ms(self, share: float) -> float:
        """Upper edge of the bucket that holds this share of the events; 0 when none was sent."""
        below, wanted = 0, share * self.sent
        for index, count in enumerate(self._buckets):
            below += count
            if count and below >= wanted:
                return min((index + 1) * BUCKET_NS, self._max_ns) / 1e6
        return 0.0

    def line(self) -> str:
        """The sentence that the emulator prints when it stops."""
        self._end_second(0)
        return (
            f"lateness: {self.sent} events sent, p50 {self.percentile_ms(0.5):.2f} ms, "
            f"p99 {self.percentile_ms(0.99):.2f} ms, max {self._max_ns / 1e6:.2f} ms, "
            f"peak {self.peak_per_s} events/s"
        )
