"""When a request left: the kernel's word, whatever holds the client up after its call.

Client and server share this process, so that a client that sleeps holds both up.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from loadgen.transport import _reader
from loadgen.transport._http import PromptRequest, StampedHandler
from turnbench.clock import transmit_stamps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps what is sent")

HELD_UP_MS = 80


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client loses its core right after the call that hands a request to the kernel."""
    after_write = StampedHandler.after_write

    def late(handler: StampedHandler) -> None:
        time.sleep(HELD_UP_MS / 1e3)
        after_write(handler)

    monkeypatch.setattr(StampedHandler, "after_write", late)


def context(authority: trustme.CA) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(made)
    return made


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.usefixtures("held_up")
async def test_a_client_that_is_held_up_after_its_call_reports_when_the_request_left(
    play: Any, tls: bool
) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    seen: list[int] = []

    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            seen.append(time.time_ns())
            await peer.head()
            await peer.chunk(peer.words("Hi"))
            await peer.finish()

    played = await play(script, context(authority) if tls else None, tls=trusting if tls else None, turns=2)
    assert [record.outcome for record in played.records] == ["ok", "ok"]
    for record, seen_ns in zip(played.records, seen, strict=True):
        assert record.sent_clock == "tx"
        assert record.write_ns - record.sent_ns >= HELD_UP_MS * 1_000_000
        assert record.sent_ns <= seen_ns
        assert record.event_us[0] >= 0


async def test_without_the_kernels_word_the_time_is_one_from_before_the_call(
    play: Any, held_up: None
) -> None:
    seen: list[int] = []

    async def script(peer: Any) -> None:
        await peer.request()
        seen.append(time.time_ns())
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.finish()

    record = (await play(script, clock="user")).record
    assert (record.outcome, record.sent_clock) == ("ok", "bound")
    assert record.sent_ns <= seen[0]
    assert record.write_ns - record.sent_ns >= HELD_UP_MS * 1_000_000


async def test_the_stamp_of_a_request_is_taken_without_asking_for_another(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question is a call of the kernel's, and the next request of somebody else waits for it."""
    events: list[str] = []

    def watched(sock: Any) -> Iterator[tuple[int, int]]:
        for stamp in transmit_stamps(sock):
            events.append("stamp")
            yield stamp
            events.append("asked for another")

    async def script(peer: Any) -> None:
        await peer.answer("Hi")

    monkeypatch.setattr(_reader, "transmit_stamps", watched)
    record = (await play(script)).record
    assert (record.outcome, record.sent_clock) == ("ok", "tx")
    assert events == ["stamp"]


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_a_request_that_fills_the_sockets_buffer_is_sent_when_its_last_byte_is(play: Any) -> None:
    """The server begins to read late: until then only a part of the request can leave."""
    begun: list[int] = []

    async def script(peer: Any) -> None:
        peer.reader._transport.pause_reading()
        await asyncio.sleep(0.2)
        begun.append(time.time_ns())
        peer.reader._transport.resume_reading()
        await peer.answer("Hi")

    record = (await play(script, body={"padding": "x" * 12_000_000})).record
    assert (record.outcome, record.error, record.sent_clock) == ("ok", None, "tx")
    assert record.sent_ns >= begun[0]


@pytest.mark.parametrize("padding", [0, 80_000], ids=["short", "long"])
async def test_a_request_leaves_before_whatever_else_waits(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    """Where answers end together, that is the work of everybody else."""
    order: list[str] = []
    send, after_write = PromptRequest.send, StampedHandler.after_write

    async def sent(request: PromptRequest, connection: Any) -> Any:
        asyncio.get_running_loop().call_soon(order.append, "others")
        return await send(request, connection)

    def written(handler: StampedHandler) -> None:
        order.append("request")
        after_write(handler)

    async def script(peer: Any) -> None:
        await peer.answer("Hi")

    monkeypatch.setattr(PromptRequest, "send", sent)
    monkeypatch.setattr(StampedHandler, "after_write", written)
    person = client((await serve(script)).url, body={"padding": "x" * padding})
    await person.ended(person.start())
    assert order == ["request", "others"]


async def test_an_idle_connection_wakes_nobody(serve: Any, client: Any) -> None:
    """A stamp that nobody takes would wake the loop some hundred thousand times a second."""

    async def script(peer: Any) -> None:
        await peer.answer("Hi")
        await peer.until_closed()

    server = await serve(script)
    person = client(server.url)
    await person.ended(person.start())
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select, rounds = selector.select, 0

    def counted(timeout: float | None = None) -> Any:
        nonlocal rounds
        rounds += 1
        return select(timeout)

    selector.select = counted
    await asyncio.sleep(0.3)
    assert rounds < 200
