"""HTTP as clients send it: cut anywhere, several at once, too large, broken, under TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import time
from itertools import pairwise

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from serve.emulator.connection import BadHttpRequest, RequestReader

BODY = json.dumps({"messages": [{"role": "user", "content": "hé"}], "max_tokens": 2}).encode()
REQUEST = (
    b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: here\r\nX-Request-ID: a/b\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@given(st.lists(st.integers(1, len(REQUEST) * 2 - 1), max_size=12))
def test_requests_are_whole_again_however_they_are_cut(cuts):
    reader = RequestReader(lambda: None)
    both = REQUEST + REQUEST
    edges = [0, *sorted(cuts), len(both)]
    for start, end in pairwise(edges):
        reader.feed(both[start:end], start)
    assert [request.body for request in reader.ready] == [BODY, BODY]
    assert {request.path for request in reader.ready} == {"/v1/chat/completions"}
    assert {request.headers["x-request-id"] for request in reader.ready} == {"a/b"}


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_request_or_nothing_yet(data):
    reader = RequestReader(lambda: None)
    with contextlib.suppress(BadHttpRequest):
        reader.feed(data, 0)


def talk(port: int, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data)
        got = b""
        while chunk := sock.recv(65_536):
            got += chunk
    return got


def test_pipelined_requests_are_answered_in_order_on_one_connection(fixed):
    last = REQUEST.replace(b"Host: here", b"Host: here\r\nConnection: close")
    got = talk(fixed.port, b"GET /health HTTP/1.1\r\n\r\n" * 2000 + REQUEST + last)
    assert got.count(b"HTTP/1.1 200 OK") == 2002
    assert got.rstrip().endswith(b"}")
    assert got.count(b'"chat.completion"') == 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 not http\r\n\r\n", b"400 Bad Request"),
        (b"GET /health HTTP/1.0\r\n\r\n", b"505 HTTP Version Not Supported"),
        (
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 34000000\r\n\r\n" + b"x" * 34_000_000,
            b"413 Content Too Large",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_and_the_connection_closed(fixed, data, status):
    try:
        got = talk(fixed.port, data)
    except ConnectionError:
        # Closed while the client was still sending: the answer may be lost with the rest.
        assert status.startswith(b"413")
    else:
        assert status in got
        assert b"X-Turnbench-Emulated: 1" in got
    assert fixed.get("/health").status == 200


def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(fixed):
    head, body = REQUEST.split(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", fixed.port), timeout=10) as sock:
        sock.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_one_connection_serves_many_streams(fixed, make_chat):
    connection = http.client.HTTPConnection("127.0.0.1", fixed.port, timeout=10)
    connection.connect()
    first = connection.sock
    for _ in range(5):
        body = json.dumps(make_chat(max_tokens=3, stream=True))
        connection.request("POST", "/v1/chat/completions", body)
        assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
        assert connection.sock is first
    connection.close()


def test_streams_come_the_same_under_tls(start_emulator, make_chat, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    options = ("--schedule", "fixed", "--ttft", "5ms", "--itl", "1ms")
    emulator = start_emulator(*options, "--tls-cert", str(cert), "--tls-key", str(key))
    assert emulator.url.startswith("https://")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    connection = http.client.HTTPSConnection("127.0.0.1", emulator.port, timeout=10, context=trust)
    for _ in range(2):
        body = json.dumps(make_chat("long " * 2000, max_tokens=200, stream=True))
        connection.request("POST", "/v1/chat/completions", body)
        assert connection.getresponse().read().count(b"data: ") == 202
    os.kill(emulator.process.pid, signal.SIGSTOP)
    connection.request("POST", "/v1/chat/completions", body)
    sent_ns = time.time_ns()
    time.sleep(0.3)
    os.kill(emulator.process.pid, signal.SIGCONT)
    connection.getresponse().read()
    connection.close()
    # A client that speaks no TLS is dropped, and nobody else notices.
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", emulator.port)) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        sock.recv(100)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    assert emulator.stop()[0] == 0
    truth = emulator.truth()
    assert [len(row["event_ns"]) for row in truth] == [200, 200, 200]
    assert truth[2]["received_ns"] < sent_ns + 50_000_000, "not when it came, but when it was read"
