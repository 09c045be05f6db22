"""Messages between Locust and its engine survive any cutting by the socket."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._messages import (
    FROM_ENGINE,
    TO_ENGINE,
    ArrivalSchedule,
    BeginLevel,
    FromEngine,
    Job,
    PlayConversations,
    StartRun,
    ToEngine,
    TurnEnded,
    Unpacker,
    pack,
)
from loadgen.options._settings import Settings

text = st.text(max_size=8)
ms = st.none() | st.floats(0, 1e9)
messages = (
    st.builds(PlayConversations, st.integers(-(2**63), 2**63 - 1))
    | st.builds(
        BeginLevel,
        st.integers(0, 99),
        st.none()
        | st.builds(ArrivalSchedule, st.integers(0, 2**62), st.just(0), st.floats(0, 1e9), st.just([1.0])),
    )
    | st.builds(
        TurnEnded,
        line=st.binary(), task=text, outcome=st.sampled_from(["ok", "stalled"]), done=st.booleans(),
        error=st.none() | text, chars=st.integers(0, 2**40), ttg_ms=ms,
    )
)  # fmt: skip
EITHER: Any = msgspec.msgpack.Decoder(ToEngine | FromEngine)


@given(st.lists(messages, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_messages_cut_anywhere_come_out_whole_and_in_order(sent: list[Any], cuts: list[int]) -> None:
    stream = b"".join(map(pack, sent))
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    unpacker: Unpacker[Any] = Unpacker(EITHER)
    found = []
    for start, end in itertools.pairwise(places):
        found += unpacker.feed(stream[start:end])
    assert found == sent


@given(messages, st.integers(0, 2000))
def test_a_message_comes_out_with_its_last_byte_and_not_before(message: Any, cut: int) -> None:
    stream = pack(message)
    unpacker: Unpacker[Any] = Unpacker(EITHER)
    assert unpacker.feed(stream[: cut % len(stream)]) == []
    assert unpacker.feed(stream[cut % len(stream) :]) == [message]


def test_a_big_message_passes() -> None:
    job = Job(
        run="r", worker=0, workers=1, settings=Settings(host="h"), scenario="x" * 3_000_000, salt="",
        model="m", usage_in_events=False,
    )  # fmt: skip
    assert Unpacker(TO_ENGINE).feed(pack(StartRun(job))) == [StartRun(job)]


def test_no_message_of_one_direction_is_one_of_the_other() -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(ToEngine) + get_args(FromEngine)]
    assert len(set(tags)) == len(tags)
    with pytest.raises(msgspec.ValidationError):
        Unpacker(FROM_ENGINE).feed(pack(PlayConversations(1)))
