"""Answers that are none, and turns that a level cuts.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("429 Too Many Requests", "http_429"),
        ("500 Internal Server Error", "http_5xx"),
        ("503 Service Unavailable", "http_5xx"),
        ("400 Bad Request", "http_4xx"),
        ("401 Unauthorized", "http_4xx"),
        ("404 Not Found", "http_4xx"),
        ("204 No Content", "bad_content_type"),
        ("201 Created", "bad_content_type"),
    ],
)
@pytest.mark.parametrize("ends", ["whole", "cut short", "hung"])
async def test_a_refusal_has_its_outcome_however_its_body_ends(
    play: Any, status: str, outcome: str, ends: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        length = 11 if ends == "whole" else 900
        await peer.head(status, f"Content-Length: {length}", "Retry-After: 2.5")
        if not status.startswith("204"):
            await peer.send(b"no,\x1b[31m no")
        if ends == "hung":
            await peer.until_closed()

    played = await play(script, idle_timeout_s=0.15)
    record = played.record
    assert (record.outcome, record.status) == (outcome, int(status[:3]))
    assert "Retry-After: 2.5 s" in record.error
    assert "\x1b" not in record.error
    assert (record.event_us, record.output_tokens) == ([], None)
    assert len(played.server.requests) == 1, "no retry that nobody asked for"


async def test_a_retry_that_was_asked_for_is_a_new_attempt(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.head("503 Service Unavailable", "Content-Length: 0", "Retry-After: 0.2")
        else:
            await peer.head()
            await peer.finish(peer.words("Hi") + peer.END)

    played = await play(script, retry=2)
    assert [(r.attempt, r.outcome) for r in played.records] == [(1, "http_5xx"), (2, "ok")]
    assert played.records[1].sent_ns - played.records[0].end_ns >= 200_000_000
    assert played.records[1].due_ns == played.records[0].due_ns
    assert b"X-Request-Id: run/0/1/2\r\n" in played.server.requests[1]
    assert (played.client.driver.run.ledger.begun, played.client.driver.run.ledger.finished) == (1, 1)


async def test_retries_end(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("500 No", "Content-Length: 0", "Retry-After: 0")

    played = await play(script, retry=2)
    assert [(r.attempt, r.outcome) for r in played.records] == [(n, "http_5xx") for n in (1, 2, 3)]


async def test_a_turn_that_waits_for_its_retry_when_the_level_ends_is_closed(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("503 Busy", "Content-Length: 0", "Retry-After: 3600")

    server = await serve(script)
    person = client(server.url, retry=5)
    user = person.start()
    async with asyncio.timeout(5):
        while not person.records:
            await asyncio.sleep(0.01)
    await person.driver.cut()
    person.check_ledger()
    await person.ended(user, 1)
    assert [r.outcome for r in person.records] == ["http_5xx"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("ends", ["in the drain", "at the cut"])
async def test_a_turn_stays_measured_when_its_retry_is_sent_after_the_window(
    serve: Any, client: Any, ends: str
) -> None:
    """Else the turns that were hardest to get through would leave the measurement."""

    async def script(peer: Any) -> None:
        if peer.number == 0:
            await peer.request()
            await peer.head("503 Busy", "Content-Length: 0", "Retry-After: 0.2")
        elif ends == "in the drain":
            await peer.answer()
        else:
            await peer.request()
            await peer.until_closed()

    server = await serve(script)
    person = client(server.url, retry=1)
    user = person.start()
    async with asyncio.timeout(5):
        while not person.records:
            await asyncio.sleep(0.005)
    person.driver.measure(0, person.driver.run.timeline.now_ns())
    if ends == "at the cut":
        async with asyncio.timeout(5):
            while len(server.requests) < 2:
                await asyncio.sleep(0.005)
    still_open = await person.driver.drained(5 if ends == "in the drain" else 0.1)
    assert still_open == (0 if ends == "in the drain" else 1)
    await person.driver.cut()
    await person.ended(user, 1)
    outcome = "ok" if ends == "in the drain" else "unfinished"
    assert [(r.attempt, r.outcome) for r in person.records] == [(1, "http_5xx"), (2, outcome)]


async def test_a_huge_error_body_is_read_in_part(play: Any) -> None:
    sent = 0

    async def script(peer: Any) -> None:
        nonlocal sent
        await peer.request()
        await peer.head("500 Oh no", "Transfer-Encoding: chunked")
        while True:
            await peer.chunk(b"sorry " * 10_000)
            sent += 60_000

    record = (await play(script)).record
    assert (record.outcome, len(record.error)) == ("http_5xx", 500)
    assert sent < 20_000_000, "the client hung up"


async def test_of_an_error_body_two_kibibytes_are_waited_for_and_no_more(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("500 Oh no", "Content-Length: 4096")
        await peer.send(b"sorry " * 341 + b"so")
        await peer.until_closed()

    record = (await play(script)).record  # the idle limit is longer than this may take
    assert (record.outcome, record.error) == ("http_5xx", ("sorry " * 341)[:500])


async def test_a_full_context_is_distinguished_from_other_bad_requests(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        text = b'{"error": {"message": "This model\'s maximum context length is 4096 tokens"}}'
        await peer.head("400 Bad Request", f"Content-Length: {len(text)}")
        await peer.send(text)

    assert (await play(script)).record.outcome == "context_full"


@pytest.mark.parametrize("ends", ["whole", "cut short", "hung"])
async def test_a_proxys_page_is_no_stream(play: Any, ends: str) -> None:
    page = b"<html><script>alert(1)</script>Sign in\x07</html>"

    async def script(peer: Any) -> None:
        await peer.request()
        length = len(page) if ends == "whole" else 5000
        await peer.head("200 OK", "Content-Type: text/html; charset=utf-8", f"Content-Length: {length}")
        await peer.send(page)
        if ends == "hung":
            await peer.until_closed()

    record = (await play(script, idle_timeout_s=0.15)).record
    assert (record.outcome, record.status, record.event_us) == ("bad_content_type", 200, [])
    assert record.error.startswith("text/html: ")
    assert "\x07" not in record.error


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"HTTP/1.1 abc\r\n\r\n"]
)
async def test_what_is_not_http_is_reported_so(play: Any, answer: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(answer)

    record = (await play(script)).record
    assert record.outcome in ("bad_content_type", "disconnected")
    assert record.status is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_its_target_never_sees_the_key(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    target = await serve(lambda peer: peer.answer())

    async def script(peer: Any) -> None:
        await peer.request()
        location = f"Location: {target.url}/v1"
        await peer.head(f"{status} Moved", location, "Content-Length: 0", "Retry-After: 1")

    server = await serve(script)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    person = client(server.url)
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.status) == ("redirect", status)
    assert target.url in record.error
    assert (target.connections, b"sk-very-secret" in server.requests[0]) == (0, True)


async def test_turns_that_run_when_the_level_ends_are_unfinished_or_cut(serve: Any, client: Any) -> None:
    arrived = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        arrived.set()
        await peer.until_closed()

    server = await serve(script)
    for measured, outcome in ((True, "unfinished"), (False, "cut")):
        arrived.clear()
        person = client(server.url)
        if measured:
            person.driver.measure(0, None)
        user = person.start()
        await arrived.wait()
        await asyncio.sleep(0.05)
        await person.driver.cut()
        person.check_ledger()
        await person.ended(user, 1)
        (record,) = person.records
        assert (record.outcome, len(record.event_us)) == (outcome, 1)


async def test_people_cut_while_they_connect_close_the_ledger(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hang)
    person = client("http://127.0.0.1:9")
    user = person.start()
    await asyncio.sleep(0.05)
    await person.driver.cut()
    person.check_ledger()
    await person.ended(user, 1)
    assert [(r.outcome, r.sent_ns) for r in person.records] == [("cut", None)]


async def test_the_ledger_closes_over_many_people_and_all_kinds_of_ends(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        kind = peer.number % 6
        await peer.request()
        if kind == 0:
            peer.reset()
        elif kind == 1:
            await peer.head("503 Busy", "Content-Length: 0")
        elif kind == 2:
            await peer.head()
            await peer.chunk(peer.words("half"))
        elif kind == 3:
            await peer.until_closed()
        else:
            await peer.head()
            await peer.finish(peer.words("Hi") + peer.END)
            await peer.answer()

    server = await serve(script)
    person = client(server.url, turns=2, idle_timeout_s=0.3, retry=1)
    users = [person.start() for _ in range(36)]
    for user in users:
        await person.ended(user, 20)
    person.check_ledger()
    found = {record.outcome for record in person.records}
    assert {"ok", "disconnected", "http_5xx", "truncated", "stalled"} <= found
