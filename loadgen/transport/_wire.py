"""The wire clock: arrivals from a packet tap, and sockets that are read seldom.

Where few tokens come, sockets are read token by token as without a tap: an answer's end is seen at once.
Where many come, a low-water mark keeps a stream's socket silent until much is there, and a tap of its own
wakes us for what may end a stream. Either way a stream's arrivals are looked up in the log of the tap, which
is drained some times a second, when it is over. Under TLS packets don't show an end, so such streams are
read token by token.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from loadgen.transport._segments import Columns, SegmentLog
from loadgen.transport._tap import EndsTap, Tap
from turnbench.clock import Timeline

_IP_LOCAL_PORT_RANGE = 51
_TCP_INFO_BYTES = 232
_BYTES_RECEIVED_AT = 128
"""tcpi_bytes_received in struct tcp_info (linux/tcp.h, since 4.1)."""
_FIONREAD = 0x541B
_LOW_WATER_BYTES, _LITTLE_WATER_BYTES = 16 * 1024, 4 * 1024
"""Of what a socket must hold before it is read: the more, the less a token costs, and the more is left to be
read at an answer's end. The second is for moderate rates."""
_SLICE_PORTS = 1024
_CLAIM = "\0turnbench-ports-{}"
_LINGER_S = 60.0
"""A closed connection keeps its port so long (TIME_WAIT)."""
_MOST_USED = 0.9

DRAIN_EVERY_S = 0.05
"""Time between two drains of the tap; records are made a little later, and find their arrivals in its log."""
_BUSY_PER_S, _CALM_PER_S = 2_000, 1_000
"""Segments per second above which sockets are read seldom, and below which they are read at once again."""
_MUCH_PER_S, _MODERATE_PER_S = 10_000, 7_000
"""Segments per second above which the first low-water mark is used, and below which the second is again."""
_READS_A_ROUND = 8
_PENDING_S = 0.25
"""Silence after which what waits below a low-water mark is read all the same."""


class PortRange:
    """Local ports that this engine has to itself on this machine, as long as the object lives.

    A range is claimed by names of abstract sockets, which the kernel frees with the process; each network
    namespace has its own.
    """

    def __init__(self, ports: int) -> None:
        """Claims at least so many ports if it can; raises OSError where none is to be had."""
        self._claims: list[socket.socket] = []
        self._made_s: deque[float] = deque()
        """When sockets with these ports were made, as long as they may still hold one."""
        low, high = _ephemeral_ports()
        slices = range(-(-low // _SLICE_PORTS), (high + 1) // _SLICE_PORTS)
        wanted = min(-(-ports // _SLICE_PORTS), len(slices))
        for number in slices:
            claim = _claim(number)
            if claim is None:
                self.close()  # they must lie in a row
                continue
            self._claims.append(claim)
            if len(self._claims) == wanted:
                self.ports = range((number + 1 - wanted) * _SLICE_PORTS, (number + 1) * _SLICE_PORTS)
                return
        self.close()
        raise OSError(f"{ports} local ports in a row are not free: other engines of this machine have them")

    def socket(self, address: Any) -> socket.socket:
        """A TCP socket that will connect from one of these ports, for aiohttp's connector.

        When nearly all of them may be in use it is one without bounds, whose arrivals the tap does not see.
        """
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        now_s = time.monotonic()
        while self._made_s and now_s - self._made_s[0] > _LINGER_S:
            self._made_s.popleft()
        if family in (socket.AF_INET, socket.AF_INET6) and len(self._made_s) < _MOST_USED * len(self.ports):
            self._made_s.append(now_s)
            bounds = (self.ports.stop - 1) << 16 | self.ports.start
            made.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", bounds))
        return made

    def close(self) -> None:
        for claim in self._claims:
            claim.close()
        self._claims = []


def _ephemeral_ports() -> tuple[int, int]:
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low, high = map(int, file.read().split())
    return low, high


def _claim(number: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(_CLAIM.format(number))
    except OSError:
        claim.close()
        return None
    return claim


def received_bytes(sock: Any) -> int | None:
    """How many bytes of a connection's stream were read from its socket; None where the kernel is silent.

    What the kernel received, less what waits in the socket; asked again if bytes came in between.
    """
    for _ in range(3):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) < _BYTES_RECEIVED_AT + 8:
            return None
        (received,) = struct.unpack_from("Q", info, _BYTES_RECEIVED_AT)
        (waiting,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), _FIONREAD, b"\0\0\0\0"))
        again = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if struct.unpack_from("Q", again, _BYTES_RECEIVED_AT)[0] == received:
            return int(received) - int(waiting)
    return None


class WirePlace(NamedTuple):
    """Where a response lies among all segments."""

    number: int
    port: int
    skipped_bytes: int
    """Bytes of the connection's stream before it."""


class WireClock:
    """Drains the tap, keeps its log, and says which sockets to read; one an engine."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeline: Timeline,
        ports: PortRange,
        read_now: Callable[[int], object],
        read_seldom: Callable[[int, bool], object],
    ) -> None:
        """`read_now` is called with a port whose stream may have ended, `read_seldom` with one whose socket
        need not wake anybody otherwise, and when that is over. Raises OSError as `Tap` does."""
        self.ports = ports
        self._loop = loop
        self._timeline = timeline
        self._read_now = read_now
        self._read_seldom = read_seldom
        self._tap = Tap(ports.ports, timeline)
        self._log = SegmentLog()
        self._held: dict[int, Any] = {}
        """Sockets with a low-water mark, by port."""
        self._seldom: set[int] = set()
        """Those of them whose streams have been read seldom for a while."""
        self._ends: EndsTap | None = None
        """While much comes."""
        self._comes_much = False
        self._rate_per_s = 0.0
        self._ticked_ns = self._pending_ns = timeline.now_ns()
        self._segments = 0
        """Drained since the last tick."""
        self._heard = np.zeros(1 << 16, bool)
        """By port whether anything came since the last look at what is pending."""
        self._may_have_ended: set[int] = set()
        """Ports whose streams may have ended since then."""
        self._to_read: dict[int, None] = {}
        """Ports whose sockets are read next."""
        self._marks: dict[int, int] = {}
        """Of each response that may still be looked up, where its segments begin in the log."""
        self._number = count()
        self._timer = loop.call_later(DRAIN_EVERY_S, self._tick)

    def begin(self, port: int, skipped_bytes: int | None) -> WirePlace | None:
        """The place of the next response to this local port, after so many bytes of its connection's stream.

        The log keeps its segments until it is looked up.
        """
        if skipped_bytes is None or port not in self.ports.ports:
            return None
        number = next(self._number)
        self._marks[number] = self._log.mark()
        return WirePlace(number, port, skipped_bytes)

    def hold(self, port: int, sock: Any) -> None:
        """A stream begins on this socket, from this local port: while much comes, read it seldom."""
        if port in self.ports.ports:
            self._held[port] = sock
            if self._ends is not None:
                self._put_off(port, sock)

    def _put_off(self, port: int, sock: Any) -> None:
        """From now on this socket is read seldom; what it holds already would wake nobody."""
        self._seldom.add(port)
        _set_low_water(sock, self.low_water_bytes)
        self._read_seldom(port, True)
        self._read_now(port)

    def _read_at_once(self, port: int, sock: Any) -> None:
        """From now on this socket wakes us at its first byte again."""
        _set_low_water(sock, 1)
        self._read_seldom(port, False)

    @property
    def low_water_bytes(self) -> int:
        """What a held socket must hold before it is read, while more comes than a few tokens."""
        return _LOW_WATER_BYTES if self._comes_much else _LITTLE_WATER_BYTES

    def look_bytes(self, port: int) -> int | None:
        """How much of this port's stream waits for one read where much comes; None: each byte wakes us."""
        return self.low_water_bytes if port in self._held else None

    def release(self, port: int) -> bool:
        """The stream is over: its socket wakes us at the first byte again. Whether it was read seldom."""
        seldom = port in self._seldom
        if (sock := self._held.pop(port, None)) is not None and seldom:
            self._seldom.discard(port)
            self._read_at_once(port, sock)
        return seldom

    def arrivals(self, place: WirePlace, wanted_bytes: int) -> Columns | None:
        """(ends, at_ns) of a response's bytes, asked for once; None where the tap missed a part of it."""
        mark = self._marks.pop(place.number)
        port, skipped_bytes = place.port, place.skipped_bytes
        found = self._log.arrivals(port, skipped_bytes, mark, wanted_bytes)
        if found is None:  # its last packets wait in the tap
            self._drain()
            found = self._log.arrivals(port, skipped_bytes, mark, wanted_bytes)
        return found

    def close(self) -> None:
        self._timer.cancel()
        self._watch_ends(False)
        self._to_read.clear()
        self._tap.close()
        self.ports.close()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(DRAIN_EVERY_S, self._tick)
        now_ns = self._timeline.now_ns()
        passed_s = max((now_ns - self._ticked_ns) / 1e9, 1e-6)
        self._ticked_ns = now_ns
        self._drain()
        # A mean over about the last tenth of a second, so that one burst changes nothing.
        weight = min(passed_s / 0.1, 1.0)
        self._rate_per_s += weight * (self._segments / passed_s - self._rate_per_s)
        self._segments = 0
        self._follow_rate()
        self._set_busy(self._rate_per_s > (_BUSY_PER_S if self._ends is None else _CALM_PER_S))
        if self._ends is not None:
            ended = self._may_have_ended & self._held.keys()  # of these most have been read
            if now_ns - self._pending_ns > _PENDING_S * 1e9:
                self._pending_ns = now_ns
                ended |= {port for port in self._held if not self._heard[port]}
                self._heard[:] = False
            self._read_soon(ended)
        self._may_have_ended.clear()
        self._log.forget_before(min(self._marks.values(), default=self._log.mark()))

    def _take_ends(self) -> None:
        assert self._ends is not None
        self._read_soon(port for port in self._ends.take() if port in self._held)

    def _read_soon(self, ports: Iterable[int]) -> None:
        was_reading = bool(self._to_read)
        self._to_read |= dict.fromkeys(ports)
        if self._to_read and not was_reading:
            self._read_some()

    def _read_some(self) -> None:
        """Read a few sockets: where many streams end together, the first is dealt with while others wait."""
        ports = list(islice(self._to_read, _READS_A_ROUND))
        for port in ports:
            del self._to_read[port]
        if self._to_read:
            self._loop.call_soon(self._read_some)
        for port in ports:
            self._read_now(port)

    def _drain(self) -> None:
        for segments in self._tap.drain():
            ports = segments.heads["port"]
            self._log.add(segments)
            self._segments += len(segments)
            self._heard[ports] = True
            self._may_have_ended.update(ports[segments.unsure].tolist())

    def _follow_rate(self) -> None:
        """Choose the low-water mark by how much comes."""
        was_much = self._comes_much
        self._comes_much = self._rate_per_s > (_MODERATE_PER_S if was_much else _MUCH_PER_S)
        if self._comes_much != was_much and self._ends is not None:
            for sock in self._held.values():
                _set_low_water(sock, self.low_water_bytes)

    def _set_busy(self, busy: bool) -> None:
        if busy != (self._ends is not None) and self._watch_ends(busy) == busy:
            for port, sock in list(self._held.items()):
                (self._put_off if busy else self._read_at_once)(port, sock)

    def _watch_ends(self, watch: bool) -> bool:
        """Begin or end to be woken by what may end a stream; whether we are now."""
        if self._ends is not None:
            for sock in self._ends.sockets:
                self._loop.remove_reader(sock)
            self._ends.close()
            self._ends = None
        if watch:
            with contextlib.suppress(OSError):  # no descriptor is left
                self._ends = EndsTap(self.ports.ports)
                for sock in self._ends.sockets:
                    self._loop.add_reader(sock, self._take_ends)
        return self._ends is not None


def _set_low_water(sock: Any, size_bytes: int) -> None:
    with contextlib.suppress(OSError):  # closed by now
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
