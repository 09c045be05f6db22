"""Streams that end badly or have an odd shape: what came is kept.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib
from typing import Any

import pytest
from aiohttp.client_proto import ResponseHandler

import loadgen.engine._run as run_module
import loadgen.transport._exchange as exchange_module
from loadgen._messages import AnswersOdd, TurnEnded
from loadgen.transport._reader import StampedReader
from loadgen.transport._work import WorkStage

SSE = "Content-Type: text/event-stream"
ENCODED: dict[str, list[str]] = {"long": [], "compressed": ["Content-Encoding: gzip"]}


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

    record = (await play(script, idle_timeout_s=5.0, deadline_s=0.5)).record
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


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "206 Partial Content"])
async def test_a_stream_is_one_with_any_status_of_success(play: Any, status: str) -> None:
    """Some frameworks give 201 to every POST."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head(status, SSE, "Transfer-Encoding: chunked")
        await peer.finish(peer.words("Hi", " there") + peer.END)

    record = (await play(script)).record
    assert (record.outcome, record.status, record.output_tokens) == ("ok", int(status[:3]), 3)


@pytest.mark.parametrize(
    "kind", ["", "Content-Type: text/plain; charset=utf-8", "Content-Type: application/json"]
)
@pytest.mark.parametrize("begin", [b": hello\n\n", b"id: 1\n", b""])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_stream_of_another_content_type_is_one_by_its_first_bytes(
    play: Any, kind: str, begin: bytes, chunked: bool
) -> None:
    """What a framework sends whose author named no type."""

    async def script(peer: Any) -> None:
        await peer.request()
        framing = "Transfer-Encoding: chunked" if chunked else "Connection: close"
        await peer.head("200 OK", *([kind] if kind else []), framing)
        send = peer.chunk if chunked else peer.send
        await send(begin + peer.words("Hi"))
        await asyncio.sleep(0.02)
        await send(peer.words(" there"))
        await (peer.finish() if chunked else peer.send(peer.END))

    played = await play(script)
    record = played.record
    assert (record.outcome, record.output_tokens) == ("ok", 3), record.error
    first_us, second_us = record.event_us
    assert second_us - first_us >= 15_000
    assert any("content type" in each.what for each in played.client.messages if isinstance(each, AnswersOdd))


async def test_a_reply_is_over_with_done_though_its_last_chunk_never_comes(play: Any) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.head()
            await peer.chunk(peer.words("Hi"))
            await peer.chunk(peer.END)

    played = await play(script, turns=2)
    assert [(r.outcome, r.output_tokens) for r in played.records] == [("ok", 3), ("ok", 3)]
    first, second = played.records
    assert second.due_ns == first.end_ns, (
        "the person waits for the last word, not for the server's hanging up"
    )
    assert first.end_ns - first.sent_ns - first.event_us[-1] * 1000 < 200_000_000


async def test_an_endless_stream_is_oversized(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_OVERSIZED_BYTES", 1 << 20)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        while True:
            await peer.chunk(peer.words("endless ") * 500)
            await asyncio.sleep(0.001)

    record = (await play(script)).record
    assert (record.outcome, "MiB" in record.error) == ("oversized", True)
    assert len(record.event_us) > 1000


@pytest.mark.parametrize("kind", ["long", "compressed"])
async def test_other_streams_go_on_while_a_reply_is_read_that_takes_long(
    play: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    read, others_went_on, seen = exchange_module.read_reply, threading.Event(), []

    def slowly(*reply: Any) -> Any:
        seen.append(others_went_on.wait(2))
        return read(*reply)

    async def script(peer: Any) -> None:
        await peer.request()
        body = peer.words(*["word "] * 40) + peer.END
        await peer.head("200 OK", SSE, "Transfer-Encoding: chunked", *ENCODED[kind])
        asyncio.get_running_loop().call_later(0.2, others_went_on.set)
        await peer.finish(gzip.compress(body) if ENCODED[kind] else body)

    monkeypatch.setattr(exchange_module, "_LONG_BYTES", 1000)
    monkeypatch.setattr(exchange_module, "read_reply", slowly)
    record = (await play(script)).record
    assert (record.outcome, len(record.event_us), seen) == ("ok", 40, [True])


async def test_a_line_of_over_a_mebibyte_is_oversized(play: Any) -> None:
    record = (await play(lambda peer: peer.answer("Hi", "x" * (1 << 20)))).record
    assert (record.outcome, len(record.event_us)) == ("oversized", 1)


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


async def test_text_that_looks_like_the_end_of_a_body_does_not_end_it(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        data = b": \r\n0\r\n\r\n" + peer.words(" there")
        cut = data.index(b"data")
        await peer.send(b"%x\r\n" % len(data) + data[:cut])
        await asyncio.sleep(0.05)
        await peer.send(data[cut:] + b"\r\n")
        await peer.finish()

    record = (await play(script)).record
    assert (record.outcome, record.chars, len(record.event_us)) == ("ok", 8, 2)


async def test_a_whole_reply_that_waits_to_be_read_cannot_be_cut_any_more(serve: Any, client: Any) -> None:
    """Where many streams end together, a deadline, a person's patience or a level's end come meanwhile."""

    held = asyncio.Event()

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await held.wait()
        await peer.finish(peer.words("Hi") + peer.END)
        await peer.answer("again")

    server = await serve(script)
    person = client(server.url)
    run = person.driver.run
    user = person.start()
    async with asyncio.timeout(10):
        while not (run.in_flight and run.in_flight[0].status):
            await asyncio.sleep(0.001)
        async with run.scheduler.turn_for(WorkStage.END):
            exchange = run.in_flight[0]
            held.set()
            while not exchange.log.has_last_chunk():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            exchange.cut("deadline", "not done")
            await asyncio.sleep(0.01)
    await person.ended(user)
    assert [record.outcome for record in person.records] == ["ok"]
    await person.ended(person.start())
    assert [record.outcome for record in person.records] == ["ok", "ok"]
    assert server.connections == 1


async def test_a_record_is_made_within_half_a_second_where_more_urgent_work_never_ends(
    serve: Any, client: Any
) -> None:
    """On a full core records waited for ever, with the whole answer that each holds."""
    person = client((await serve(lambda peer: peer.answer("Hi"))).url)
    scheduler = person.driver.run.scheduler

    async def work() -> None:
        while True:
            async with scheduler.turn_for(WorkStage.END):
                pass

    busy = [asyncio.create_task(work()) for _ in range(2)]
    try:
        async with asyncio.timeout(5):
            await person.ended(person.start())
            while not any(isinstance(message, TurnEnded) for message in person.messages):
                await asyncio.sleep(0.01)
    finally:
        for each in busy:
            each.cancel()
    assert person.records[0].outcome == "ok"


async def test_a_body_may_end_with_trailers(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.chunk(peer.END)
        await peer.send(b"0\r\nX-Sum: 1\r\n\r\n")
        await peer.until_closed()

    record = (await play(script, idle_timeout_s=2.0)).record
    assert (record.outcome, record.chars) == ("ok", 2)


async def test_what_aiohttp_makes_of_a_stream_is_not_made_while_sockets_wait_to_be_read(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred streams that end together would otherwise keep the first tokens of all others unread."""
    reading, worked_on = False, []

    def drain(reader: StampedReader) -> None:
        nonlocal reading
        reading = True
        read_all(reader)
        reading = False

    def data_received(handler: ResponseHandler, data: bytes) -> None:
        if reading:
            worked_on.append(data)
        make_sense(handler, data)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await asyncio.sleep(0.05)
        for _ in range(20):
            await peer.chunk(peer.words(" word"))
        await peer.finish()

    read_all, make_sense = StampedReader._drain, ResponseHandler.data_received
    monkeypatch.setattr(StampedReader, "_drain", drain)
    monkeypatch.setattr(ResponseHandler, "data_received", data_received)
    record = (await play(script)).record
    assert (record.outcome, len(record.event_us)) == ("ok", 20)
    assert worked_on
    assert not [data for data in worked_on if b"word" in data]


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


async def test_chunks_that_are_none_are_reported(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await asyncio.sleep(0.05)  # else it comes with the head
        await peer.send(b"zz\r\nhello\r\n\r\n")
        await peer.until_closed()

    record = (await play(script)).record
    assert (record.outcome, "chunk size" in record.error) == ("bad_json", True)
