"""An answer is read while it comes, event by event where few come; what it says does not depend on that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from loadgen.dialects import _chat
from loadgen.transport._read_log import PlainBody
from turnbench.formats import TurnRecord

TEXTS = [f"{'a long word ' * 10}{number}" for number in range(200)]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
THOUGHT = {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}
ERROR = {"error": {"message": "out of memory"}}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each look at an answer that still comes, whether it was of any use."""
    looks: list[bool] = []
    take = _chat._Reading.take
    monkeypatch.setattr(_chat._Reading, "take", lambda *given: looks.append(found := take(*given)) or found)
    return looks


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At each look at a body, how much of it had come."""
    found: list[int] = []
    grow = PlainBody.grow
    monkeypatch.setattr(PlainBody, "grow", lambda *given: found.append(len(given[1])) or grow(*given))
    return found


@pytest.fixture
def many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where many people are at work: no event is read by itself."""
    monkeypatch.setattr("loadgen.transport._work._MOST_EVENTS", 0)


def chunks(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events)


async def played(play: Any, end: list[Any], waits: Callable[[], bool], **settings: Any) -> TurnRecord:
    """The record of an answer whose end comes once this is so; `end` are its last events, None a break."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for text in TEXTS:
            await peer.chunk(peer.words(text))
        while not waits():
            await asyncio.sleep(0.002)
        for each in end:
            if each is None:
                return
            await peer.chunk(peer.event(each))
        await peer.finish(b"")

    return (await play(script, keep_text=True, **settings)).record


STOPS = [
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 200}},
    "[DONE]",
]


@pytest.mark.usefixtures("many_events")
@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (STOPS, "ok"),
        ([THOUGHT] * 12 + STOPS, "ok"),
        ([{"choices": [{"index": 1, "delta": {"content": "other"}}]}, *STOPS], "ok"),
        ([ERROR, "[DONE]"], "server_error"),
        (["{", *STOPS], "bad_json"),
        ([None], "truncated"),
        (STOPS[:1], "ok"),
    ],
    ids=["plain", "thoughts at its end", "two choices", "an error", "no JSON", "a break", "no mark"],
)
async def test_an_answer_that_was_read_while_it_came_says_what_it_says_as_a_whole(
    play: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch, end: list[Any], outcome: str
) -> None:
    ahead = await played(play, end, lambda: bool(taken))
    assert taken[0], "it was read while it came"
    monkeypatch.setattr("loadgen.transport._exchange._AHEAD_BYTES", 1 << 30)
    whole = await played(play, end, lambda: True)
    assert ahead.outcome == outcome
    assert alike(ahead) == alike(whole)


def alike(record: TurnRecord) -> dict[str, Any]:
    """A record without what two turns never share."""
    own = ("due_ns", "sent_ns", "write_ns", "head_ns", "end_ns", "event_us", "read_after_us", "connect_us",
           "coalesced", "lag_us_max", "run")  # fmt: skip
    return {name: value for name, value in structs.asdict(record).items() if name not in own}


@pytest.mark.usefixtures("many_events")
async def test_an_answer_that_came_with_its_head_is_read_while_its_end_is_awaited(
    play: Any, taken: list[bool]
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(HEAD + chunks(*map(peer.words, TEXTS)))
        async with asyncio.timeout(10):
            while not taken:
                await asyncio.sleep(0.002)
        await peer.finish(b"".join(peer.event(each) for each in STOPS))

    record = (await play(script)).record
    assert (record.outcome, taken) == ("ok", [True])


@pytest.mark.usefixtures("many_events")
async def test_an_answer_that_is_not_plain_is_looked_at_once(play: Any, taken: list[bool]) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for number in range(300):
            await peer.chunk(peer.event({**THOUGHT, "padding": "x" * 200, "n": number}))
        while not taken:
            await asyncio.sleep(0.002)
        for text in TEXTS:
            await peer.chunk(peer.words(text))
        await peer.finish(b"".join(peer.event(json.dumps(each)) for each in STOPS[:2]))

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us)) == ("ok", 500)
    assert taken == [False]


async def test_an_answer_without_an_end_of_an_event_is_looked_at_once(play: Any, looks: list[int]) -> None:
    """Else each look would go through all of it: hours, of a body of 60 MB."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for _ in range(20):
            await peer.chunk(b"x" * 40_000)
            await asyncio.sleep(0.005)
        await peer.finish(b"")

    assert (await play(script)).record.outcome == "truncated"
    assert len(looks) == 2, "once while it came, and once at its end"


async def test_a_compressed_answer_is_not_looked_at_before_its_end(play: Any, taken: list[bool]) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked",
                        "Content-Encoding: br")  # fmt: skip
        for text in TEXTS:
            await peer.chunk(peer.words(text))
        await peer.finish(b"")

    assert (await play(script)).record.outcome == "bad_json"
    assert taken == []


@pytest.mark.parametrize("texts", [TEXTS[:9], TEXTS[:9] + ["", "\U0001f600"]])
async def test_a_short_answer_is_read_event_by_event_where_few_come(
    play: Any, taken: list[bool], monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for number, text in enumerate(texts, 1):
            await peer.chunk(peer.words(text))
            if calm:
                async with asyncio.timeout(10):
                    while len(taken) < number:
                        await asyncio.sleep(0.002)
        await peer.send(chunks(*map(peer.event, STOPS)) + b"0\r\n\r\n")

    calm = True
    ahead = (await play(script, keep_text=True)).record
    assert taken == [True] * len(texts)
    calm = False
    monkeypatch.setattr("loadgen.transport._work._MOST_EVENTS", 0)
    assert alike((await play(script, keep_text=True)).record) == alike(ahead)
    assert len(taken) == len(texts)


async def test_an_event_that_comes_in_parts_is_read_once_it_is_whole(play: Any, taken: list[bool]) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for text in TEXTS[:4]:
            before, chunk = len(taken), chunks(peer.words(text))
            await peer.send(chunk[:50])
            await asyncio.sleep(0.02)
            assert len(taken) == before
            await peer.send(chunk[50:])
            async with asyncio.timeout(10):
                while len(taken) == before:
                    await asyncio.sleep(0.002)
        await peer.send(chunks(*map(peer.event, STOPS)) + b"0\r\n\r\n")

    assert (await play(script)).record.outcome == "ok"
    assert taken == [True] * 4


async def test_an_answer_whose_lines_end_otherwise_is_not_looked_at_forever_where_many_come(
    play: Any, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    """Its events end in CRLF: none is of the plain form, however much comes."""
    monkeypatch.setattr("loadgen.transport._work._MOST_EVENTS", 5)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for text in TEXTS[:30]:
            await peer.chunk(peer.words(text).replace(b"\n", b"\r\n"))
            await asyncio.sleep(0.002)
        await peer.finish(b"".join(peer.event(each) for each in STOPS))

    assert (await play(script)).record.outcome == "ok"
    assert 1 < len(looks) < 10


async def test_what_fails_while_an_answer_comes_is_read_anew_at_its_end(
    play: Any, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:
    add = _chat._Reading._add
    failed: list[int] = []

    def fails_once(*given: Any) -> bool:
        if given[1] == 2 and not failed:
            failed.append(2)
            raise ZeroDivisionError
        return add(*given)

    monkeypatch.setattr(_chat._Reading, "_add", fails_once)
    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", lambda context: None)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for number, text in enumerate(TEXTS[:5], 1):
            await peer.chunk(peer.words(text))
            async with asyncio.timeout(10):
                while len(taken) + len(failed) < min(number, 3):
                    await asyncio.sleep(0.002)
        await peer.send(chunks(*map(peer.event, STOPS)) + b"0\r\n\r\n")

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us), failed) == ("ok", 5, [2])
