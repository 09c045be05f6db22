"""Arrivals out of segments: against a plain reassembler, byte by byte."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadgen.transport._segments import SegmentLog, in_order
from loadgen.transport._tap import HEAD, Segments, payload_bytes

SEGMENTS = st.lists(st.tuples(st.integers(-40, 200), st.integers(0, 60)), max_size=40)


def plain(start_seq: int, segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(end, time) of each step by which the stream became whole further, a byte at a time."""
    seen: set[int] = set()
    whole, found = 0, []
    for at, (offset, size) in enumerate(segments):
        seen |= set(range(offset, offset + size))
        before = whole
        while whole in seen:
            whole += 1
        if whole > before:
            found.append((whole, at))
    return found


@given(start_seq=st.integers(0, 2**32 - 1), segments=SEGMENTS)
def test_a_byte_has_arrived_when_all_before_it_have(start_seq: int, segments: list[tuple[int, int]]) -> None:
    seq = np.array([(start_seq + offset) % 2**32 for offset, _ in segments], dtype=np.int64)
    sizes = np.array([size for _, size in segments], dtype=np.int64)
    ends, at_ns = in_order(start_seq, seq, sizes, np.arange(len(segments), dtype=np.int64))
    assert list(zip(ends.tolist(), at_ns.tolist(), strict=True)) == plain(start_seq, segments)


def segments(port: int, seq: list[int], sizes: list[int], at_ns: list[int], flags: int = 24) -> Segments:
    heads = np.zeros(len(seq), HEAD)
    heads["version"], heads["words"] = 0x45, 8 << 4
    heads["port"], heads["flags"] = port, flags
    heads["seq"] = [each % 2**32 for each in seq]
    heads["length"] = [20 + 32 + size for size in sizes]
    return Segments(heads, np.array(at_ns, np.int64), np.arange(len(seq)))


def test_a_reused_connection_finds_its_second_response_behind_the_first_also_over_the_wrap() -> None:
    log, first = SegmentLog(), 2**32 - 100
    log.add(segments(7, [first - 1], [0], [1], flags=18))
    log.add(segments(7, [first, first + 60], [60, 40], [10, 20]))
    log.add(segments(8, [5], [1000], [15]))
    log.add(segments(7, [first + 100, first + 150], [50, 50], [30, 40]))
    found = log.arrivals(7, 100, log.mark(), 100)
    assert found is not None
    assert [column.tolist() for column in found] == [[50, 100], [30, 40]]
    late = log.arrivals(7, 0, 0, 100)
    assert late is not None
    assert [column.tolist() for column in late] == [[60, 100], [10, 20]], "the second one's are not its own"


def test_a_hole_gives_no_arrivals_and_what_came_after_the_hole_is_closed_counts_from_then() -> None:
    log = SegmentLog()
    log.add(segments(7, [99], [0], [1], flags=18))
    log.add(segments(7, [100, 300], [100, 100], [10, 30]))
    assert log.arrivals(7, 0, 0, 300) is None
    log.add(segments(7, [200], [100], [40]))
    found = log.arrivals(7, 0, 0, 300)
    assert found is not None
    assert [column.tolist() for column in found] == [[100, 300], [10, 40]]


def test_a_stream_whose_beginning_was_not_seen_gives_no_arrivals() -> None:
    log = SegmentLog()
    log.add(segments(7, [100], [100], [10]))
    assert log.arrivals(7, 0, 0, 100) is None


def test_a_port_that_another_connection_had_before_gives_only_the_new_ones_arrivals() -> None:
    log = SegmentLog()
    log.add(segments(7, [999], [0], [1], flags=18))
    log.add(segments(7, [1000, 1100], [100, 100], [10, 20]))
    log.add(segments(7, [1049], [0], [30], flags=18))
    log.add(segments(7, [1050], [100], [40]))
    found = log.arrivals(7, 0, 0, 100)
    assert found is not None
    assert [column.tolist() for column in found] == [[100], [40]]


def test_whole_blocks_are_searched_as_the_open_one_is_and_old_ones_can_be_let_go() -> None:
    log = SegmentLog()
    log.add(segments(7, [0], [0], [0], flags=18))
    for first in range(0, 20_000, 100):
        steps = range(first, first + 100)
        for port in (7, 8, 9, 10):
            log.add(segments(port, [1 + step * 10 for step in steps], [10] * 100, list(steps)))
    found = log.arrivals(7, 0, 0, 200_000)
    assert found is not None
    assert found[0].tolist() == list(range(10, 200_010, 10))
    assert found[1].tolist() == list(range(20_000))
    log.forget_before(log.mark())
    assert log.arrivals(7, 0, 0, 200_000) is None


def test_the_payload_is_what_headers_of_either_family_leave_also_of_merged_segments() -> None:
    heads = np.zeros(4, HEAD)
    heads["version"] = 0x45, 0x47, 0x60, 0x45
    heads["words"] = 0x80
    heads["length"] = 152, 152, 152, 0
    heads["whole"] = 152, 152, 192, 70_000
    assert payload_bytes(heads).tolist() == [100, 92, 120, 69_948]
