"""No connection, or one that was kept too long: each has its outcome.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
from typing import Any

import pytest


async def test_a_good_reply_is_ok_and_everything_about_it_is_kept(play: Any) -> None:
    played = await play(lambda peer: peer.answer("Hi", " there"), keep_text=True)
    record = played.record
    assert (record.outcome, record.error, record.status, record.finish_reason) == ("ok", None, 200, "stop")
    assert (record.output_tokens, record.prompt_tokens, record.token_source) == (3, 5, "usage")
    assert (record.text, record.chars, record.words, record.event_words) == ("Hi there", 8, 2, [1, 1])
    assert record.due_ns <= record.sent_ns <= record.head_ns <= record.end_ns
    assert len(record.event_us) == 2
    assert record.event_us == sorted(record.event_us)
    assert record.connect_us > 0
    request = played.server.requests[0]
    assert b"X-Request-Id: run/0/1/1\r\n" in request
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


async def test_a_follow_up_answers_the_real_reply_on_the_same_connection(play: Any) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.answer("Forty", "-two")

    played = await play(script, turns=2)
    first, second = played.records
    assert (first.outcome, second.outcome, played.server.connections) == ("ok", "ok", 1)
    assert (first.connect_us > 0, second.connect_us) == (True, 0)
    messages = json.loads(played.server.requests[1].partition(b"\r\n\r\n")[2])["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "Forty-two"


async def test_a_refused_connection_is_connect(client: Any, unused_tcp_port: int) -> None:
    person = client(f"http://127.0.0.1:{unused_tcp_port}")
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.status, record.sent_ns, record.connect_us) == ("connect", None, None, None)
    assert str(unused_tcp_port) in record.error


async def test_a_host_that_does_not_exist_is_dns(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    person = client("http://no-such-host:8000")
    await person.ended(person.start())
    assert person.records[0].outcome == "dns"


async def test_a_resolver_that_hangs_is_a_connect_timeout(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    person = client("http://slow-name:8000", connect_timeout_s=0.1)
    await person.ended(person.start(), 5)
    assert person.records[0].outcome == "connect_timeout"


async def test_a_bare_host_name_works(serve: Any, client: Any) -> None:
    server = await serve(lambda peer: peer.answer())
    person = client(server.url.replace("127.0.0.1", "localhost"))
    await person.ended(person.start(), 5)
    assert person.records[0].outcome == "ok"


async def test_a_server_that_accepts_nothing_is_a_connect_timeout(client: Any) -> None:
    """The backlog is full, so the kernel drops what would open further connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        person = client(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=0.2)
        await person.ended(person.start(), 5)
        for filler in fillers:
            filler.close()
    assert person.records[0].outcome == "connect_timeout"


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EADDRNOTAVAIL, "client_ports"),
        (errno.EMFILE, "client_files"),
        (errno.ENFILE, "client_files"),
        (errno.ENETUNREACH, "connect"),
        (errno.EHOSTUNREACH, "connect"),
    ],
    ids=errno.errorcode.get,
)
async def test_what_this_machine_lacks_is_no_fault_of_the_server(
    client: Any, monkeypatch: pytest.MonkeyPatch, number: int, outcome: str
) -> None:
    async def refuse(*_: Any) -> None:
        raise OSError(number, "as the kernel says it")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
    person = client("http://127.0.0.1:9")
    await person.ended(person.start())
    assert person.records[0].outcome == outcome


async def test_a_machine_out_of_descriptors_is_client_files(serve: Any, client: Any) -> None:
    server = await serve(lambda peer: peer.answer())
    person = client(server.url)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        await person.ended(person.start())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert person.records[0].outcome == "client_files"


async def test_a_keep_alive_race_is_stale_once_and_then_sent_again(play: Any) -> None:
    """The server closes an idle connection at the moment at which the next request is on its way."""

    async def script(peer: Any) -> None:
        await peer.answer("Hi")
        if peer.number == 0:
            await peer.request()  # it came too late: this connection was about to close
            peer.reset()
        else:
            await peer.until_closed()

    played = await play(script, turns=2)
    assert [(r.turn, r.attempt, r.outcome) for r in played.records] == [
        (1, 1, "ok"),
        (2, 1, "stale_connection"),
        (2, 2, "ok"),
    ]
    assert [r.connect_us > 0 for r in played.records] == [True, False, True]
    assert (played.client.driver.run.ledger.begun, played.client.driver.run.ledger.finished) == (2, 2)


async def test_a_connection_that_ended_with_its_response_is_not_used_again(play: Any) -> None:
    """The close comes in the very segment of the last chunk; the next request would be lost on it."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi") + peer.END)
        if peer.number == 0:
            sock = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            await peer.send(b"0\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            await peer.until_closed()
        else:
            await peer.finish(b"")

    played = await play(script, turns=2)
    assert [record.outcome for record in played.records] == ["ok", "ok"]
    assert played.server.connections == 2


async def test_a_second_loss_is_no_longer_called_stale_for_ever(play: Any) -> None:
    async def script(peer: Any) -> None:
        if peer.number == 0:
            await peer.answer("Hi")
        await peer.request()
        peer.reset()

    played = await play(script, turns=2)
    assert [r.outcome for r in played.records] == ["ok", "stale_connection", "disconnected"]


async def test_a_connection_closed_while_idle_is_replaced_without_a_failure(serve: Any, client: Any) -> None:
    server = await serve(lambda peer: peer.answer("Hi"))
    person = client(server.url)
    await person.ended(person.start())
    await asyncio.sleep(0.05)
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["ok", "ok"]
    assert server.connections == 2


async def test_a_server_that_dies_and_comes_back_is_asked_again(serve: Any, client: Any) -> None:
    broken = True

    async def script(peer: Any) -> None:
        if broken:
            await peer.request()
            peer.reset()
        else:
            await peer.answer()

    server = await serve(script)
    person = client(server.url)
    await person.ended(person.start())
    broken = False
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["disconnected", "ok"]
