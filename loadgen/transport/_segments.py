"""Which bytes of a connection arrived when: the tap's segments, looked up after a response has ended.

A byte has arrived when all bytes before it have. Segments may come twice, out of order, or never (the ring
was full); sequence numbers wrap at 2^32. Nothing is done for a connection while its segments come: they are
kept in blocks sorted by port, and a response's are picked out of the blocks that came since it was sent.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.transport._tap import Segments, payload_bytes

_BLOCK_SEGMENTS = 16384
"""A response's are picked out block by block: of blocks of half the size that takes a fifth more time."""
_SEQ_BITS = 32
_MOST_SEQ = (1 << _SEQ_BITS) - 1
_SYN = 2
_PORTS = 1 << 16
_NEVER = -1

_Array = npt.NDArray[Any]


class SegmentLog:
    """The segments of one engine's connections, by local port."""

    def __init__(self) -> None:
        self._first_seq = np.zeros(_PORTS, np.uint32)
        self._began_ns = np.full(_PORTS, _NEVER)
        """Of the newest stream to each port the sequence number of its first byte, and when it began.

        In an hour every port may have had one.
        """
        self._blocks: dict[int, tuple[dict[int, int], list[int], _Array]] = {}
        """Whole blocks by number: each port's place, the column at which each place begins and the last ends,
        and the two rows of `_rows`, in a port by arrival."""
        self._ports = np.empty(2 * _BLOCK_SEGMENTS, np.uint16)
        self._rows = np.empty((2, 2 * _BLOCK_SEGMENTS), np.int64)
        """Of the block that is being filled, in the order of arrival: each segment's bytes of the stream,
        with the sequence number of the first of them in the lower 32 bits, and at_ns."""
        self._filled = 0
        self._number = 0

    def add(self, segments: Segments) -> None:
        """Keep what came; a SYN begins a new stream of its port."""
        heads = segments.heads
        for index in segments.unsure:  # a SYN is short
            if heads["flags"][index] & _SYN:
                port = heads["port"][index]
                self._first_seq[port] = (int(heads["seq"][index]) + 1) & _MOST_SEQ
                self._began_ns[port] = segments.at_ns[index]
        seq_and_size = (payload_bytes(heads) << _SEQ_BITS) + heads["seq"]
        for start in range(0, len(heads), _BLOCK_SEGMENTS):
            new = slice(start, start + _BLOCK_SEGMENTS)
            filled = self._filled + len(heads[new])
            self._ports[self._filled : filled] = heads["port"][new]
            self._rows[0, self._filled : filled] = seq_and_size[new]
            self._rows[1, self._filled : filled] = segments.at_ns[new]
            self._filled = filled
            if filled >= _BLOCK_SEGMENTS:
                self._close_block()

    def _close_block(self) -> None:
        order = np.argsort(self._ports[: self._filled], kind="stable")
        ports = self._ports[order]
        first = np.flatnonzero(np.diff(ports, prepend=~ports[:1]))
        place_of = {port: place for place, port in enumerate(ports[first].tolist())}
        bounds = [*first.tolist(), self._filled]
        self._blocks[self._number] = place_of, bounds, self._rows.take(order, axis=1)
        self._number += 1
        self._filled = 0

    def __len__(self) -> int:
        return sum(len(rows[0]) for _, _, rows in self._blocks.values()) + self._filled

    def mark(self) -> int:
        """Now, as a place in the log: what comes from here on is found from this mark on."""
        return self._number

    def forget_before(self, mark: int) -> None:
        """Let go of blocks that no open response needs."""
        for number in [number for number in self._blocks if number < mark]:
            del self._blocks[number]

    def arrivals(self, port: int, skipped_bytes: int, mark: int, wanted_bytes: int) -> Columns | None:
        """(ends, at_ns) of the response that begins after `skipped_bytes` of the stream to `port`.

        Offset `ends[i]` of the response, and all before it, had arrived at `at_ns[i]`; both rise. The last is
        that of byte `wanted_bytes`: what came after it is the next response's. None where a part of those
        bytes was never seen, or the stream's beginning was not.
        """
        first_seq, began_ns = int(self._first_seq[port]), int(self._began_ns[port])
        if began_ns == _NEVER:
            return None
        parts = [
            rows[:, bounds[place] : bounds[place + 1]]
            for number, (place_of, bounds, rows) in self._blocks.items()
            if number >= mark and (place := place_of.get(port)) is not None
        ]
        here = np.flatnonzero(self._ports[: self._filled] == port)
        mine = np.concatenate([*parts, self._rows.take(here, axis=1)], axis=1)
        if not mine.size:
            return None
        if np.minimum.reduce(mine[1]) < began_ns:  # some are of a connection before this one
            mine = mine[:, mine[1] >= began_ns]
        seq, size_bytes = mine[0] & _MOST_SEQ, mine[0] >> _SEQ_BITS
        ends, at_ns = in_order((first_seq + skipped_bytes) & _MOST_SEQ, seq, size_bytes, mine[1])
        last = int(ends.searchsorted(wanted_bytes))
        return (ends[: last + 1], at_ns[: last + 1]) if last < len(ends) else None


Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def in_order(start_seq: int, seq: _Array, size_bytes: _Array, at_ns: _Array) -> Columns:
    """(ends, at_ns) of a stream whose byte 0 has sequence number `start_seq`, from segments as they came.

    One entry for each segment by which more of the stream was whole. Segments before byte 0, empty ones and
    those that bring nothing new have none. Offsets are taken modulo 2^32 and lie within 2^31 of byte 0.
    """
    starts = (seq - start_seq).astype(np.int32).astype(np.int64)  # the first of the two cuts off 2^32
    ends = starts + size_bytes
    first = int(ends.searchsorted(1))
    new: Any = slice(first, None)  # as they come nearly always: in order, none empty
    if np.count_nonzero(ends[:first] > 0) or np.count_nonzero(size_bytes[new]) < len(ends) - first:
        new = (size_bytes > 0) & (ends > 0)
    starts, ends, at_ns = starts[new], ends[new], at_ns[new]
    if len(starts) and starts[0] <= 0 and starts[1:].tobytes() == ends[:-1].tobytes():
        return ends, at_ns
    return _reassembled(starts, ends, at_ns)


def _reassembled(starts: _Array, ends: _Array, at_ns: _Array) -> Columns:
    whole = 0
    waiting: list[tuple[int, int]] = []
    found_ends: list[int] = []
    found_at_ns: list[int] = []
    for start, end, at in zip(starts.tolist(), ends.tolist(), at_ns.tolist(), strict=True):
        heapq.heappush(waiting, (start, end))
        before = whole
        while waiting and waiting[0][0] <= whole:
            whole = max(whole, heapq.heappop(waiting)[1])
        if whole > before:
            found_ends.append(whole)
            found_at_ns.append(at)
    return np.array(found_ends, dtype=np.int64), np.array(found_at_ns, dtype=np.int64)
