"""Everything that can go wrong with a server goes wrong on request, seen by a client of bare sockets."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., "Seen"]


class Seen:
    """The bytes that came, read by read, and how they ended."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.end = "open"

    @property
    def raw(self) -> bytes:
        return b"".join(self.reads)

    @property
    def head(self) -> str:
        return self.raw.split(b"\r\n\r\n", 1)[0].decode()

    @property
    def body(self) -> bytes:
        """The body, taken out of its chunks as far as they are whole."""
        data = self.raw.split(b"\r\n\r\n", 1)[1]
        if "chunked" not in self.head:
            return data
        body = b""
        while b"\r\n" in data:
            size_line, data = data.split(b"\r\n", 1)
            body += data[: int(size_line or b"0", 16)]
            data = data[int(size_line or b"0", 16) + 2 :]
        return body

    @property
    def ended_well(self) -> bool:
        return self.raw.endswith(b"0\r\n\r\n")

    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def text(self) -> str:
        return "".join(
            event["choices"][0]["delta"].get("content") or "" for event in self.events() if event["choices"]
        )


def request(text: str = "hello", tokens: int = 12) -> bytes:
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def see(sock: socket.socket, until: Callable[[Seen], bool], within_s: float = 10.0) -> Seen:
    """Read until enough came, the other side ended it, or the time is over."""
    seen = Seen()
    ends_at = time.monotonic() + within_s
    while not until(seen):
        sock.settimeout(max(ends_at - time.monotonic(), 0.001))
        try:
            data = sock.recv(65536)
        except TimeoutError:
            return seen
        except ConnectionResetError:
            seen.end = "reset"
            return seen
        if not data:
            seen.end = "closed"
            return seen
        seen.reads.append(data)
    return seen


def whole(seen: Seen) -> bool:
    return seen.ended_well


def never(_seen: Seen) -> bool:
    return False


@pytest.fixture
def broken(start_emulator: Any, tmp_path: Path) -> Callable[..., Any]:
    """An emulator with one fault in its first request (or the rest of a faults file)."""

    def start(fault: str, more: str = "") -> Any:
        file = tmp_path / "faults.yaml"
        entries = f"faults: [{{requests: 1, {fault}}}]" if fault else ""
        file.write_text(f"format: turnbench-faults/1\n{more}\n{entries}\n")
        return start_emulator("--schedule", "fixed", "--ttft", "5ms", "--itl", "1ms", "--faults", str(file))

    return start


@pytest.fixture
def ask(broken: Any) -> Ask:
    """What comes of the first request under a fault."""

    def play(
        fault: str, until: Callable[[Seen], bool] = whole, within_s: float = 10.0, tokens: int = 12
    ) -> Seen:
        with socket.create_connection(("127.0.0.1", broken(fault).port)) as sock:
            sock.sendall(request(tokens=tokens))
            return see(sock, until, within_s)

    return play


def test_a_reset_leaves_what_was_sent_and_no_end(ask: Ask) -> None:
    seen = ask("fault: reset, after_events: 4", never)
    assert seen.end == "reset"
    assert len([event for event in seen.events() if event["choices"][0]["delta"].get("content")]) <= 4
    assert not seen.ended_well


def test_a_reset_before_the_head_sends_nothing(ask: Ask) -> None:
    seen = ask("fault: reset, after_events: 0", never)
    assert (seen.end, seen.raw) == ("reset", b"")


def test_a_clean_end_of_file_has_no_done(ask: Ask) -> None:
    seen = ask("fault: eof, after_events: 4")
    assert seen.ended_well
    assert b"[DONE]" not in seen.raw
    assert sum(bool(event["choices"][0]["delta"]["content"]) for event in seen.events()) == 4
    assert all(event["choices"][0]["finish_reason"] is None for event in seen.events())


def test_an_end_of_the_connection_inside_the_body(ask: Ask) -> None:
    seen = ask("fault: eof, after_events: 4, end: connection", never)
    assert (seen.end, seen.ended_well) == ("closed", False)


def test_an_answer_shorter_than_the_fault_still_lacks_its_end(ask: Ask) -> None:
    seen = ask("fault: eof, after_events: 400", tokens=5)
    assert seen.ended_well
    assert seen.end == "open"


def test_a_hung_stream_sends_its_first_events_and_then_nothing(ask: Ask) -> None:
    seen = ask("fault: hang, after_events: 2", never, within_s=2.0)
    assert seen.end == "open"
    assert sum(bool(event["choices"][0]["delta"]["content"]) for event in seen.events()) == 2


def test_a_hung_request_gets_no_byte(ask: Ask) -> None:
    seen = ask("fault: hang, after_events: 0", never, within_s=0.3)
    assert (seen.end, seen.raw) == ("open", b"")


def test_a_drip_keeps_its_gap(ask: Ask) -> None:
    started = time.monotonic()
    seen = ask("fault: drip, after_events: 0, gap: 50ms", tokens=6)
    assert time.monotonic() - started >= 6 * 0.05
    assert seen.text().count(" ") >= 1


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_error_status_carries_its_retry_after(ask: Ask, status: int) -> None:
    seen = ask(f"fault: status, status: {status}, retry_after_s: 7", lambda s: b"}}" in s.raw)
    assert seen.head.startswith(f"HTTP/1.1 {status} ")
    assert "Retry-After: 7" in seen.head
    assert json.loads(seen.body)["error"]["code"] == status


def test_an_error_body_is_as_large_as_asked_for(ask: Ask) -> None:
    seen = ask("fault: status, body_bytes: 3000000", lambda s: s.raw.endswith(b"503}}"))
    assert len(seen.body) >= 3_000_000


def test_a_page_instead_of_an_answer(ask: Ask) -> None:
    seen = ask("fault: html", lambda s: b"</html>" in s.raw)
    assert seen.head.startswith("HTTP/1.1 200 OK")
    assert "text/html" in seen.head


def test_a_redirect_names_its_place(ask: Ask) -> None:
    seen = ask("fault: redirect, status: 302, location: 'http://127.0.0.1:1/x'", lambda s: b"}}" in s.raw)
    assert seen.head.startswith("HTTP/1.1 302 ")
    assert "Location: http://127.0.0.1:1/x" in seen.head


@pytest.mark.parametrize(("kind", "ending"), [("crlf", b"\r\n\r\n"), ("cr", b"\r\r")])
def test_other_line_ends(ask: Ask, kind: str, ending: bytes) -> None:
    body = ask(f"fault: {kind}").body
    assert body.count(ending) >= 13
    assert b"\n" not in body.replace(b"\r\n", b"") if kind == "crlf" else b"\n" not in body


def test_a_byte_order_mark_comes_once(ask: Ask) -> None:
    body = ask("fault: bom").body
    assert body.startswith(b"\xef\xbb\xbfdata: ")
    assert body.count(b"\xef\xbb\xbf") == 1


def test_comments_and_other_fields(ask: Ask) -> None:
    assert b": still here\n\n" in ask("fault: comments").body
    body = ask("fault: event_lines").body
    assert b"event: message\nid: 7\n" in body


def test_an_event_over_many_data_lines(ask: Ask) -> None:
    first = ask("fault: multi_line").body.split(b"\n\n")[0]
    lines = first.split(b"\n")
    assert len(lines) > 5
    assert json.loads(b"\n".join(line.removeprefix(b"data: ") for line in lines))["object"]


def test_a_split_stream_comes_byte_by_byte_and_is_whole_again(ask: Ask) -> None:
    seen = ask("fault: split, bytes: 3, gap: 1ms", tokens=3)
    assert len(seen.reads) > 50
    assert 3 in map(len, seen.reads), "a late reader gets several pieces at once, but never all of them"
    assert len(seen.events()) == 5


def test_many_events_come_in_one_read(ask: Ask) -> None:
    seen = ask("fault: coalesce, events: 1000", tokens=40)
    assert len(seen.reads) <= 2
    assert len(seen.events()) == 42


def test_malformed_json_stands_between_good_events(ask: Ask) -> None:
    body = ask("fault: bad_json, after_events: 2").body
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    bad = [line for line in lines if not line.endswith("}")]
    assert len(bad) == 1
    assert len(lines) == 15


def test_an_error_object_ends_a_good_looking_stream(ask: Ask) -> None:
    seen = ask("fault: error_event, after_events: 2")
    assert seen.head.startswith("HTTP/1.1 200")
    assert seen.events()[-1]["error"]["code"] == 500
    assert b"[DONE]" in seen.raw


def test_an_empty_reply_ends_properly_without_text(ask: Ask) -> None:
    seen = ask("fault: empty")
    assert seen.text() == ""
    assert seen.events()[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_a_reply_of_reasoning_alone(ask: Ask, key: str) -> None:
    seen = ask(f"fault: reasoning_only, key: {key}")
    assert seen.text() == ""
    assert sum(key in event["choices"][0]["delta"] for event in seen.events() if event["choices"]) == 12


def test_usage_is_absent_or_wrong(ask: Ask) -> None:
    assert not any("usage" in event for event in ask("fault: usage_absent").events())
    assert ask("fault: usage_wrong, by: -3").events()[-1]["usage"]["completion_tokens"] == 9


def test_an_oversized_line(ask: Ask) -> None:
    body = ask("fault: oversized, bytes: 2000000").body
    assert max(map(len, body.split(b"\n"))) > 2_000_000


def test_an_endless_stream_goes_on_after_the_answer(ask: Ask) -> None:
    seen = ask("fault: endless", lambda s: s.raw.count(b" more") > 200)
    assert b"[DONE]" not in seen.raw
    assert not seen.ended_well


def test_gzip_around_the_stream(ask: Ask) -> None:
    seen = ask("fault: gzip")
    assert "Content-Encoding: gzip" in seen.head
    assert gzip.decompress(seen.body).endswith(b"data: [DONE]\n\n")


def test_the_connection_serves_the_next_request_after_a_fault(broken: Any) -> None:
    emulator = broken("fault: error_event")
    with socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        sock.sendall(request())
        see(sock, whole)
        sock.sendall(request())
        assert len(see(sock, whole).events()) == 14
    assert emulator.metric("num_requests_running") == 0


def test_no_fault_leaves_a_request_in_the_books(broken: Any) -> None:
    emulator = broken("fault: reset, after_events: 2")
    with socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        sock.sendall(request())
        assert see(sock, never).end == "reset"
    emulator.wait_for_metric("num_requests_running", 0)
    (truth,) = emulator.truth()
    assert truth["aborted"]
    assert len(truth["event_ns"]) == 2


def test_idle_connections_are_closed_and_busy_ones_are_not(broken: Any) -> None:
    emulator = broken("", "close_idle: 200ms")
    with socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        asked = time.monotonic()
        sock.sendall(request(tokens=400))
        assert see(sock, whole).ended_well
        assert see(sock, never).end == "closed"
    assert time.monotonic() - asked >= 0.4 + 0.2, "400 tokens, one a ms, then idle"


def test_a_frozen_server_answers_nobody_for_that_long(broken: Any) -> None:
    emulator = broken("fault: freeze, for: 400ms")
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        sock.sendall(request())
        assert see(sock, whole).ended_well
    assert time.monotonic() - started >= 0.4


def test_a_server_that_dies_is_gone(broken: Any) -> None:
    emulator = broken("fault: die")
    with socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        sock.sendall(request())
        assert see(sock, never).raw == b""
    assert emulator.process.wait(10) == 70


def test_the_other_requests_are_left_alone(broken: Any) -> None:
    emulator = broken("fault: status")
    codes = [
        emulator.ask(body={"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).status
        for _ in "abc"
    ]
    assert codes == [503, 200, 200]
