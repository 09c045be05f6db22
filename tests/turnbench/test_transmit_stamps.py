"""The kernel's word for when a request left."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

import pytest

from turnbench.clock import (
    ANCILLARY_BYTES,
    Timeline,
    ask_for_stamps,
    ask_for_transmit_stamps,
    kernel_stamp_ns,
    transmit_stamps,
)


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        ours = socket.create_connection(server.getsockname()[:2])
        theirs, _ = server.accept()
        with ours, theirs:
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield ours, theirs


def test_a_send_is_stamped_between_its_call_and_its_return_and_counted_to_its_last_byte(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = pair
    assert ask_for_transmit_stamps(ours)
    for sent_bytes in (10, 110):
        before_ns = time.time_ns()
        ours.send(b"x" * (10 if sent_bytes == 10 else 100))
        after_ns = time.time_ns()
        [(counted, stamp_ns)] = transmit_stamps(ours)
        assert counted == sent_bytes
        assert before_ns <= stamp_ns <= after_ns
    assert list(transmit_stamps(ours)) == []


def test_a_read_still_has_its_own_stamp_once_sends_are_stamped(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ask_for_stamps(ours)
    ask_for_transmit_stamps(ours)
    ours.send(b"question")
    timeline, stamp = Timeline(), None
    for _ in range(100):  # the first socket of a system that asks is stamped some milliseconds later
        theirs.send(b"answer")
        _, ancillary, flags, _ = ours.recvmsg(100, ANCILLARY_BYTES)
        assert not flags & socket.MSG_CTRUNC
        stamp = stamp or kernel_stamp_ns(ancillary)
    assert stamp is not None
    assert timeline.of_kernel_stamp(stamp)[1] < 10**9


def test_a_taken_stamp_wakes_nobody_any_more(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ask_for_transmit_stamps(ours)
    with select.epoll() as poll:
        poll.register(ours.fileno(), select.EPOLLIN)
        ours.send(b"question")
        assert poll.poll(1) == [(ours.fileno(), select.EPOLLERR)]
        list(transmit_stamps(ours))
        assert poll.poll(0) == []
