"""The event stream grammar, both ways through the decoder against a plain reading of the standard."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import loadgen.transport._sse as module
from loadgen.transport._sse import EventStream, _by_line, _plain, event_stream
from tests.tries import tries

BOM = b"\xef\xbb\xbf"
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
VALUES = st.sampled_from([b"", b" ", b"a", b" a", b"  a", b"a:b", b"data: x", '{"é"}'.encode(), b"[DONE]"])
FIELDS = st.sampled_from([b"data:", b"data: ", b"event: ", b"id:", b"retry: ", b":", b": ", b"data ", b"x"])
LINES = st.just(b"") | st.just(b"data") | st.tuples(FIELDS, VALUES).map(b"".join)


def events(body: bytes) -> list[tuple[bytes, int]]:
    return event_stream(body).events


def by_the_standard(body: bytes) -> list[tuple[bytes, int]]:
    """A slow decoder, one byte after the other, as the HTML standard's grammar reads."""
    position = len(BOM) if body.startswith(BOM) else 0
    found: list[tuple[bytes, int]] = []
    line, data = b"", None
    while position < len(body):
        byte = body[position : position + 1]
        position += 1
        if byte not in (b"\r", b"\n"):
            line += byte
            continue
        if byte == b"\r" and body[position : position + 1] == b"\n":
            position += 1
        name, colon, value = line.partition(b":")
        if not line:
            if data is not None:
                found.append((data[:-1], position))
            data = None
        elif name == b"data":
            value = value.removeprefix(b" ") if colon else b""
            data = (data or b"") + value + b"\n"
        line = b""
    return found


def departs(found: EventStream) -> bool:
    """Where the standard is left on purpose: whole objects line by line are an event each, and so is an error
    that a stream reports, be it as `error:` or without data."""
    return found.unclosed_lines or found.failed is not None


@given(st.booleans(), st.lists(st.tuples(LINES, LINE_ENDS), max_size=25), st.binary(max_size=5))
@tries(400)
def test_any_stream_is_read_as_the_standard_says(
    bom: bool, lines: list[tuple[bytes, bytes]], rest: bytes
) -> None:
    body = (BOM if bom else b"") + b"".join(line + end for line, end in lines) + rest
    found = event_stream(body)
    assume(not departs(found))
    assert found.events == by_the_standard(body)


@given(st.lists(LINES, max_size=25), st.binary(max_size=5))
@example([], BOM)  # the way by line is told where the text begins
@tries(300)
def test_the_fast_way_and_the_way_by_line_agree(lines: list[bytes], rest: bytes) -> None:
    body = b"\n".join(lines) + rest.replace(b"\r", b"")
    found = EventStream()
    _by_line(found, body, len(BOM) if body.startswith(BOM) else 0)
    assert _plain(body) in (None, found.events)
    assert event_stream(body) == found


@given(st.binary())
def test_any_bytes_at_all_are_read_as_the_standard_says(body: bytes) -> None:
    found = event_stream(body)
    assume(not departs(found))
    assert found.events == by_the_standard(body)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_each_line_end_ends_a_line(end: bytes) -> None:
    body = b"data: 1" + end + end + b"data: 2" + end + end
    half = len(body) // 2
    assert events(body) == [(b"1", half), (b"2", len(body))]


def test_comments_and_other_fields_are_ignored() -> None:
    assert [data for data, _ in events(b": ping\n\nevent: x\nid: 7\nretry: 1\ndata: 1\n\n")] == [b"1"]


def test_data_over_several_lines_are_joined() -> None:
    assert [data for data, _ in events(b"data: {\ndata: }\n\n")] == [b"{\n}"]


def test_only_one_leading_space_is_taken_off() -> None:
    assert [data for data, _ in events(b"data:a\n\ndata:  b\n\n")] == [b"a", b" b"]


def test_a_byte_order_mark_is_passed_over_at_the_start_only() -> None:
    body = BOM + b"data: 1\n\n" + BOM + b"data: 2\n\n"
    assert events(body) == [(b"1", 12)]


@pytest.mark.parametrize("last", [b"data: 2", b"data: 2\n", b"data: 2\r\n"])
def test_an_event_without_its_blank_line_is_kept_apart(last: bytes) -> None:
    found = event_stream(b"data: 1\n\n" + last)
    assert ([data for data, _ in found.events], found.unfinished) == ([b"1"], b"2")


def test_an_event_that_the_stream_calls_an_error_is_known() -> None:
    assert event_stream(b"data: 1\n\nevent: error\ndata: 2\n\ndata: 3\n\n").failed == 1
    assert event_stream(b"event: error\ndata: 2").failed == 0
    assert event_stream(b"event: error\n\ndata: 1\n\n").failed == 0, "without a word, too"
    assert event_stream(b"data: 1\n\nerror: 2\n\n").failed == 1, "llama.cpp's"


def test_lines_that_are_no_fields_are_kept_apart() -> None:
    found = event_stream(b'data: 1\n\n{\n"error": "x"\n}\n: ping\nid: 5\n\ndata: 2\n\n')
    assert (len(found.events), found.stray) == (2, b'{\n"error": "x"\n}\n')
    assert len(event_stream(b"x" * 10_000_000).stray) < 100_000
    assert event_stream(b"data: 1\n\n<html>").stray == b"<html>\n"
    assert event_stream(b"data: 1\n\nda").stray == b"", "the beginning of a field is none"


def test_an_event_ends_after_its_blank_line() -> None:
    body = b"\n\n: x\n\ndata: 1\n\n\n\ndata: 2\n\n"
    assert [body[:end][-9:] for _, end in events(body)] == [b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_of_a_flood_the_first_lines_are_read(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 6)
    three = b"".join(b"data: %d" % n + end + end for n in (1, 2, 3))
    for more, cut in ((b"", False), (b": more", False), (b"data: 4" + end + end, True)):
        found = event_stream(three + more)
        assert ([data for data, _ in found.events], found.cut) == ([b"1", b"2", b"3"], cut)
