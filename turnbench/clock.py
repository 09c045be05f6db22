"""The engine's time line, and kernel receive stamps put on it.

Every `*_ns` of a record is nanoseconds since the Unix epoch, made from ONE reading of CLOCK_REALTIME at the
engine's start plus differences of the monotonic clock, so a stepped wall clock bends no interval.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the emulator uses this module too, and numpy would take half of its start
    import numpy as np
    import numpy.typing as npt

# Linux's values; the socket module does not name them.
_SO_TIMESTAMPNS = 35
_SCM_TIMESTAMPNS = 35
_SO_TIMESTAMPING = _SCM_TIMESTAMPING = 37
_TX_SOFTWARE, _SOFTWARE, _OPT_ID, _OPT_TSONLY, _OPT_ID_TCP = 1 << 1, 1 << 4, 1 << 7, 1 << 11, 1 << 16
_FROM_ERROR_QUEUE = 0x2000 | int(getattr(socket, "MSG_DONTWAIT", 0))
"""MSG_ERRQUEUE, without waiting. Worked out once: an enum costs a microsecond a call."""
_RECVERR = (11, 25)
"""IP_RECVERR and IPV6_RECVERR."""
_EXTENDED_ERROR = struct.Struct("@IBBBBII")
"""errno, origin, type, code, padding, info, data."""
_ORIGIN_TIMESTAMPING, _STAMP_OF_SENDING = 4, 0
_TIMESPEC = struct.Struct("@qq")
_timespec_in = _TIMESPEC.unpack_from
_SOL_SOCKET = socket.SOL_SOCKET
ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(3 * _TIMESPEC.size)
"""Room for a read's stamp, and for the second message that each read has once transmit stamps are on."""
_ERROR_BYTES = socket.CMSG_SPACE(3 * _TIMESPEC.size) + socket.CMSG_SPACE(64)
_STAMPS_ON_S = 1.0
"""How long to wait for the first stamp; a system without any is measured by the client's clock."""

KERNEL_STAMPS = sys.platform == "linux"
"""Whether this system can stamp arrivals in the kernel."""

Ancillary = list[tuple[int, int, bytes]]


class Timeline:
    """Nanoseconds since the Unix epoch that run at the monotonic clock's pace."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        realtime_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._realtime_ns = realtime_ns
        self._offset_ns = realtime_ns() - monotonic_ns()

    def now_ns(self) -> int:
        return self._monotonic_ns() + self._offset_ns

    def of_kernel_stamp(self, stamp_ns: int) -> tuple[int, int]:
        """A CLOCK_REALTIME stamp on this time line, now minus the stamp's age; and that age.

        Both clocks are read now, so a wall clock stepped since the start changes nothing. A stamp from the
        future (the wall clock was stepped back between the stamp and now) counts as now.
        """
        age_ns = self._realtime_ns() - stamp_ns
        if age_ns < 0:
            age_ns = 0
        return self._monotonic_ns() + self._offset_ns - age_ns, age_ns

    def of_kernel_stamps(self, stamps_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """As `of_kernel_stamp`, for many stamps at once; none is later than now."""
        realtime_ns, now_ns = self._realtime_ns(), self.now_ns()
        on_time_line: npt.NDArray[np.int64] = stamps_ns + (now_ns - realtime_ns)
        on_time_line[on_time_line > now_ns] = now_ns
        return on_time_line


def ask_for_stamps(sock: socket.socket) -> None:
    """Have the kernel stamp what this socket receives from now on."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def keep_stamps_on() -> socket.socket:
    """A socket for which the kernel stamps arrivals until it is closed; returns once it does so.

    Linux switches its stamps on some milliseconds after the first socket of the system asks for them, and
    off with the last one: without this, a run's first answers would carry none.
    """
    keeper = socket.socket()
    ask_for_stamps(keeper)
    keeper.settimeout(_STAMPS_ON_S)
    with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as server:
        keeper.connect(server.getsockname())
        peer, _ = server.accept()
        with peer:
            _wait_for_stamps(keeper, peer)
    return keeper


def _wait_for_stamps(keeper: socket.socket, peer: socket.socket) -> None:
    give_up = time.monotonic() + _STAMPS_ON_S
    while time.monotonic() < give_up:
        peer.send(b"?")
        if kernel_stamp_ns(keeper.recvmsg(1, ANCILLARY_BYTES)[1]) is not None:
            return


def ask_for_transmit_stamps(sock: socket.socket) -> bool:
    """Have the kernel stamp what this connected TCP socket sends from now on; False where it can't.

    The stamps' ids count bytes from here on. They wait in the socket's error queue and wake whoever polls the
    socket until `transmit_stamps` has taken them.
    """
    flags = _TX_SOFTWARE | _SOFTWARE | _OPT_ID | _OPT_ID_TCP | _OPT_TSONLY
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags)
    except OSError:  # an older kernel, or another system
        return False
    return True


def stop_transmit_stamps(sock: socket.socket) -> None:
    """No further stamps of what is sent; those in the error queue stay there."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, 0)


def transmit_stamps(sock: socket.socket) -> Iterator[tuple[int, int]]:
    """(bytes sent, modulo 2^32; CLOCK_REALTIME in ns) of each stamp, as it is taken out of the error queue.

    By that time the kernel had handed so many bytes, counted from `ask_for_transmit_stamps`, to the device.
    """
    with suppress(OSError):  # BlockingIOError: nothing is left
        while True:
            _, ancillary, _, _ = sock.recvmsg(0, _ERROR_BYTES, _FROM_ERROR_QUEUE)
            stamp_ns, sent_bytes = None, None
            for level, kind, data in ancillary:
                if level == _SOL_SOCKET and kind == _SCM_TIMESTAMPING:
                    seconds, nanoseconds = _timespec_in(data)
                    stamp_ns = seconds * 1_000_000_000 + nanoseconds
                elif kind in _RECVERR and len(data) >= _EXTENDED_ERROR.size:
                    _, origin, _, _, _, what, last_byte = _EXTENDED_ERROR.unpack_from(data)
                    if origin == _ORIGIN_TIMESTAMPING and what == _STAMP_OF_SENDING:
                        sent_bytes = (last_byte + 1) & 0xFFFFFFFF
            if stamp_ns is not None and sent_bytes is not None:
                yield sent_bytes, stamp_ns


def why_no_packets() -> str | None:
    """Why this process may not see packets, as the wire clock does; None where it may."""
    try:
        socket.socket(getattr(socket, "AF_PACKET", -1), socket.SOCK_DGRAM).close()
    except PermissionError:
        return "it needs CAP_NET_RAW"
    except (OSError, ValueError):
        return "this system has no packet sockets"
    return None


def kernel_stamp_ns(ancillary: Ancillary) -> int | None:
    """CLOCK_REALTIME at which the kernel received the last byte of a read, or None where it did not say."""
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_TIMESTAMPNS:
            seconds: int
            nanoseconds: int
            seconds, nanoseconds = _timespec_in(data)
            return seconds * 1_000_000_000 + nanoseconds
    return None
