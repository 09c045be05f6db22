"""Certificates: the right one is accepted, a wrong one is refused, and --insecure means it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme


def _server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def _client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_a_trusted_certificate_is_accepted_and_its_connection_kept(
    play: Any, authority: trustme.CA
) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.answer("Hi", " there")

    played = await play(
        script, _server_context(authority), tls=_client_context(authority), turns=2, clock="kernel"
    )
    assert [r.outcome for r in played.records] == ["ok", "ok"]
    assert (played.server.connections, played.records[1].connect_us) == (1, 0)
    assert all(r.lag_us_max > 0 for r in played.records), "the stamps of the socket below are read"


@pytest.mark.parametrize("wrong", ["unknown authority", "other name"])
async def test_a_wrong_certificate_is_refused_before_anything_is_sent(
    serve: Any, client: Any, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    name = "127.0.0.1" if wrong == "unknown authority" else "other.example"
    server = await serve(lambda peer: peer.answer(), _server_context(authority, name))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    person = client(server.url, tls=None if wrong == "unknown authority" else _client_context(authority))
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.status, record.sent_ns) == ("tls", None, None)
    assert server.requests == []


@pytest.mark.parametrize("clock", ["auto", "kernel", "user"])
async def test_a_goodbye_under_tls_is_no_part_of_the_request(
    play: Any, authority: trustme.CA, clock: str
) -> None:
    """nginx ends a connection after so many requests: its last answer and its close come together."""

    async def closes_at_once(peer: Any) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.head("200 OK", "Content-Type: text/event-stream", "Connection: close")
        peer.writer.write(peer.words("Hi") + b"data: [DONE]\n\n")
        peer.writer.close()

    played = await play(
        closes_at_once, _server_context(authority), tls=_client_context(authority), turns=2, clock=clock
    )
    assert [record.outcome for record in played.records] == ["ok", "ok"]
    for record in played.records:
        assert record.event_us[0] > 40_000
        assert record.write_ns <= record.head_ns


async def test_insecure_accepts_any_certificate(play: Any, authority: trustme.CA) -> None:
    played = await play(
        lambda peer: peer.answer(), _server_context(authority, "other.example"), insecure=True
    )
    assert played.record.outcome == "ok"


async def test_https_to_a_plain_port_is_tls(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await serve(script)
    person = client(server.url.replace("http:", "https:"))
    await person.ended(person.start())
    assert person.records[0].outcome == "tls"


@pytest.mark.parametrize("ends", ["cleanly", "by a reset"])
async def test_a_stream_under_tls_that_breaks_off_keeps_its_events(
    play: Any, authority: trustme.CA, ends: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.05)
        if ends == "by a reset":
            peer.reset()

    played = await play(script, _server_context(authority), tls=_client_context(authority))
    record = played.record
    assert record.outcome == ("truncated" if ends == "cleanly" else "disconnected")
    assert len(record.event_us) == 1


async def test_a_stalled_stream_under_tls_ends_in_time(play: Any, authority: trustme.CA) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.until_closed()

    played = await play(
        script, _server_context(authority), tls=_client_context(authority), idle_timeout_s=0.15
    )
    assert (played.record.outcome, len(played.record.event_us)) == ("stalled", 1)
