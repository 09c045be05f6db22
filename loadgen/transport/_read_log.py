"""What a request's connection received, and when: raw reads first, sense made of them after the stream."""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from turnbench.outcomes import Outcome

Problem = tuple[Outcome, str]
DECODED_BYTES = 64 << 20
"""What a compressed body may come to: a bomb of a few hundred KiB could fill the memory and hold the loop."""
_SIZE_DIGITS = 15
"""Hexadecimal digits of a chunk's size that can be meant: more than 60 bits never are."""
# int() alone would take signs, underscores and 0x; a negative size would lead backwards for ever.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")


@dataclass(slots=True)
class ReadLog:
    """The log of one request: what came, and of each read its end, its arrival and the client's lag.

    Kept in columns, not as an object a read: hundreds of streams' objects are more than a core's cache holds.
    """

    raw: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("q"))
    """Offset in `raw` at which each read ends."""
    at_ns: array[int] = field(default_factory=lambda: array("q"))
    lag_ns_max: int = 0
    unstamped: bool = False
    """Whether the kernel left a read without a stamp, so that our own clock stands for it."""
    on_wire: bool = False
    """Whether `ends` and `at_ns` are those of packets, and not of reads."""
    read_ends: array[int] | None = None
    read_at_ns: array[int] | None = None
    """Those of the reads, once packets have taken their place."""
    read_seldom: bool = False
    """Whether reads were put off, so that their times say nothing about what the client can do."""
    port: int | None = None
    """The local port, where the wire clock sees it."""
    look_up: Callable[[ReadLog], None] | None = None
    """Takes the arrivals from the wire, once the response is over; None: there is nothing to take."""
    records: RecordSplitter | None = None
    """Under TLS with a wire clock: what was decrypted out of which ciphertext."""
    deferred_from: int | None = None
    """Offset from which on all is kept back from aiohttp until the stream's end; None: nothing is."""
    sent_ns: int | None = None
    """When the request's last byte left: the kernel's transmit stamp, else a moment before the call."""
    sent_by_kernel: bool = False
    write_ns: int | None = None
    """When the call that handed the last byte to the kernel had returned."""
    _sent_through_bytes: int = 0
    connect_ns: int = 0
    """Time that opening the connection took; 0: a reused one."""
    reused: bool = False
    reset: OSError | None = None
    """The error with which the connection broke, if it did not end cleanly."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the stream looks whole, or its connection ended."""
    plain: PlainBody | None = None
    """The body, once it is here whole and of the plain form."""
    ahead: PlainBody | None = None
    """As much of it as was read while the rest still came."""
    on_more: Callable[[], None] | None = None
    """Called when more has come than was asked for."""
    more_at: int = sys.maxsize
    connection: Any = None
    """The connection that carries the request, once there is one: `_http.StampedHandler`."""

    def add(self, data: bytes | memoryview, arrival_ns: int, lag_ns: int) -> None:
        raw = self.raw
        raw += data
        self.ends.append(len(raw))
        self.at_ns.append(arrival_ns)
        if lag_ns > self.lag_ns_max:
            self.lag_ns_max = lag_ns
        if len(raw) > self.more_at and not self.has_last_chunk():
            self._more_has_come()
        if self.records is not None:
            self.records.decrypted(len(raw))

    def ask_for_more(self, than_bytes: int) -> None:
        """Have `on_more` called, once, when more than so many bytes have come; they may be here already."""
        self.more_at = than_bytes
        if len(self.raw) > than_bytes:
            self._more_has_come()

    def _more_has_come(self) -> None:
        self.more_at = sys.maxsize
        if self.on_more is not None:
            self.on_more()

    def take_plain(self) -> None:
        """The body is here whole: see whether it is of the plain form."""
        ahead, self.ahead = self.ahead, None
        if ahead is None:
            self.plain = plain_body(self.raw)
        elif ahead.grow(self.raw) and ahead.is_whole(self.raw):
            self.plain = ahead

    def stop_reading_ahead(self) -> None:
        self.ahead = self.on_more = None

    def settle(self) -> None:
        """The response is over: take the arrivals from the wire, if they are there."""
        look_up, self.look_up = self.look_up, None
        if look_up is not None:
            look_up(self)

    def take_arrivals(self, ends: npt.NDArray[np.int64], at_ns: npt.NDArray[np.int64]) -> None:
        """Replace the reads by the packets: those of the ciphertext, where that is what came."""
        if self.records is not None:
            ends, at_ns = self.records.arrivals(ends, at_ns)
        self.read_ends, self.read_at_ns = self.ends, self.at_ns
        self.ends, self.at_ns = array("q", ends.tobytes()), array("q", at_ns.tobytes())
        self.on_wire, self.unstamped, self.lag_ns_max = True, False, 0

    def will_send(self, now_ns: int, through_bytes: int) -> None:
        """A part of the request is about to be written, up to this byte of its connection's stream."""
        self.sent_ns, self.sent_by_kernel, self._sent_through_bytes = now_ns, False, through_bytes

    def was_sent(self, sent_bytes: int, at_ns: int) -> None:
        """The kernel had transmitted so many bytes of the stream (modulo 2^32) then; the first counts."""
        covers = (sent_bytes - self._sent_through_bytes) % (1 << 32) < 1 << 31
        if covers and not self.sent_by_kernel and self.sent_ns is not None:
            self.sent_ns, self.sent_by_kernel = at_ns, True

    def may_have_ended(self) -> bool:
        """Whether what came can be the whole of a chunked body: its end is an empty line."""
        return self.raw.endswith(b"\r\n\r\n")

    def has_last_chunk(self) -> bool:
        """Whether what came ends as nearly every chunked body does: with the empty chunk, and no trailer."""
        return self.raw.endswith(b"\r\n0\r\n\r\n")

    def reads_of(self, ends: npt.ArrayLike) -> list[int]:
        """Index of the read, or packet, that brought the byte just before each offset."""
        found: list[int] = np.frombuffer(self.ends, dtype=np.int64).searchsorted(ends).tolist()
        return found

    def read_after_ns(self, packet: int) -> int | None:
        """How much later than this packet its last byte was read; None where reads are all there is, or late
        on purpose."""
        if self.read_ends is None or self.read_at_ns is None or self.read_seldom:
            return None
        read = bisect_left(self.read_ends, self.ends[packet])
        return self.read_at_ns[min(read, len(self.read_at_ns) - 1)] - self.at_ns[packet]

    def read_of(self, end: int) -> int:
        """Index of the read that brought the byte just before offset `end` (at least 1)."""
        return bisect_left(self.ends, end)


class RecordSplitter:
    """Cuts ciphertext into TLS records, and keeps which plaintext came out of which.

    A record is decrypted when all of it is there, so its plaintext arrived with its last byte. Records of
    other kinds (handshake, new keys) give no plaintext.
    """

    def __init__(self) -> None:
        self.passed_bytes = 0
        """Ciphertext handed on so far."""
        self._open = b""
        self._cipher_ends: list[int] = []
        self._plain_ends: list[int] = []

    def split(self, data: bytes) -> Iterator[bytes]:
        """Whole records; what is left waits for its rest. Each must be decrypted before the next is asked."""
        data = self._open + data
        start = 0
        while len(data) - start >= _RECORD_HEAD_BYTES:
            end = start + _RECORD_HEAD_BYTES + int.from_bytes(data[start + 3 : start + 5])
            if end > len(data):
                break
            self.passed_bytes += end - start
            record, start = data[start:end], end
            yield record
        self._open = data[start:]

    def rest(self) -> bytes:
        """What no record was whole of; it is given out once."""
        rest, self._open = self._open, b""
        return rest

    def decrypted(self, plain_bytes: int) -> None:
        """The record at hand brought the plaintext to so many bytes."""
        self._cipher_ends.append(self.passed_bytes)
        self._plain_ends.append(plain_bytes)

    def arrivals(self, ends: npt.NDArray[np.int64], at_ns: npt.NDArray[np.int64]) -> Arrivals:
        """(ends, at_ns) of the plaintext, from those of the ciphertext."""
        found = at_ns[np.searchsorted(ends, np.array(self._cipher_ends, dtype=np.int64))]
        return np.array(self._plain_ends, dtype=np.int64), found


Arrivals = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_RECORD_HEAD_BYTES = 5


@dataclass(frozen=True, slots=True)
class Body:
    """A response's body and the read that completed each byte of it."""

    data: bytes
    _ends: list[int]
    """Body offset at which piece i ends."""
    _shifts: list[int]
    """What to add to a body offset in piece i to have the raw offset."""
    _raw_ends: Sequence[int]
    """Raw offset at which read i ends."""
    problem: tuple[Outcome, str] | None = None
    """Why it ends here, where more came that can't be read."""

    def reads_of(self, ends: list[int]) -> list[int]:
        """Index of the read that brought the byte just before each body offset; these rise, from 1 on."""
        piece = read = 0
        reads: list[int] = []
        for end in ends:
            while self._ends[piece] < end:
                piece += 1
            raw_end = end + self._shifts[piece]
            while self._raw_ends[read] < raw_end:
                read += 1
            reads.append(read)
        return reads


@dataclass(slots=True)
class PlainBody:
    """A chunked body, as far as it has come, with one event a chunk and one `data:` line an event.

    Nearly every server sends its streams so; what is not exactly of this form goes the general way, by
    `body_of` and the grammar of server-sent events.
    """

    start: int
    """Raw offset of the first chunk."""
    events: list[bytes] = field(default_factory=list)
    """The data of each event."""
    _sizes: array[int] = field(default_factory=lambda: array("q"))
    """Bytes of each event's data."""
    read_to: int = 0
    """Raw offset of the first chunk that is not read yet."""

    def __post_init__(self) -> None:
        self.read_to = self.start

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Raw offset just after each event, where the chunk's own line end follows."""
        sizes = np.frombuffer(self._sizes, dtype=np.int64)
        digits = 1 + _LONGER_SIZES.searchsorted(sizes + _FRAME_BYTES, side="right")
        return np.cumsum(sizes + digits + _BESIDE_BYTES) + (self.start - _CHUNK_END_BYTES)

    def grow(self, raw: bytes | bytearray) -> bool:
        """Read on, in a few passes over what came; whether all whole chunks are of the plain form."""
        end, most = raw.rfind(_EVENT_END, self.read_to), _MOST_PLAIN_EVENTS - len(self.events)
        if end < 0:
            return True
        with memoryview(raw) as view:
            new = b"".join((_EVENT_END, view[self.read_to : end]))
        parts = _BETWEEN_EVENTS.split(new, most) if most > 0 else [new]
        if parts[0]:
            return False
        events = parts[2::2]
        sizes = list(map(len, events))
        if parts[1::2] != list(map(_size_in_line, sizes)):
            return False
        data = b"".join(events)
        if b"\n" in data or b"\r" in data:
            return False
        self.events += events
        self._sizes.extend(sizes)
        self.read_to = end + len(_EVENT_END)
        return True

    def is_whole(self, raw: bytes | bytearray) -> bool:
        """Whether all that follows is the last chunk."""
        return raw[self.read_to :] == LAST_CHUNK

    def ends_of(self, events: list[int]) -> npt.NDArray[np.int64]:
        """Those of these events, whose places rise; nearly always they lie in a row."""
        in_a_row = events and events[-1] - events[0] == len(events) - 1
        found: npt.NDArray[np.int64] = self.ends[slice(events[0], events[-1] + 1) if in_a_row else events]
        return found

    def next_chunk(self, raw: bytes | bytearray, offset: int) -> int | None:
        """The first raw offset from `offset` on at which a chunk begins; None: none does."""
        if offset <= self.start:
            return self.start
        end = raw.find(_EVENT_END, max(offset - len(_EVENT_END), self.start))
        return None if end < 0 else end + len(_EVENT_END)


_CHUNK_END_BYTES = 2
_EVENT_END = b"\n\n\r\n"
"""The end of an event, and of the chunk that it is."""
_BETWEEN_EVENTS = re.compile(rb"\n\n\r\n([0-9a-f]+)\r\ndata: ")
_FRAME_BYTES = len(b"data: \n\n")
_BESIDE_BYTES = _FRAME_BYTES + 2 * _CHUNK_END_BYTES
"""What a chunk has beside its event's data and the digits of its size."""
_LONGER_SIZES = 16 ** np.arange(1, _SIZE_DIGITS)
"""The least sizes of two digits, of three and so on."""
_MOST_PLAIN_EVENTS = 100_000
"""More take long to read, and are not read while others wait."""
LAST_CHUNK = b"0\r\n\r\n"


def plain_body(raw: bytes | bytearray) -> PlainBody | None:
    """The body of a whole response; None where it is not of the plain form."""
    start = head_end(raw)
    if start is None:
        return None
    plain = PlainBody(start)
    return plain if plain.grow(raw) and plain.is_whole(raw) else None


@lru_cache(maxsize=4096)
def _size_in_line(data_bytes: int) -> bytes:
    """A plain chunk's size in its line, by the bytes of its event's data."""
    return b"%x" % (data_bytes + _FRAME_BYTES)


_COMPRESSED = ("gzip", "x-gzip", "deflate")


def head_end(raw: bytes | bytearray) -> int | None:
    """Offset at which the final response's headers end (interim 1xx responses are passed over), or None."""
    start = 0
    while (end := raw.find(b"\r\n\r\n", start)) >= 0:
        end += 4
        if raw[start + 9 : start + 10] != b"1":
            return end
        start = end
    return None


def body_of(log: ReadLog, chunked: bool, encoding: str = "identity") -> Body:
    """The body as far as it came and can be read."""
    raw, raw_ends = bytes(log.raw), log.ends
    start = head_end(raw)
    if start is None:
        return Body(b"", [0], [0], raw_ends)
    pieces, problem = _chunks(raw, start) if chunked else ([(start, len(raw))], None)
    coding = encoding.strip().lower()
    if coding in _COMPRESSED:
        return _inflated(raw, pieces, raw_ends, problem)
    if coding not in ("", "identity"):
        what = f"Content-Encoding {encoding[:40]!a} cannot be read; identity was asked for"
        return Body(b"", [0], [0], raw_ends, ("bad_json", what))
    data = b"".join([raw[a:b] for a, b in pieces])
    ends = list(accumulate(b - a for a, b in pieces))
    shifts = [b - end for (_, b), end in zip(pieces, ends, strict=True)]
    return Body(data, ends or [0], shifts or [start], raw_ends, problem)


def _chunks(raw: bytes, position: int) -> tuple[list[tuple[int, int]], Problem | None]:
    """Raw (start, end) of the data of every chunk, and what ended them where that is no HTTP/1.1.

    The last chunk may be cut short by the end of the stream.
    """
    pieces: list[tuple[int, int]] = []
    size_line, total = _SIZE_LINE.match, len(raw)
    while line := size_line(raw, position):
        digits = line.group(1).lstrip(b"0")
        if len(digits) > _SIZE_DIGITS:
            return pieces, ("bad_json", f"chunk size {digits[:40]!r} is beyond 64 bits")
        length = int(digits or b"0", 16)
        if length == 0:
            return pieces, None
        start = line.end()
        if start >= total:
            return pieces, None
        pieces.append((start, min(start + length, total)))
        position = start + length + 2
    if position < total and (line_end := raw.find(b"\r\n", position)) >= 0:
        sample = raw[position:line_end][:40]
        return pieces, ("bad_json", f"chunk size {sample!r} is not a hexadecimal number")
    return pieces, None


def _inflated(
    raw: bytes, pieces: list[tuple[int, int]], raw_ends: Sequence[int], problem: Problem | None
) -> Body:
    """A gzip or deflate body, decoded read by read so that each byte keeps its arrival."""
    inflate = zlib.decompressobj(wbits=47)
    out: list[bytes] = []
    raw_positions: list[int] = []
    room = DECODED_BYTES
    for a, b in _cuts(pieces, raw_ends):
        try:
            part = inflate.decompress(raw[a:b], room)
        except zlib.error as error:
            problem = "bad_json", f"compressed body can't be decoded: {error}"
            break
        room -= len(part)
        if inflate.unconsumed_tail or room <= 0:
            problem = "oversized", f"over {DECODED_BYTES >> 20} MiB in one reply when decompressed"
            break
        out.append(part)
        raw_positions.append(b)
    ends = list(accumulate(map(len, out)))
    # Every byte of a decoded part counts as arrived with the last raw byte that was needed for it. So the
    # pieces are the decoded parts themselves, and each read is mapped to the decoded length it completed.
    decoded = [0] * len(raw_ends)
    for end, position in zip(ends, raw_positions, strict=True):
        decoded[bisect_left(raw_ends, position)] = end
    pieces_count = max(len(ends), 1)
    data, reads = b"".join(out), list(accumulate(decoded, max))
    return Body(data, ends or [0], [0] * pieces_count, reads, problem)


def _cuts(pieces: list[tuple[int, int]], raw_ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pieces, cut where a read ended."""
    for start, end in pieces:
        first, last = bisect_right(raw_ends, start), bisect_left(raw_ends, end)
        yield from pairwise([start, *raw_ends[first:last], end])
