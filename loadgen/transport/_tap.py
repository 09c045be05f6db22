"""The packet tap: when the kernel received each TCP segment that came to this engine's own ports.

An AF_PACKET socket a family, a filter on our range of local ports, and a ring of frames, which the kernel
fills and numpy reads: no system call and no Python work for each token. A second socket a family gets only
what may end a response, and wakes the loop. A frame begins at the IP header (SOCK_DGRAM) on loopback,
Ethernet and tunnels alike. Needs CAP_NET_RAW and Linux.
"""

from __future__ import annotations

import contextlib
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
_SO_RCVBUFFORCE = 33
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD

FRAME_BYTES = 256
"""One frame of the ring: the kernel's header, then the IP and TCP headers."""
_BLOCK_BYTES = 1 << 14
_NET = 80
"""Where the IP header begins in a frame: TPACKET_ALIGN(header and address, 52 bytes) + 16."""
_LEAST_AT_ONCE, _MOST_AT_ONCE = 32, 4096
_FIN, _SYN, _RST = 1, 2, 4
_EMPTY_LINE, _ZERO = int.from_bytes(b"\r\n\r\n", "big"), ord("0")
_LAST_CHUNK_BYTES = 5
"""The last chunk of a body is a zero and an empty line."""
_GOES_ON_BYTES, _UNSURE_BYTES = 74, 75
"""How much of a packet is captured: the longest IP header, and TCP's up to the flags. By which of the two the
filter also tells if the payload may end a body; where it runs the payload is near the processor, here not."""
_IPV4_BYTES, _IPV6_BYTES = 20, 40
_ENDS_BYTES = 4 << 20

_Array = npt.NDArray[Any]


HEAD = np.dtype(
    [
        ("whole", "u4"),
        ("version", "u1"),
        ("length", "u2"),
        ("port", "u2"),
        ("seq", "u4"),
        ("words", "u1"),
        ("flags", "u1"),
    ]
)
"""Of a segment: the frame's length, the first byte and the length field of its IP header, and from its TCP
header the destination port, the sequence number of its first byte, the byte with the header's length, and the
flags (FIN 1, SYN 2, RST 4)."""


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP segments in the order in which they came."""

    heads: _Array
    """An array of HEAD."""
    at_ns: _Array
    """When the kernel received each, on the engine's time line (int64)."""
    unsure: _Array
    """Rows of those that may begin or end something: a last chunk, or one too short to tell."""

    def __len__(self) -> int:
        return len(self.heads)


def payload_bytes(heads: _Array) -> _Array:
    """Bytes of the stream in each segment (int64)."""
    version, length = heads["version"], heads["length"].astype(np.int64)
    ipv4 = version >> 4 == 4
    if not length.all():  # 0: a segment merged to 64 KiB or more, whose length only the frame knows
        length = np.where(length == 0, heads["whole"] - np.where(ipv4, 0, _IPV6_BYTES), length)
    # IPv6's length is that of what follows its header.
    found: _Array = length - np.where(ipv4, (version & 15) * 4, 0) - (heads["words"] >> 4) * 4
    return found


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


class EndsTap:
    """Those of the segments that may end something, one by one, over sockets that wake a loop."""

    def __init__(self, ports: range) -> None:
        """Raises OSError as `Tap` does."""
        self.sockets: list[socket.socket] = []
        try:
            for protocol in (_ETH_P_IP, _ETH_P_IPV6):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
                self.sockets.append(sock)
                sock.setblocking(False)
                _attach(sock, _filter(ports, protocol == _ETH_P_IPV6), _RETURNS | {_GOES_ON: 0})
                with contextlib.suppress(OSError):  # without CAP_NET_ADMIN it holds some hundred ends
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ENDS_BYTES)
        except OSError:
            self.close()
            raise

    def take(self) -> list[int]:
        """The local ports of what has come since the last call; what found no room is not among them."""
        ports = []
        for sock in self.sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = sock.recv(_UNSURE_BYTES)
                    tcp_at = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else _IPV6_BYTES
                    ports.append(int.from_bytes(packet[tcp_at + 2 : tcp_at + 4]))
        return ports

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = []


class _Ring:
    """One family's socket and the frames that it shares with the kernel."""

    def __init__(self, protocol: int, ports: range, frames: int) -> None:
        self._ipv6 = protocol == _ETH_P_IPV6
        # What comes before filter and ring are in place waits in the socket's queue, never in the ring.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        try:
            _attach(self.socket, _filter(ports, self._ipv6), _RETURNS)
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
        self._looked_at = _LEAST_AT_ONCE
        self._bytes = np.frombuffer(self._map, dtype=np.uint8).reshape(frames, FRAME_BYTES)
        self._status = self._column("<u4", 0)
        self._captured = self._column("<u4", 8)
        self._seconds = self._column("<u4", 16)
        self._nanoseconds = self._column("<u4", 20)
        ip_bytes = _IPV6_BYTES if self._ipv6 else _IPV4_BYTES
        self._heads = self._column(_head_in_frame(4 if self._ipv6 else 2, ip_bytes), 0)

    def _column(self, kind: Any, offset: int) -> _Array:
        return np.ndarray((self._frames,), kind, self._map, offset, (FRAME_BYTES,))

    def take(self, timeline: Timeline) -> Segments | None:
        """The next frames that lie in a row, given back to the kernel; None when there is none."""
        first = self._head
        if not self._status[first] & 1:
            return None
        # Each look at a frame is a line of memory: not many more than came the last time.
        ready = self._status[first : first + self._looked_at] & 1
        count = len(ready) if ready.all() else int(ready.argmin())
        self._looked_at = min(2 * count + _LEAST_AT_ONCE, _MOST_AT_ONCE)
        rows = slice(first, first + count)
        segments = self._segments(rows, timeline)
        self._status[rows] = 0
        self._head = (first + count) % self._frames
        return segments

    def _segments(self, rows: slice, timeline: Timeline) -> Segments:
        heads = self._heads[rows].astype(HEAD)
        if not self._ipv6 and not (heads["version"] == 0x45).all():
            self._read_behind_options(heads, self._bytes[rows])
        stamps = self._seconds[rows].astype(np.int64) * 1_000_000_000 + self._nanoseconds[rows]
        unsure = (self._captured[rows] != _GOES_ON_BYTES).nonzero()[0]
        return Segments(heads, timeline.of_kernel_stamps(stamps), unsure)

    @staticmethod
    def _read_behind_options(heads: _Array, frames: _Array) -> None:
        """Read the TCP headers where the IP headers end, since some are longer than usual."""
        tcp_at = _NET + (heads["version"] & 15).astype(np.int64) * 4
        tcp = frames[np.arange(len(frames))[:, None], tcp_at[:, None] + np.arange(14)]
        heads["port"] = tcp[:, 2].astype(np.uint16) << 8 | tcp[:, 3]
        heads["seq"] = np.ascontiguousarray(tcp[:, 4:8]).view(">u4")[:, 0]
        heads["words"], heads["flags"] = tcp[:, 12], tcp[:, 13]

    def dropped(self) -> int:
        _, lost = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(lost)

    def close(self) -> None:
        for name in [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]:
            delattr(self, name)  # a mapping can't be closed while arrays look into it
        self._map.close()
        self.socket.close()


def _head_in_frame(length_at: int, ip_bytes: int) -> np.dtype[Any]:
    """HEAD as it lies in a frame whose IP header has so many bytes."""
    tcp_at = _NET + ip_bytes
    places = {"whole": ("<u4", 4), "version": ("u1", _NET), "length": (">u2", _NET + length_at),
              "port": (">u2", tcp_at + 2), "seq": (">u4", tcp_at + 4), "words": ("u1", tcp_at + 12),
              "flags": ("u1", tcp_at + 13)}  # fmt: skip
    formats, offsets = zip(*places.values(), strict=True)
    return np.dtype({"names": list(places), "formats": formats, "offsets": offsets, "itemsize": FRAME_BYTES})


# --- the filter: classic BPF, as packet(7) and the kernel's networking/filter.rst define it ---

_LDH, _LDB, _LDXB_MSH = 0x28, 0x30, 0xB1
_LD_X, _LDH_X, _LDB_X = 0x40, 0x48, 0x50
_JEQ, _JGE, _JGT, _JSET, _JGT_X = 0x15, 0x35, 0x25, 0x45, 0x2D
_ADD, _SUB, _AND, _RSH, _ADD_X, _SUB_X, _TAX, _RET = 0x04, 0x14, 0x54, 0x74, 0x0C, 0x1C, 0x07, 0x06
_RETURNS = {"goes on": _GOES_ON_BYTES, "unsure": _UNSURE_BYTES, "drop": 0}
_GOES_ON, _UNSURE, _DROP = _RETURNS

_Step = tuple[int, str | None, str | None, int]
"""Operation, where to go if true and if false (None: on), constant."""


def _filter(ports: range, ipv6: bool) -> list[_Step]:
    """TCP to these ports: what has a payload, and every SYN, FIN and RST.

    Those three, a last chunk at the payload's end, and what is too short to tell are captured as unsure.
    """
    low, high = ports.start, ports.stop - 1
    if ipv6:
        head: list[_Step] = [(_LDB, None, None, 6), (_JEQ, None, _DROP, 6)]
        port, flags, data = (_LDH, 42), (_LDB, 53), (_LDB, 52)
        length, add_ip, uncounted = 4, [], _IPV6_BYTES
    else:
        head = [
            (_LDB, None, None, 9),
            (_JEQ, None, _DROP, 6),
            (_LDH, None, None, 6),
            (_JSET, _DROP, None, 0x1FFF),  # a later fragment has no TCP header
            (_LDXB_MSH, None, None, 0),
        ]
        port, flags, data = (_LDH_X, 2), (_LDB_X, 13), (_LDB_X, 12)
        length, add_ip, uncounted = 2, [(_ADD_X, None, None, 0)], 0
    steps: list[_Step] = [
        *head,
        (port[0], None, None, port[1]),
        (_JGE, None, _DROP, low),
        (_JGT, _DROP, None, high),
        (flags[0], None, None, flags[1]),
        (_JSET, _UNSURE, None, _FIN | _SYN | _RST),
        (data[0], None, None, data[1]),
        (_RSH, None, None, 2),
        (_AND, None, None, 0x3C),
        *add_ip,
        (_TAX, None, None, 0),
        (_LDH, None, None, length),
        (_JEQ, _UNSURE, None, 0),  # merged to 64 KiB or more
        (_JGT_X, None, _DROP, 0),
        (_SUB_X, None, None, 0),
        (_JGE, None, _UNSURE, _LAST_CHUNK_BYTES),
        (_ADD_X, None, None, 0),
        (_ADD, None, None, uncounted),
        (_SUB, None, None, _LAST_CHUNK_BYTES),
        (_TAX, None, None, 0),
        (_LD_X, None, None, 1),
        (_JEQ, None, _GOES_ON, _EMPTY_LINE),  # many servers end every event with one
        (_LDB_X, None, None, 0),
        (_JEQ, _UNSURE, _GOES_ON, _ZERO),
    ]
    return steps


def _attach(sock: socket.socket, steps: list[_Step], returns: dict[str, int]) -> None:
    """Compile the steps, with the returns (how much is captured) behind them, and give them to the kernel."""
    places = {name: len(steps) + number for number, name in enumerate(returns)}
    code = b""
    for number, (operation, yes, no, constant) in enumerate(steps):
        jumps = (0 if to is None else places[to] - number - 1 for to in (yes, no))
        code += struct.pack("HBBI", operation, *jumps, constant)
    for captured_bytes in returns.values():
        code += struct.pack("HBBI", _RET, 0, 0, captured_bytes)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
