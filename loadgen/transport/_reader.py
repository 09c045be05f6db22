"""Reads the sockets of requests under way, so that every read carries the kernel's arrival time.

asyncio's transports read with recv, which drops the stamp. From a connection's first request on its transport
is paused (a public call) and its socket is read here with recvmsg; asyncio has it back as soon as it ends, so
that aiohttp's pool works as ever. All such sockets sit in one epoll set, itself one file in asyncio's: a
token costs one recvmsg and a few list appends, not a callback of the event loop. With a wire clock (see
`_wire`) a stream's arrivals are those of its packets, and many of its tokens can share a read.
"""

from __future__ import annotations

import asyncio
import select
import socket
from functools import partial
from typing import Any, Protocol

from loadgen.transport._read_log import ReadLog, RecordSplitter
from loadgen.transport._wire import PortRange, WireClock, WirePlace, received_bytes
from turnbench.clock import (
    ANCILLARY_BYTES,
    KERNEL_STAMPS,
    Ancillary,
    Timeline,
    ask_for_stamps,
    ask_for_transmit_stamps,
    keep_stamps_on,
    kernel_stamp_ns,
    stop_transmit_stamps,
    transmit_stamps,
)

_BUFFER_BYTES = 64 * 1024
_READS_A_ROUND = 512
_LOOK_EVERY_S, _READS_A_LOOK = 0.02, 32
"""How often sockets are looked at that wake nobody, and how many are read in one round of the loop."""
_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ESTABLISHED = b"\x01"
"""The first byte of struct tcp_info (linux/tcp.h): the connection's state."""
_RECORD_BYTES = 32 * 1024
"""More than a TLS record, less than asyncio's buffer for them."""


class TakenConnection(Protocol):
    """What the reader needs of a connection: see `_http.StampedHandler`."""

    log: ReadLog | None
    raw_transport: asyncio.Transport
    is_taken: bool
    port: int
    read_bytes: int | None

    def data_received(self, data: bytes) -> None: ...
    def look_at_end(self) -> None: ...


class StampedReader:
    """Reads connections between `take` and `give_back`, into the log of their request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeline: Timeline,
        kernel_clock: bool,
        wire_ports: PortRange | None = None,
    ) -> None:
        """With `wire_ports` arrivals are taken from the wire; raises OSError where this system has no tap."""
        self._loop = loop
        self._timeline = timeline
        self._kernel_clock = kernel_clock and KERNEL_STAMPS
        # First, since it may raise, and what is opened after it would be left open.
        self._wire = None
        if wire_ports is not None:
            self._wire = WireClock(loop, timeline, wire_ports, self._read_port, self._read_seldom)
        self._taken: dict[int, tuple[TakenConnection, Any, Any]] = {}
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._into = (self._buffer,)
        self._keeper = keep_stamps_on() if KERNEL_STAMPS else None
        self._poll = select.epoll() if KERNEL_STAMPS else None
        if self._poll is not None:
            loop.add_reader(self._poll.fileno(), self._drain)
        self._seldom_poll = None if self._wire is None else select.epoll()
        self._seldom: set[int] = set()
        """Descriptors of taken sockets that wake nobody: they are looked at some times a second."""
        self._looks: asyncio.Handle | None = None
        """The next look; None while there are no such sockets."""
        self._by_port: dict[int, int] = {}
        """Descriptors of taken sockets whose packets the tap sees, by local port."""
        self.arrival_ns = 0
        self.lag_ns = 0

    def begin(self, connection: TakenConnection, log: ReadLog) -> None:
        """A request begins on a taken connection."""
        if self._wire is not None:
            place = self._wire.begin(connection.port, connection.read_bytes)
            if place is not None:
                log.port, log.look_up = place.port, partial(self._take_from_wire, place)
                fd = self._by_port[place.port] = _plain_socket(connection.raw_transport).fileno()
                if (taken := self._taken.get(fd)) is not None and taken[2] is not None:
                    log.records = RecordSplitter()

    def hold(self, connection: TakenConnection) -> None:
        """A stream begins, which may be read seldom from now on; under TLS its end could not be seen then."""
        log = connection.log
        if self._wire is not None and log is not None and log.look_up is not None and log.records is None:
            self._wire.hold(connection.port, _plain_socket(connection.raw_transport))

    def look_bytes(self, connection: TakenConnection) -> int | None:
        """As the wire clock's; None without one."""
        return None if self._wire is None else self._wire.look_bytes(connection.port)

    def finish(self, connection: TakenConnection, log: ReadLog) -> None:
        """A request is over: its socket wakes us at the first byte again."""
        if log.records is not None:  # what was begun of a TLS record is asyncio's to go on with
            self.give_back(connection)
        if self._wire is not None and log.port is not None:
            log.read_seldom = self._wire.release(log.port)
            self._by_port.pop(log.port, None)

    def catch_up(self, log: ReadLog) -> None:
        """Read what waits below a low-water mark: what this log says now is what has come."""
        if log.port is not None:
            self._read_port(log.port)

    def _take_from_wire(self, place: WirePlace, log: ReadLog) -> None:
        assert self._wire is not None
        wanted_bytes = len(log.raw) if log.records is None else log.records.passed_bytes
        found = self._wire.arrivals(place, wanted_bytes)
        if found is not None:
            log.take_arrivals(*found)

    def take(self, connection: TakenConnection) -> None:
        """Read this connection from now on, in place of its asyncio transport, if that is not so already."""
        transport = connection.raw_transport
        sock = _plain_socket(transport)
        if connection.is_taken:
            return
        connection.is_taken = True
        transport.pause_reading()
        if KERNEL_STAMPS:
            ask_for_stamps(sock)
        if self._wire is not None:
            connection.port, connection.read_bytes = sock.getsockname()[1], received_bytes(sock)
        # Under TLS the transport's protocol is asyncio's SSLProtocol, fed through its own buffer.
        protocol = transport.get_protocol()
        tls = protocol if isinstance(protocol, asyncio.BufferedProtocol) else None
        fd = sock.fileno()
        self._seldom.discard(fd)
        self._taken[fd] = (connection, sock, tls)
        if self._poll is not None:
            self._poll.register(fd, select.EPOLLIN)
        else:
            self._loop._add_reader(fd, self._read, fd)  # type: ignore[attr-defined]

    def give_back(self, connection: TakenConnection) -> None:
        """Let asyncio read this connection again; does nothing if it is not taken."""
        transport = connection.raw_transport
        fd = _plain_socket(transport).fileno()
        connection.is_taken = False
        if fd < 0 or self._taken.get(fd, (None,))[0] is not connection:
            self._forget(connection)
            return
        _, _, tls = self._taken.pop(fd)
        if self._poll is not None:
            poll = self._poll_of(fd)
            self._seldom.discard(fd)
            if not poll.closed:
                poll.unregister(fd)
        else:
            self._loop._remove_reader(fd)  # type: ignore[attr-defined]
        if not transport.is_closing():
            transport.resume_reading()
        log = connection.log
        if tls is not None and log is not None and log.records is not None:
            _feed(tls, log.records.rest())

    def has_ended(self, connection: TakenConnection) -> bool:
        """Whether the other side has closed this idle connection, or broken it."""
        sock = _plain_socket(connection.raw_transport)
        try:
            if KERNEL_STAMPS and sock.family in _TCP_FAMILIES:
                return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != _ESTABLISHED)
            return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def stamp_sends(self, connection: TakenConnection) -> None:
        """Have the kernel stamp what this connection sends, which it did not, counted from here."""
        if self._kernel_clock:
            ask_for_transmit_stamps(_plain_socket(connection.raw_transport))

    def stop_stamping_sends(self, connection: TakenConnection) -> None:
        if self._kernel_clock:
            stop_transmit_stamps(_plain_socket(connection.raw_transport))

    def take_transmit_stamps(self, connection: TakenConnection) -> None:
        """Empty the error queue, whose stamps wake the loop until they are read; at least up to the stamp
        that the request at hand still needs, which is nearly always the last."""
        if not self._kernel_clock:
            return
        for sent_bytes, stamp_ns in transmit_stamps(_plain_socket(connection.raw_transport)):
            log = connection.log
            if log is not None and not log.sent_by_kernel:
                log.was_sent(sent_bytes, self._timeline.of_kernel_stamp(stamp_ns)[0])
                if log.sent_by_kernel:
                    break

    @property
    def wire_ports(self) -> PortRange | None:
        """The local ports from which connections must be opened."""
        return None if self._wire is None else self._wire.ports

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        if self._seldom_poll is not None:
            self._seldom_poll.close()
        if self._keeper is not None:
            self._keeper.close()

    def now_ns(self) -> int:
        return self._timeline.now_ns()

    def _forget(self, connection: TakenConnection) -> None:
        """Drop a connection whose socket is closed already (the kernel took it out of the epoll set)."""
        for fd in [fd for fd, taken in self._taken.items() if taken[0] is connection]:
            del self._taken[fd]
            self._seldom.discard(fd)

    def _poll_of(self, fd: int) -> select.epoll:
        """Where this socket is looked at."""
        poll = self._seldom_poll if fd in self._seldom else self._poll
        assert poll is not None
        return poll

    def _read_seldom(self, port: int, seldom: bool) -> None:
        """Whether the socket with this port wakes nobody for now: the tap does when its stream ends."""
        fd = self._by_port.get(port)
        if fd is None or fd not in self._taken or (fd in self._seldom) == seldom or self._poll_of(fd).closed:
            return
        self._poll_of(fd).unregister(fd)
        (self._seldom.add if seldom else self._seldom.discard)(fd)
        self._poll_of(fd).register(fd, select.EPOLLIN)
        if self._looks is None:
            self._looks = self._loop.call_later(_LOOK_EVERY_S, self._look_at_seldom)

    def _look_at_seldom(self) -> None:
        """Read those of them that have much, many in a row."""
        assert self._seldom_poll is not None
        self._looks = None
        if self._seldom:
            ready = self._seldom_poll.poll(0, _READS_A_LOOK)
            again_s = 0.0 if len(ready) == _READS_A_LOOK else _LOOK_EVERY_S
            self._looks = self._loop.call_later(again_s, self._look_at_seldom)
            self._read_all(ready)

    def _drain(self) -> None:
        assert self._poll is not None
        self._read_all(self._poll.poll(0, _READS_A_ROUND))

    def _read_all(self, ready: list[tuple[int, int]]) -> None:
        for fd, events in ready:
            if fd in self._taken:  # a read before it in this round may have ended it
                if events & select.EPOLLERR:
                    self.take_transmit_stamps(self._taken[fd][0])
                self._read(fd)

    def _read_port(self, port: int) -> None:
        """Read all that waits on the connection from this port."""
        fd = self._by_port.get(port)
        while fd is not None and fd in self._taken and self._read(fd) == _BUFFER_BYTES:
            pass

    def _read(self, fd: int) -> int:
        """Read once; how many bytes came."""
        connection, sock, tls = self._taken[fd]
        log = connection.log
        splits = log is not None and log.records is not None
        try:
            into = self._into if tls is None or splits else (tls.get_buffer(-1),)
            count: int
            count, ancillary, _, _ = sock.recvmsg_into(into, ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if log is not None:
                log.reset = error.with_traceback(None)  # its frames hold the log
            count = 0
        if not count:
            # The end of the stream, or an error: asyncio's transport meets it again and closes properly.
            self.give_back(connection)
            return 0
        self._stamp(ancillary, log)
        if connection.read_bytes is not None:
            connection.read_bytes += count
        if tls is not None:
            if log is not None and log.records is not None:
                for record in log.records.split(bytes(into[0][:count])):
                    _feed(tls, record)
            else:
                tls.buffer_updated(count)  # ends in connection.data_received with what was decrypted
            return count
        if log is None or log.deferred_from is None:
            connection.data_received(bytes(into[0][:count]))
            return count
        log.add(into[0][:count], self.arrival_ns, self.lag_ns)
        if log.may_have_ended():
            connection.look_at_end()
        return count

    def _stamp(self, ancillary: Ancillary, log: ReadLog | None) -> None:
        """Set when the read at hand arrived, and the client's lag in seeing it."""
        stamp = kernel_stamp_ns(ancillary)
        if stamp is None:
            self.arrival_ns, self.lag_ns = self._timeline.now_ns(), 0
            if log is not None:
                log.unstamped = True
            return
        self.arrival_ns, self.lag_ns = self._timeline.of_kernel_stamp(stamp)
        if not self._kernel_clock:
            self.arrival_ns += self.lag_ns


def open_reader(
    loop: asyncio.AbstractEventLoop, timeline: Timeline, clock: str, connections: int
) -> tuple[StampedReader, str | None]:
    """A reader with the best clock that `clock` allows, and, under `auto`, why that is not the wire.

    `connections`: the most that may be open at once. Raises ValueError where the wire was asked for by name
    and can't be had.
    """
    why = None
    if clock in ("wire", "auto"):
        ports = None
        try:
            ports = PortRange(connections)
            return StampedReader(loop, timeline, True, ports), None
        except OSError as error:
            if ports is not None:
                ports.close()
            why = error.strerror or str(error)
            if isinstance(error, PermissionError):
                why = "it needs CAP_NET_RAW"
            if clock == "wire":
                raise ValueError(f"--clock wire: {why}; see docs/clocks.md, or use --clock auto") from None
    return StampedReader(loop, timeline, clock != "user"), why


def _feed(tls: Any, data: bytes) -> None:
    """Give ciphertext to asyncio's SSLProtocol, whose buffer holds any record."""
    for start in range(0, len(data), _RECORD_BYTES):
        part = data[start : start + _RECORD_BYTES]
        tls.get_buffer(len(part))[: len(part)] = part
        tls.buffer_updated(len(part))


def _plain_socket(transport: asyncio.Transport) -> Any:
    """The transport's socket itself: asyncio hands out a wrapper without recvmsg."""
    wrapper = transport.get_extra_info("socket")
    return getattr(wrapper, "_sock", wrapper) if wrapper is not None else socket.socket()
