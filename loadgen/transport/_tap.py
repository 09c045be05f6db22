"""The packet tap: when the kernel received each TCP segment that came to this engine's own ports.

An AF_PACKET socket a family, a filter on our range of local ports, and a ring of frames, which the kernel
fills and numpy reads: no system call and no Python work for each token. A frame begins at the IP header
(SOCK_DGRAM) on loopback, Ethernet and tunnels alike. Needs CAP_NET_RAW and Linux.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from turnbench.clock import Timeline

# Linux's values (packet(7), if_packet.h); the socket module names few of them.
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_TPACKET_V2 = 1
_SO_ATTACH_FILTER = 26
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD

FRAME_BYTES = 512
"""One frame of the ring: the kernel's header, the IP and TCP headers, and the start of the payload."""
_BLOCK_BYTES = 1 << 16
_NET = 80
"""Where the IP header begins in a frame: TPACKET_ALIGN(header and address, 52 bytes) + 16."""
_MOST_AT_ONCE = 4096
_FIN, _SYN, _RST = 1, 2, 4
_LAST_CHUNK = np.frombuffer(b"0\r\n\r\n", dtype=np.uint8)

_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP segments in the order in which they came; arrays of one length."""

    port: _Array
    """Local port (uint16)."""
    seq: _Array
    """Sequence number of the first payload byte (uint32); of a SYN, the initial one."""
    payload_bytes: _Array
    """(int64)"""
    flags: _Array
    """TCP flags (uint8): FIN 1, SYN 2, RST 4."""
    at_ns: _Array
    """When the kernel received it, on the engine's time line (int64)."""
    may_end: _Array
    """Whether its payload may end a response: the last chunk, too short to tell, or not captured."""

    def __len__(self) -> int:
        return len(self.port)


class Tap:
    """Segments to a range of local ports, over all interfaces, both IP families."""

    def __init__(self, ports: range, timeline: Timeline, frames: int = 1 << 15) -> None:
        """Raises PermissionError without CAP_NET_RAW, OSError where the system has no packet sockets."""
        if sys.platform != "linux":
            raise OSError("packet sockets are Linux's")
        self._timeline = timeline
        self._rings: list[_Ring] = []
        try:
            for protocol in (_ETH_P_IP, _ETH_P_IPV6):
                self._rings.append(_Ring(protocol, ports, frames))
        except OSError:
            self.close()
            raise

    @property
    def sockets(self) -> list[socket.socket]:
        """Readable as soon as a frame waits."""
        return [ring.socket for ring in self._rings]

    def drain(self) -> list[Segments]:
        """What has come since the last call; an empty list when nothing has."""
        found = []
        for ring in self._rings:
            while (segments := ring.take(self._timeline)) is not None:
                found.append(segments)
        return found

    def dropped(self) -> int:
        """Frames that found the ring full since the last call; it names no connection."""
        return sum(ring.dropped() for ring in self._rings)

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        self._rings = []


class _Ring:
    """One family's socket and the frames that it shares with the kernel."""

    def __init__(self, protocol: int, ports: range, frames: int) -> None:
        self._ipv6 = protocol == _ETH_P_IPV6
        # What comes before filter and ring are in place waits in the socket's queue, never in the ring.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        try:
            _attach(self.socket, _filter(ports, self._ipv6))
            self.socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            blocks = frames * FRAME_BYTES // _BLOCK_BYTES
            asked = struct.pack("IIII", _BLOCK_BYTES, blocks, FRAME_BYTES, frames)
            self.socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, asked)
            self._map = mmap.mmap(self.socket.fileno(), frames * FRAME_BYTES)
        except OSError:
            self.socket.close()
            raise
        self._frames = frames
        self._head = 0
        self._bytes = np.frombuffer(self._map, dtype=np.uint8).reshape(frames, FRAME_BYTES)
        self._status = self._column("<u4", 0)
        self._captured = self._column("<u4", 8)
        self._whole = self._column("<u4", 4)
        self._seconds = self._column("<u4", 16)
        self._nanoseconds = self._column("<u4", 20)
        ip_bytes = 40 if self._ipv6 else 20
        self._ip_length = self._column(">u2", _NET + (4 if self._ipv6 else 2))
        self._port = self._column(">u2", _NET + ip_bytes + 2)
        self._seq = self._column(">u4", _NET + ip_bytes + 4)

    def _column(self, kind: str, offset: int) -> _Array:
        return np.ndarray((self._frames,), kind, self._map, offset, (FRAME_BYTES,))

    def take(self, timeline: Timeline) -> Segments | None:
        """The next frames that lie in a row, given back to the kernel; None when there is none."""
        first = self._head
        last = min(first + _MOST_AT_ONCE, self._frames)
        if not self._status[first] & 1:
            return None
        ready = (self._status[first:last] & 1) != 0
        count = len(ready) if ready.all() else int(ready.argmin())
        rows = slice(first, first + count)
        segments = self._segments(rows, timeline)
        self._status[rows] = 0
        self._head = (first + count) % self._frames
        return segments

    def _segments(self, rows: slice, timeline: Timeline) -> Segments:
        frames = self._bytes[rows]
        if self._ipv6:
            tcp_at: _Array | int = _NET + 40
            ip_bytes: _Array | int = 0  # its length field counts what follows the header
        else:
            ip_bytes = (frames[:, _NET] & 15).astype(np.int64) * 4
            tcp_at = _NET + ip_bytes
            if (ip_bytes == 20).all():
                ip_bytes, tcp_at = 20, _NET + 20
        port, seq, tcp_bytes, flags = self._tcp(frames, rows, tcp_at)
        length = self._ip_length[rows].astype(np.int64)
        whole = self._whole[rows].astype(np.int64)
        # 0: a segment merged to 64 KiB or more, whose length only the frame knows.
        length = np.where(length == 0, whole - (40 if self._ipv6 else 0), length)
        payload = length - ip_bytes - tcp_bytes
        stamps = self._seconds[rows].astype(np.int64) * 1_000_000_000 + self._nanoseconds[rows]
        return Segments(
            port=port,
            seq=seq,
            payload_bytes=payload,
            flags=flags,
            at_ns=timeline.of_kernel_stamps(stamps),
            may_end=self._may_end(frames, rows, tcp_at + tcp_bytes, payload, whole),
        )

    def _tcp(
        self, frames: _Array, rows: slice, tcp_at: _Array | int
    ) -> tuple[_Array, _Array, _Array, _Array]:
        """Destination port, sequence number, length of the header and flags of each frame."""
        if isinstance(tcp_at, int):
            tcp_bytes = (frames[:, tcp_at + 12] >> 4).astype(np.int64) * 4
            flags: _Array = frames[:, tcp_at + 13].copy()
            return self._port[rows].astype(np.uint16), self._seq[rows].astype(np.uint32), tcp_bytes, flags
        index = np.arange(len(frames))[:, None]
        head = frames[index, tcp_at[:, None] + np.arange(14)]
        port: _Array = head[:, 2].astype(np.uint16) << 8 | head[:, 3]
        seq = np.ascontiguousarray(head[:, 4:8]).view(">u4")[:, 0].astype(np.uint32)
        return port, seq, (head[:, 12] >> 4).astype(np.int64) * 4, head[:, 13].copy()

    def _may_end(
        self, frames: _Array, rows: slice, payload_at: _Array, payload: _Array, whole: _Array
    ) -> _Array:
        """Whether a payload ends in the last chunk of a body, or nobody can say."""
        end = payload_at + payload
        seen = (self._captured[rows].astype(np.int64) == whole) & (payload >= 5)
        unsure = (payload > 0) & ~seen
        candidates = np.flatnonzero(seen)
        tails = frames[candidates[:, None], end[candidates][:, None] + np.arange(-5, 0)]
        unsure[candidates] = (tails == _LAST_CHUNK).all(axis=1)
        found: _Array = unsure
        return found

    def dropped(self) -> int:
        _, lost = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(lost)

    def close(self) -> None:
        for name in [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]:
            delattr(self, name)  # a mapping can't be closed while arrays look into it
        self._map.close()
        self.socket.close()


# --- the filter: classic BPF, as packet(7) and the kernel's networking/filter.rst define it ---

_LDH, _LDB, _LDXB_MSH = 0x28, 0x30, 0xB1
_LDH_X, _LDB_X = 0x48, 0x50
_JEQ, _JGE, _JGT, _JSET, _JGT_X = 0x15, 0x35, 0x25, 0x45, 0x2D
_AND, _RSH, _ADD_X, _TAX, _RET = 0x54, 0x74, 0x0C, 0x07, 0x06
_PASS, _DROP = "pass", "drop"

_Step = tuple[int, str | None, str | None, int]
"""Operation, where to go if true and if false (None: on), constant."""


def _filter(ports: range, ipv6: bool) -> list[_Step]:
    """TCP to these ports: what has a payload, and every SYN, FIN and RST."""
    low, high = ports.start, ports.stop - 1
    if ipv6:
        head: list[_Step] = [(_LDB, None, None, 6), (_JEQ, None, _DROP, 6)]
        port, flags, data = (_LDH, 42), (_LDB, 53), (_LDB, 52)
        length, add_ip = 4, []
    else:
        head = [
            (_LDB, None, None, 9),
            (_JEQ, None, _DROP, 6),
            (_LDH, None, None, 6),
            (_JSET, _DROP, None, 0x1FFF),  # a later fragment has no TCP header
            (_LDXB_MSH, None, None, 0),
        ]
        port, flags, data = (_LDH_X, 2), (_LDB_X, 13), (_LDB_X, 12)
        length, add_ip = 2, [(_ADD_X, None, None, 0)]
    steps: list[_Step] = [
        *head,
        (port[0], None, None, port[1]),
        (_JGE, None, _DROP, low),
        (_JGT, _DROP, None, high),
        (flags[0], None, None, flags[1]),
        (_JSET, _PASS, None, _FIN | _SYN | _RST),
        (data[0], None, None, data[1]),
        (_RSH, None, None, 2),
        (_AND, None, None, 0x3C),
        *add_ip,
        (_TAX, None, None, 0),
        (_LDH, None, None, length),
        (_JEQ, _PASS, None, 0),
        (_JGT_X, _PASS, _DROP, 0),
    ]
    return steps


def _attach(sock: socket.socket, steps: list[_Step]) -> None:
    """Compile the steps, with the two returns behind them, and give them to the kernel."""
    places = {_PASS: len(steps), _DROP: len(steps) + 1}
    code = b""
    for number, (operation, yes, no, constant) in enumerate(steps):
        jumps = (0 if to is None else places[to] - number - 1 for to in (yes, no))
        code += struct.pack("HBBI", operation, *jumps, constant)
    code += struct.pack("HBBI", _RET, 0, 0, 0xFFFF) + struct.pack("HBBI", _RET, 0, 0, 0)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
