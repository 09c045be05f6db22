"""The engine's loop and how often it looks at its sockets."""

from __future__ import annotations

import selectors
import socket

import pytest

from loadgen.engine._selector import SparingSelector


def test_while_there_is_work_sockets_are_looked_at_again_only_after_a_moment() -> None:
    now_s = 100.0
    ours, theirs = socket.socketpair()
    with ours, theirs, SparingSelector(lambda: now_s) as selector:
        selector.register(ours, selectors.EVENT_READ)
        assert selector.select(0) == []
        theirs.send(b"x")
        now_s += 0.0001
        assert selector.select(0) == [], "it asked a tenth of a millisecond ago"
        now_s += 0.0002
        assert [key.fileobj for key, _ in selector.select(0)] == [ours]


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_loop_without_work_is_told_at_once(timeout: float | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, SparingSelector(lambda: 100.0) as selector:
        selector.register(ours, selectors.EVENT_READ)
        assert selector.select(0) == []
        theirs.send(b"x")
        assert [key.fileobj for key, _ in selector.select(timeout)] == [ours]
