"""Servers at their worst: whatever one sends ends that one turn, by a name, and the next turn is played.

None of these stands in anybody's list of faults. Each is sent in place of an answer, as it stands here.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from loadgen._messages import AnswersOdd

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"
UNTYPED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LATER = b"<later>"
"""What follows is not in the segment of what stands before."""
PLAIN = SSE + b"Connection: close\r\n\r\n"


def data(text: str | bytes) -> bytes:
    return b"data: " + (text if isinstance(text, bytes) else text.encode()) + b"\n\n"


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def delta(content: Any, **more: Any) -> bytes:
    return data(json.dumps({"choices": [{"index": 0, "delta": {"content": content}}], **more}))


def retry_after(value: str) -> bytes:
    return f"HTTP/1.1 429 Slow\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()


GOOD = delta("Hi")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a chunk of 2**70 bytes": (CHUNKED + chunk(GOOD) + LATER + b"4000000000000000000\r\n", "bad_json"),
    "a chunk of minus one byte": (CHUNKED + chunk(GOOD) + LATER + b"-1\r\n", "bad_json"),
    "a chunk size that is none, in one packet with the head": (CHUNKED + b"zz\r\n" + GOOD, "bad_json"),
    "a chunk size that is none, of a body of no type": (UNTYPED + b"zz\r\n" + GOOD, "bad_json"),
    "a chunk size of a megabyte of zeros": (CHUNKED + chunk(GOOD) + LATER + b"0" * 2**20, "truncated"),
    "a chunk size with an endless extension": (
        CHUNKED + chunk(GOOD) + LATER + b"5;" + b"x" * 2**20,
        "truncated",
    ),
    "a length of 10**30": (SSE + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n" + GOOD, "bad_content_type"),
    "a negative length": (SSE + b"Content-Length: -5\r\n\r\n" + GOOD, "bad_content_type"),
    "two lengths": (SSE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD, "bad_content_type"),
    "a length and chunks": (
        SSE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(GOOD),
        "bad_content_type",
    ),
    "a header of a megabyte": (SSE + b"X: " + b"y" * 2**20 + b"\r\n\r\n", "bad_content_type"),
    "ten thousand headers": (SSE + b"X: y\r\n" * 10_000 + b"\r\n" + GOOD, "bad_content_type"),
    "a header with a NUL": (SSE + b"X: \0\r\n\r\n" + GOOD, "bad_content_type"),
    "a header without a colon": (SSE + b"nonsense\r\n\r\n" + GOOD, "bad_content_type"),
    "status 999": (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", "bad_content_type"),
    "status 600": (b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nno", "bad_content_type"),
    "status 599": (b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", "http_5xx"),
    "status 000": (b"HTTP/1.1 000 \r\nContent-Length: 0\r\n\r\n", "bad_content_type"),
    "a status of 10 digits": (b"HTTP/1.1 2000000000 OK\r\n\r\n", "bad_content_type"),
    "HTTP/9.9": (b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n", "bad_content_type"),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_content_type"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x28", "bad_content_type"),
    "an upgrade": (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x02Hi", "bad_content_type"),
    "a hundred interim answers": (b"HTTP/1.1 103 Early\r\n\r\n" * 100, "disconnected"),
    "a reply that is all NUL": (PLAIN + b"\0" * 2**20, "truncated"),
    "half of a character": (PLAIN + data(b'{"choices":[{"delta":{"content":"\xe2\x82'), "bad_json"),
    "a lone surrogate": (PLAIN + data('{"choices":[{"delta":{"content":"\\ud800"}}]}'), "truncated"),
    "JSON 100,000 deep": (PLAIN + data("[" * 100_000), "bad_json"),
    "a number of 100,000 digits": (PLAIN + data('{"choices":' + "9" * 100_000 + "}"), "bad_json"),
    "a million choices": (PLAIN + data('{"choices":[' + ",".join(["{}"] * 100_000) + "]}"), "truncated"),
    "content that is a number": (PLAIN + delta(10**18) + data("[DONE]"), "bad_json"),
    "choices that are a text": (PLAIN + data('{"choices":"none"}') + data("[DONE]"), "bad_json"),
    "usage of NaN": (
        PLAIN + GOOD + data('{"choices":[],"usage":{"completion_tokens":NaN}}') + data("[DONE]"),
        "ok",
    ),
    "usage of 1e308": (
        PLAIN + GOOD + data('{"choices":[],"usage":{"completion_tokens":1e308}}') + data("[DONE]"),
        "ok",
    ),
    "an index of -1": (PLAIN + data('{"choices":[{"index":-1,"delta":{"content":"Hi"}}]}'), "truncated"),
    "100,000 blank lines": (PLAIN + b"\n" * 100_000, "truncated"),
    "an encoding that is none": (SSE + b"Content-Encoding: brotli9\r\n\r\n" + GOOD, "bad_json"),
    "gzip in gzip": (
        SSE + b"Content-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(gzip.compress(GOOD)),
        "bad_json",
    ),
    "torn gzip": (SSE + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD)[:-9], "truncated"),
    "a gzip bomb of a million events": (
        SSE + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD + b"data: {}\n\n" * 2**20),
        "oversized",
    ),
    "an hour to wait": (retry_after("3600"), "http_429"),
    "to wait for ever": (retry_after("inf"), "http_429"),
    "no number to wait": (retry_after("nan"), "http_429"),
    "1e308 seconds to wait": (retry_after("1e308"), "http_429"),
    "less than nothing to wait": (retry_after("-9"), "http_429"),
    "four thousand digits to wait": (retry_after("9" * 4_000), "http_429"),
}
LARGE = ("a gzip bomb of a million events",)


@pytest.mark.parametrize(
    "how",
    [pytest.param(how, marks=pytest.mark.slow if how in LARGE else ()) for how in HOSTILE],
)
async def test_a_hostile_answer_ends_one_turn_by_name(serve: Any, client: Any, how: str) -> None:
    answer, outcome = HOSTILE[how]

    async def script(peer: Any) -> None:
        if peer.number == 0:
            await peer.request()
            for part in answer.split(LATER):
                await peer.send(part)
                await asyncio.sleep(0.03)
        else:
            await peer.answer("Hi", " there")

    server = await serve(script)
    person = client(server.url, idle_timeout_s=1.0, deadline_s=2.0)
    await person.ended(person.start())
    (record,) = person.records
    assert record.outcome == outcome, record.error
    assert len(record.error or "") <= 500
    assert (record.error or "").isprintable()
    await person.ended(person.start())
    assert person.records[-1].outcome == "ok", "the next turn"


@pytest.mark.parametrize(
    ("value", "recorded", "noted"),
    [
        ("inf", "inf, ignored", False),
        ("nan", "nan, ignored", False),
        ("1e308", "1e+308 s", True),
        ("3600", "3600 s", True),
        ("-9", "0 s", False),
        ("9" * 4000, f"{'9' * 40}, ignored", False),
        ("tomorrow", "tomorrow, ignored", False),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_retry_never_waits_longer_than_the_deadline_and_what_was_asked_is_told(
    serve: Any, client: Any, value: str, recorded: str, noted: bool
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(retry_after(value))
        else:
            await peer.head()
            await peer.finish(peer.words("Hi") + peer.END)

    person = client((await serve(script)).url, retry=1, deadline_s=0.4)
    async with asyncio.timeout(5):
        await person.ended(person.start())
    refused, answered = person.records
    assert (refused.outcome, answered.outcome) == ("http_429", "ok")
    assert f"(Retry-After: {recorded})" in refused.error
    notes = [each.what for each in person.messages if isinstance(each, AnswersOdd)]
    assert [note for note in notes if "more time than --deadline" in note] == notes
    assert bool(notes) is noted
