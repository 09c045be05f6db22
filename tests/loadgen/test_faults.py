"""What can happen to a stream: each fault has its outcome, keeps what came, and closes the ledger.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

import loadgen._stage as stage_module

SSE = "Content-Type: text/event-stream"


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


# --- no connection ---


async def test_a_refused_connection_is_connect(client: Any, unused_tcp_port: int) -> None:
    person = client(f"http://127.0.0.1:{unused_tcp_port}")
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.status, record.sent_ns, record.connect_us) == ("connect", None, None, None)
    assert str(unused_tcp_port) in record.error


async def test_a_host_that_does_not_exist_is_dns(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

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
    import socket

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
    import os
    import resource

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


# --- streams that end badly ---


async def test_a_hung_stream_is_stalled_and_keeps_its_events(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi", " there"))
        await peer.until_closed()

    record = (await play(script, idle_timeout_s=0.15)).record
    assert (record.outcome, len(record.event_us), record.chars) == ("stalled", 2, 8)
    assert "--idle-timeout" in record.error


async def test_a_server_that_never_answers_is_stalled_without_a_first_token(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.until_closed()

    record = (await play(script, idle_timeout_s=0.15)).record
    assert (record.outcome, record.event_us, record.status, record.head_ns) == ("stalled", [], None, None)
    assert record.sent_ns is not None


async def test_a_slow_drip_meets_the_deadline_though_it_is_never_idle(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        while True:
            await peer.chunk(peer.words("drip "))
            await asyncio.sleep(0.02)

    record = (await play(script, idle_timeout_s=0.2, deadline_s=0.5)).record
    assert record.outcome == "deadline"
    assert len(record.event_us) > 2
    assert "--deadline" in record.error


async def test_a_reset_mid_stream_is_disconnected_and_keeps_its_timings(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.chunk(peer.words(" the"))
        await asyncio.sleep(0.05)  # a reset throws away what the client has not read yet
        peer.reset()

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us), record.chars) == ("disconnected", 2, 6)


async def test_a_reset_before_any_answer_on_a_fresh_connection_is_disconnected(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        peer.reset()

    played = await play(script)
    assert (played.record.outcome, played.record.event_us) == ("disconnected", [])


@pytest.mark.parametrize(
    "ending", [b"", b"0\r\n\r\n", b"5\r\nda"], ids=["no last chunk", "last chunk", "mid-chunk"]
)
async def test_an_end_without_done_or_finish_reason_is_truncated(play: Any, ending: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.send(ending)

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us)) == ("truncated", 1)


async def test_a_body_shorter_than_its_content_length_is_truncated(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("200 OK", SSE, "Content-Length: 5000")
        await peer.send(peer.words("Hi"))

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us)) == ("truncated", 1)


@pytest.mark.parametrize("length", [True, False], ids=["content length", "until the end of the connection"])
async def test_a_stream_without_chunks_is_read_as_well(play: Any, length: bool) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        body = peer.words("Hi", " there") + peer.END
        await peer.head("200 OK", SSE, f"Content-Length: {len(body)}" if length else "Connection: close")
        await peer.send(body[:50])
        await peer.send(body[50:])

    record = (await play(script)).record
    assert (record.outcome, record.chars) == ("ok", 8)


async def test_an_endless_stream_is_oversized(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_OVERSIZED_BYTES", 1 << 20)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        while True:
            await peer.chunk(peer.words("endless ") * 500)
            await asyncio.sleep(0.001)

    record = (await play(script)).record
    assert (record.outcome, "MiB" in record.error) == ("oversized", True)
    assert len(record.event_us) > 1000


async def test_a_line_of_over_a_mebibyte_is_oversized(play: Any) -> None:
    record = (await play(lambda peer: peer.answer("Hi", "x" * (1 << 20)))).record
    assert (record.outcome, len(record.event_us)) == ("oversized", 1)


# --- answers that are none ---


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
    assert (played.client.ledger.begun, played.client.ledger.finished) == (1, 1)


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
    await person.stage.cut()
    person.check_ledger()
    await person.ended(user, 1)
    assert [r.outcome for r in person.records] == ["http_5xx"]
    assert len(server.requests) == 1


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


async def test_a_full_context_is_told_from_other_bad_requests(play: Any) -> None:
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
async def test_what_is_not_http_is_told_so(play: Any, answer: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(answer)

    record = (await play(script)).record
    assert record.outcome in ("bad_content_type", "disconnected")
    assert record.status is None


async def test_a_redirect_is_not_followed_and_its_target_never_sees_the_key(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await serve(lambda peer: peer.answer())

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("307 Moved", f"Location: {target.url}/v1", "Content-Length: 0", "Retry-After: 1")

    server = await serve(script)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    person = client(server.url)
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.status) == ("redirect", 307)
    assert target.url in record.error
    assert (target.connections, b"sk-very-secret" in server.requests[0]) == (0, True)


# --- streams of an odd shape ---


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"], ids=["CRLF", "CR", "LF"])
async def test_the_whole_grammar_of_event_streams_is_read(play: Any, end: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(b"\xef\xbb\xbf: hello" + end + end)
        await peer.chunk((b"event: message\nid: 1\n" + peer.words("Hi")).replace(b"\n", end))
        await peer.chunk(
            b'data: {"choices": [{"delta":\ndata: {"content": " there"}}]}\n\n'.replace(b"\n", end)
        )
        await peer.finish(peer.END.replace(b"\n", end))

    record = (await play(script)).record
    assert (record.outcome, record.chars, len(record.event_us)) == ("ok", 8, 2)


@pytest.mark.parametrize("size", [1, 7])
async def test_events_and_characters_split_over_reads_are_whole_again(play: Any, size: int) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        body = b"data: " + '{"choices": [{"delta": {"content": "Grüße 🌍"}}]}'.encode() + b"\n\n" + peer.END
        raw = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        for start in range(0, len(raw), size):
            await peer.send(raw[start : start + size])
            await asyncio.sleep(0)

    record = (await play(script, keep_text=True)).record
    assert (record.outcome, record.text, record.coalesced) == ("ok", "Grüße 🌍", 0)


async def test_a_head_that_comes_in_drips_still_has_its_arrival(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        for start in range(0, len(head), 8):
            await peer.send(head[start : start + 8])
            await asyncio.sleep(0.002)
        await peer.finish(peer.words("Hi") + peer.END)

    record = (await play(script)).record
    assert record.outcome == "ok"
    assert record.sent_ns < record.head_ns <= record.end_ns


@pytest.mark.parametrize("interim", [b"100 Continue", b"103 Early Hints\r\nLink: </a>"], ids=["100", "103"])
async def test_interim_responses_are_passed_over(play: Any, interim: bytes) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 " + interim + b"\r\n\r\n")
        await asyncio.sleep(0.05)
        await peer.head()
        await peer.finish(peer.words("Hi") + peer.END)

    record = (await play(script)).record
    assert (record.outcome, record.status, len(record.event_us)) == ("ok", 200, 1)
    assert record.head_ns - record.sent_ns >= 40_000_000


async def test_many_events_in_one_read_are_counted_as_coalesced(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish(peer.words(*"abcdefgh") + peer.END)

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us), record.coalesced) == ("ok", 8, 7)
    assert len(set(record.event_us)) == 1


async def test_malformed_json_keeps_a_short_clean_sample(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.finish(b'data: {"choices": \x1b]0;owned\x07' + b"x" * 5000 + b"\n\n" + peer.END)

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us)) == ("bad_json", 1)
    assert "owned" in record.error
    assert len(record.error) <= 500
    assert record.error.isprintable()


async def test_bytes_that_are_no_text_end_the_turn_and_not_the_engine(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n')
        await peer.finish()

    assert (await play(script)).record.outcome == "bad_json"


async def test_an_error_inside_a_200_is_a_server_error(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.finish(peer.event({"error": {"message": "CUDA out of\n memory"}}) + peer.END)

    record = (await play(script)).record
    assert (record.outcome, record.error, len(record.event_us)) == ("server_error", "CUDA out of memory", 1)


async def test_an_empty_reply_has_no_first_token(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish()

    record = (await play(script)).record
    assert (record.outcome, record.event_us, record.answer_event) == ("empty", [], None)


async def test_reasoning_alone_is_no_answer(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish(peer.event(peer.chunk_of(reasoning_content="Hm")) + peer.END)

    record = (await play(script)).record
    assert (record.outcome, len(record.event_us), record.answer_event) == ("reasoning_only", 1, None)


async def test_without_usage_the_source_of_the_count_is_said(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish(peer.words("a", "b") + peer.event("[DONE]"))

    record = (await play(script)).record
    assert (record.outcome, record.output_tokens, record.token_source) == ("ok", 2, "events")


async def test_no_compression_is_asked_for_and_it_is_read_if_it_comes(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("200 OK", SSE, "Transfer-Encoding: chunked", "Content-Encoding: gzip")
        squeeze = zlib.compressobj(wbits=31)
        for text in ("Hi", " there"):
            await peer.chunk(squeeze.compress(peer.words(text)) + squeeze.flush(zlib.Z_SYNC_FLUSH))
            await asyncio.sleep(0.05)
        await peer.finish(squeeze.compress(peer.END) + squeeze.flush())

    played = await play(script)
    assert b"Accept-Encoding: identity\r\n" in played.server.requests[0]
    assert (played.record.outcome, played.record.chars, played.record.coalesced) == ("ok", 8, 0)
    assert played.record.event_us[1] - played.record.event_us[0] >= 40_000


async def test_chunks_that_are_none_are_told(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await asyncio.sleep(0.05)  # else it comes with the head
        await peer.send(b"zz\r\nhello\r\n\r\n")
        await peer.until_closed()

    record = (await play(script)).record
    assert (record.outcome, "chunk size" in record.error) == ("bad_json", True)


# --- connections that are kept ---


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
    assert (played.client.ledger.begun, played.client.ledger.finished) == (2, 2)


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


# --- the end of a level ---


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
            person.stage.measure(0, None)
        user = person.start()
        await arrived.wait()
        await asyncio.sleep(0.05)
        await person.stage.cut()
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
    await person.stage.cut()
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


# --- secrets and the environment ---


@pytest.mark.parametrize("how", ["refusal", "error event", "page", "cut off"])
async def test_no_secret_that_the_server_repeats_is_kept(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def script(peer: Any) -> None:
        request = await peer.request()
        lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        told = " ".join(line for line in lines if line.startswith(("Auth", "X-Tenant")))
        told += " Incorrect API key sk-very-secret"
        if how == "cut off":
            told = "x" * 490 + "sk-very-secret"
        if how == "error event":
            await peer.head()
            await peer.finish(peer.event({"error": {"message": told}}))
        else:
            status = "200 OK" if how == "page" else "401 Unauthorized"
            await peer.head(status, "Content-Type: text/plain", f"Content-Length: {len(told)}")
            await peer.send(told.encode())

    server = await serve(script)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("TENANT", "tenant-secret")
    person = client(server.url, headers={"X-Tenant": "$TENANT"})
    await person.ended(person.start())
    (line,) = person.lines
    assert b"very-secret" not in line
    assert b"tenant-secret" not in line
    assert b"sk-v" not in line
    assert b"***" in line
    assert b"Authorization: Bearer sk-very-secret\r\n" in server.requests[0], "else this test shows nothing"


async def test_a_key_in_a_typed_authorization_header_is_scrubbed_with_and_without_its_scheme(
    serve: Any, client: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("401 No", "Content-Length: 24")
        await peer.send(b"bad key sk-typed-secret!")

    server = await serve(script)
    person = client(server.url, headers={"Authorization": "Bearer sk-typed-secret"})
    await person.ended(person.start())
    assert person.records[0].error == "bad key ***!"


async def test_a_password_in_the_url_is_sent_and_scrubbed(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        request = await peer.request()
        basic = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization: Basic"))
        told = basic + b" of hunter2"
        await peer.head("401 No", f"Content-Length: {len(told)}")
        await peer.send(told)

    server = await serve(script)
    person = client(server.url.replace("//", "//me:hunter2@"))
    await person.ended(person.start())
    (record,) = person.records
    assert record.error == "Authorization: Basic *** of ***"


async def test_proxy_variables_are_ignored_unless_asked_for(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = await serve(lambda peer: peer.answer("From the proxy"))
    server = await serve(lambda peer: peer.answer("From the server"))
    monkeypatch.setenv("http_proxy", proxy.url)
    for trust_env, asked in ((False, server), (True, proxy)):
        person = client(server.url, trust_env=trust_env)
        await person.ended(person.start())
        assert person.records[0].outcome == "ok"
        assert asked.connections == 1
    assert (server.connections, proxy.connections) == (1, 1)


async def test_netrc_is_ignored(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = await serve(lambda peer: peer.answer())
    person = client(server.url)
    await person.ended(person.start())
    assert b"Authorization" not in server.requests[0]
