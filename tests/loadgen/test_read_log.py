"""The log of a connection's reads: any framing, split anywhere, gives the body back with its arrivals."""

from __future__ import annotations

import gzip
import zlib
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.transport._read_log import DECODED_BYTES, ReadLog, body_of, head_end
from tests.tries import tries

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

extensions = st.sampled_from([b"", b";a", b";name=value", b' ; q="a b"'])
trailers = st.sampled_from([b"", b"X-Late: 1\r\n", b"A: b\r\nC: d\r\n"])
bodies = st.binary(max_size=400) | st.lists(st.sampled_from([b"\r\n", b"\n", b"0", b"a", b"data: "])).map(
    b"".join
)


def log_of(raw: bytes, cuts: list[int]) -> ReadLog:
    """A log whose read i arrived at i + 1 nanoseconds, `raw` being cut at these places."""
    log = ReadLog()
    places = sorted({0, *(cut % (len(raw) + 1) for cut in cuts), len(raw)})
    for number, (start, end) in enumerate(pairwise(places)):
        log.add(raw[start:end], number + 1, 0)
    return log


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes, list[int]]:
    """(body, raw response, raw offset just after each byte of the body)."""
    body = draw(bodies)
    raw, offsets = HEAD, []
    for piece in pieces_of(body, draw(st.lists(st.integers(0, 500), max_size=8))):
        size = f"{len(piece):x}" if draw(st.booleans()) else f"{len(piece):04X}"
        raw += size.encode() + draw(extensions) + b"\r\n"
        offsets += range(len(raw) + 1, len(raw) + len(piece) + 1)
        raw += piece + b"\r\n"
    return body, raw + b"0\r\n" + draw(trailers) + b"\r\n", offsets


cut_lists = st.lists(st.integers(0, 2000), max_size=12)


@given(chunked(), cut_lists)
@tries(300)
def test_any_chunking_split_anywhere_gives_the_body_and_each_byte_its_read(
    response: tuple[bytes, bytes, list[int]], cuts: list[int]
) -> None:
    body, raw, offsets = response
    log = log_of(raw, cuts)
    found = body_of(log, chunked=True)
    assert found.data == body
    read_ends = log.ends
    reads = found.reads_of([*range(1, len(offsets) + 1)])
    for read, raw_offset in zip(reads, offsets, strict=True):
        assert read_ends[read] >= raw_offset
        assert read == 0 or read_ends[read - 1] < raw_offset


@given(chunked(), cut_lists, st.integers(0, 2000))
def test_a_body_cut_short_keeps_what_came(
    response: tuple[bytes, bytes, list[int]], cuts: list[int], kept: int
) -> None:
    body, raw, offsets = response
    raw = raw[: kept % (len(raw) + 1)]
    found = body_of(log_of(raw, cuts), chunked=True)
    assert found.data == body[: sum(offset <= len(raw) for offset in offsets)]


@given(st.binary(max_size=300), cut_lists)
def test_a_body_without_chunks_is_all_that_follows_the_head(body: bytes, cuts: list[int]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    log = log_of(head + body, cuts)
    found = body_of(log, chunked=False)
    assert found.data == body
    ends = [*range(1, len(body) + 1)]
    assert found.reads_of(ends) == [log.read_of(len(head) + end) for end in ends]


@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=8),
    st.sampled_from(["gzip", "deflate"]),
    st.booleans(),
    cut_lists,
)
def test_a_compressed_body_is_decoded_and_no_byte_arrives_before_it_was_sent(
    parts: list[bytes], encoding: str, in_chunks: bool, cuts: list[int]
) -> None:
    """The server flushes after each part, so a part is whole once the read with its flush is in."""
    deflate = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    raw = HEAD
    flushed_at = []
    for part in parts:
        piece = deflate.compress(part) + deflate.flush(zlib.Z_SYNC_FLUSH)
        raw += b"%x\r\n" % len(piece) + piece + b"\r\n" if in_chunks else piece
        flushed_at.append(len(raw) - 2 if in_chunks else len(raw))
    rest = deflate.flush()
    raw += b"%x\r\n" % len(rest) + rest + b"\r\n0\r\n\r\n" if in_chunks else rest
    log = log_of(raw, cuts)
    found = body_of(log, in_chunks, encoding)
    assert found.data == b"".join(parts)
    sent_before = len(HEAD)
    reads = found.reads_of([*accumulate(map(len, parts))])
    for read, flushed in zip(reads, flushed_at, strict=True):
        assert log.read_of(sent_before + 1) <= read <= log.read_of(flushed)
        sent_before = flushed


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip"])
def test_the_name_of_an_encoding_has_no_case(name: str) -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\n" + gzip.compress(b"data: 1\n\n")
    assert body_of(log_of(raw, []), False, name).data == b"data: 1\n\n"
    assert body_of(log_of(b"HTTP/1.1 200 OK\r\n\r\nx", []), False, "Identity").data == b"x"


def test_compressed_data_that_are_none_are_broken() -> None:
    found = body_of(log_of(b"HTTP/1.1 200 OK\r\n\r\nplain text", []), False, "gzip")
    assert found.problem is not None
    assert (found.data, found.problem[0]) == (b"", "bad_json")
    assert "can't be decoded" in found.problem[1]


@pytest.mark.parametrize("wbits", [15, 31], ids=["deflate", "gzip"])
def test_what_a_compressed_body_comes_to_has_a_limit(wbits: int) -> None:
    good = b"data: 1\n\n"
    deflate = zlib.compressobj(wbits=wbits)
    first = deflate.compress(good) + deflate.flush(zlib.Z_SYNC_FLUSH)
    bomb = b"".join(deflate.compress(b" " * (1 << 20)) for _ in range(2 * (DECODED_BYTES >> 20)))
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    found = body_of(log_of(head + first + bomb, [len(head) + len(first)]), False, "gzip")
    assert found.problem is not None
    assert (found.data, found.problem[0]) == (good, "oversized")


@pytest.mark.parametrize(
    "size",
    [b"zz", b"", b"-5", b"+5", b"0x5", b"1_0", b" 5", b";a", b"\xff", b"5 5", b"f" * 16, b"1" + b"0" * 4000],
    ids=lambda size: repr(size[:20]),
)
def test_a_bad_chunk_size_ends_the_body_there(size: bytes) -> None:
    raw = HEAD + b"5\r\nhello\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    found = body_of(log_of(raw, []), chunked=True)
    assert found.problem is not None
    assert (found.data, found.problem[0]) == (b"hello", "bad_json")
    assert "chunk size" in found.problem[1]


@given(st.binary(max_size=200), cut_lists)
def test_any_bytes_for_chunks_end_in_a_body(garbage: bytes, cuts: list[int]) -> None:
    found = body_of(log_of(HEAD + garbage, cuts), chunked=True)
    assert len(found.data) <= len(garbage)


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints\r\nLink: </a>"])
def test_interim_responses_are_passed_over(interim: bytes) -> None:
    raw = b"HTTP/1.1 " + interim + b"\r\n\r\n"
    assert head_end(raw) is None
    assert head_end(raw + HEAD) == len(raw + HEAD)
    assert body_of(log_of(raw + raw + HEAD + b"2\r\nhi\r\n0\r\n\r\n", [30]), chunked=True).data == b"hi"


def test_a_response_without_its_whole_head_has_no_body() -> None:
    log = log_of(b"HTTP/1.1 200 OK\r\nContent-Ty", [5])
    assert body_of(log, chunked=True).data == b""
    assert body_of(log, chunked=False).data == b""


@pytest.mark.parametrize(
    ("read", "ended"),
    [
        (b"0\r\n\r\n", True),
        (b"X: y\r\n\r\n", True),
        (b"0\r\n\r", False),
        (b"data: x\n\n\r\n", False),
    ],
)
def test_only_an_empty_line_can_end_a_chunked_body(read: bytes, ended: bool) -> None:
    log = log_of(b"\r\n" + read, [3])
    assert log.may_have_ended() is ended


@given(chunked(), cut_lists)
def test_the_end_of_a_chunked_body_is_never_missed(
    response: tuple[bytes, bytes, list[int]], cuts: list[int]
) -> None:
    _, raw, _ = response
    assert log_of(raw, cuts).may_have_ended()


def test_the_worst_lag_of_all_reads_is_kept() -> None:
    log = ReadLog()
    for lag_ns in (5, 70, 3):
        log.add(b"x", 1, lag_ns)
    assert (log.lag_ns_max, log.raw) == (70, b"xxx")
