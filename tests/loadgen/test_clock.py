"""The time line, and the kernel's stamps on it."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.transport._reader import StampedReader
from turnbench.clock import (
    _SCM_TIMESTAMPNS,
    _TIMESPEC,
    ANCILLARY_BYTES,
    Timeline,
    ask_for_stamps,
    keep_stamps_on,
    kernel_stamp_ns,
)

SECOND_NS = 1_000_000_000
needs_kernel_stamps = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps arrivals")


@dataclass
class Clocks:
    """Two clocks under the test's control."""

    monotonic_ns: int = 5 * SECOND_NS
    realtime_ns: int = 1_700_000_000 * SECOND_NS

    def timeline(self) -> Timeline:
        return Timeline(lambda: self.monotonic_ns, lambda: self.realtime_ns)

    def pass_ns(self, elapsed_ns: int) -> None:
        self.monotonic_ns += elapsed_ns
        self.realtime_ns += elapsed_ns

    def step_wall_clock(self, step_ns: int) -> None:
        self.realtime_ns += step_ns


def test_the_time_line_starts_at_the_wall_clock() -> None:
    clocks = Clocks()
    assert clocks.timeline().now_ns() == clocks.realtime_ns


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**15))
def test_a_stepped_wall_clock_bends_no_interval(step_ns: int, elapsed_ns: int) -> None:
    clocks = Clocks()
    timeline = clocks.timeline()
    before = timeline.now_ns()
    clocks.step_wall_clock(step_ns)
    clocks.pass_ns(elapsed_ns)
    assert timeline.now_ns() - before == elapsed_ns


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**12))
def test_a_stamp_made_after_a_step_is_as_old_as_the_kernel_says(step_ns: int, age_ns: int) -> None:
    clocks = Clocks()
    timeline = clocks.timeline()
    clocks.step_wall_clock(step_ns)
    clocks.pass_ns(SECOND_NS)
    stamp_ns = clocks.realtime_ns
    arrived_ns = timeline.now_ns()
    clocks.pass_ns(age_ns)
    assert timeline.of_kernel_stamp(stamp_ns) == (arrived_ns, age_ns)


def test_a_stamp_from_the_future_counts_as_now() -> None:
    clocks = Clocks()
    timeline = clocks.timeline()
    stamp_ns = clocks.realtime_ns
    clocks.step_wall_clock(-SECOND_NS)
    assert timeline.of_kernel_stamp(stamp_ns) == (timeline.now_ns(), 0)


def test_other_ancillary_data_are_no_stamp() -> None:
    assert kernel_stamp_ns([]) is None
    assert kernel_stamp_ns([(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(16))]) is None


@needs_kernel_stamps
def test_the_kernel_stamps_between_send_and_read() -> None:
    near, far = _tcp_pair()
    with near, far, keep_stamps_on():
        ask_for_stamps(near)
        before_ns = time.time_ns()
        far.send(b"x")
        after_ns = time.time_ns()
        time.sleep(0.05)  # the reader is late; the stamp must not be
        _, ancillary, _, _ = near.recvmsg(10, ANCILLARY_BYTES)
        stamp_ns = kernel_stamp_ns(ancillary)
    assert stamp_ns is not None
    assert before_ns <= stamp_ns <= after_ns + 10_000_000


@needs_kernel_stamps
def test_the_first_arrival_of_every_connection_is_stamped() -> None:
    """Without a socket that keeps the stamps on, about every eighth first arrival carries none."""
    for _ in range(60):
        near, far = _tcp_pair()
        with near, far, keep_stamps_on():
            ask_for_stamps(near)
            far.send(b"x")
            assert kernel_stamp_ns(near.recvmsg(10, ANCILLARY_BYTES)[1]) is not None
        time.sleep(0.01)  # the kernel switches them off again


@needs_kernel_stamps
@pytest.mark.parametrize("step_ns", [-3600 * SECOND_NS, 3600 * SECOND_NS])
async def test_a_step_during_a_run_moves_no_arrival_of_the_reader(step_ns: int) -> None:
    """The reader must ask the time line, which reads both clocks at once, and not a clock of its own."""
    stepped = [0]
    timeline = Timeline(time.monotonic_ns, lambda: time.time_ns() + stepped[0])
    stepped[0] = step_ns
    reader = StampedReader(asyncio.get_running_loop(), timeline, kernel_clock=True)
    try:
        stamp_ns = time.time_ns() + step_ns - 40_000_000
        reader._stamp(_ancillary(stamp_ns), None)
        assert 40_000_000 <= reader.lag_ns < 60_000_000
        assert timeline.now_ns() - reader.arrival_ns < 80_000_000
    finally:
        reader.close()


def _ancillary(stamp_ns: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, _SCM_TIMESTAMPNS, _TIMESPEC.pack(*divmod(stamp_ns, SECOND_NS)))]


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    return near, far
