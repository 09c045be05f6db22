"""The outbox in virtual time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.emulator import schedules
from serve.emulator.schedules import BATCH, Outbox


@dataclass
class Clock:
    """A reactor whose time passes only when nothing is due."""

    now_ns: int = 0
    entries: list = field(default_factory=list)
    pushed: int = 0

    def at(self, due_ns, action):
        self.pushed += 1
        heapq.heappush(self.entries, (due_ns, self.pushed, action))

    def run(self):
        while self.entries:
            due_ns, _, action = heapq.heappop(self.entries)
            self.now_ns = max(self.now_ns, due_ns)
            again_ns = action(due_ns)
            if again_ns is not None:
                self.at(again_ns, action)


@dataclass
class Stream:
    clock: Clock
    tokens: int = 1
    ended: bool = False
    sent: list = field(default_factory=list)

    def token(self, due_ns):
        self.sent.append((due_ns, self.clock.now_ns))
        return len(self.sent) == self.tokens


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(schedules, "monotonic_ns", lambda: made.now_ns)
    return made


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=80), st.integers(1, 9))
def test_every_token_goes_out_at_its_moment_whatever_the_order_they_were_put_in(wanted, gap_ns):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules, "monotonic_ns", lambda: clock.now_ns)
        outbox = Outbox(clock.at, gap_ns)
        streams = [Stream(clock, tokens) for _, tokens in wanted]
        for stream, (due_ns, _) in zip(streams, wanted, strict=True):
            outbox.put(due_ns, stream)
        clock.run()
    for stream, (due_ns, tokens) in zip(streams, wanted, strict=True):
        moments = [due_ns + gap_ns * number for number in range(tokens)]
        assert stream.sent == [(moment, moment) for moment in moments]


def test_without_a_gap_a_stream_gets_the_one_token_that_was_put(clock):
    outbox, stream = Outbox(clock.at), Stream(clock, tokens=9)
    outbox.put(5, stream)
    clock.run()
    assert stream.sent == [(5, 5)]


def test_a_stream_that_ended_gets_nothing(clock):
    outbox, stream = Outbox(clock.at, 3), Stream(clock, tokens=9)
    outbox.put(5, stream)
    stream.ended = True
    clock.run()
    assert stream.sent == []


def test_a_backlog_is_sent_in_parts_so_that_others_get_their_turn(clock):
    outbox, streams = Outbox(clock.at), [Stream(clock) for _ in range(3 * BATCH)]
    for stream in streams:
        outbox.put(1, stream)
    seen = []
    clock.at(1, lambda _due_ns: seen.append(sum(len(stream.sent) for stream in streams)))
    clock.run()
    assert seen == [BATCH]
    assert all(stream.sent for stream in streams)
