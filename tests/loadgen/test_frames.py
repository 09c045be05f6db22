"""Messages between Locust and its engine survive any cutting by the socket."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loadgen._frames import Unpacker, pack

values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
messages = st.dictionaries(st.text(max_size=8), values | st.lists(values, max_size=3), max_size=4)


@given(st.lists(messages, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_messages_cut_anywhere_come_out_whole_and_in_order(
    sent: list[dict[str, Any]], cuts: list[int]
) -> None:
    wire = b"".join(map(pack, sent))
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    unpacker = Unpacker()
    found = []
    for start, end in itertools.pairwise(places):
        found += unpacker.feed(wire[start:end])
    assert found == sent


@given(messages, st.integers(0, 2000))
def test_a_message_comes_out_with_its_last_byte_and_not_before(message: dict[str, Any], cut: int) -> None:
    wire = pack(message)
    unpacker = Unpacker()
    assert unpacker.feed(wire[: cut % len(wire)]) == []
    assert unpacker.feed(wire[cut % len(wire) :]) == [message]


def test_a_big_message_passes() -> None:
    message = {"op": "job", "scenario": "x" * 3_000_000}
    assert Unpacker().feed(pack(message)) == [message]
