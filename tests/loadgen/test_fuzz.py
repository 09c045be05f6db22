"""A short stretch of the fuzzed streams; `python -m benchmarks.fuzz_streams` plays 300,000 of them."""

from __future__ import annotations

import random

import pytest

from benchmarks import fuzz_streams
from benchmarks.fuzz_streams import fuzz, read_once
from loadgen.dialects import StreamedReply


@pytest.mark.parametrize("seed", [1, 2])
def test_no_stream_escapes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And some are read while they come, and say the same."""
    ahead: list[StreamedReply | None] = []
    read = fuzz_streams.read_while_it_came
    monkeypatch.setattr(
        fuzz_streams, "read_while_it_came", lambda *given: ahead.append(found := read(*given)) or found
    )
    outcomes, _ = fuzz(1000, seed)
    assert [reply for reply in ahead if reply is not None]
    assert outcomes.total() == 1000
    assert {"ok", "server_error", "bad_json", "truncated"} <= outcomes.keys()


@pytest.mark.parametrize(
    "body",
    [
        b"event: error\ndata: ",
        b"event: error\n\n",
        b'data: {"choices": [{"finish_reason": "sto\xdf"}]}\n\n',
        b'data: {"object": "error", "message": "engine \\udc00 died", "code": 500}\n\n',
    ],
    ids=[
        "an error without data",
        "an error without a word",
        "half a character in a finish reason",
        "half a character in an error",
    ],
)
@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "messages"])
def test_what_fuzzing_found_is_mended(body: bytes, dialect: str) -> None:
    outcome, _ = read_once(random.Random(1), b"HTTP/1.1 200 OK\r\n\r\n" + body, False, "identity", dialect)
    assert outcome in ("server_error", "truncated", "bad_json", "empty")
