"""The truth log: it must agree with what a client on the same machine saw, also when things go wrong."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import statistics
import sys
import termios
import threading
import time

import pytest

from serve.emulator.connection import ClientConnection
from serve.emulator.reactor import Reactor

TTFT_NS, ITL_NS = 40_000_000, 4_000_000


@pytest.fixture
def timed(start_emulator):
    return start_emulator("--schedule", "fixed", "--ttft", "40ms", "--itl", "4ms")


@pytest.mark.timing
def test_the_log_and_a_client_agree_on_every_event(timed, make_chat):
    got = timed.ask(body=make_chat(max_tokens=50, stream=True), X_Request_Id="run/0/1/1")
    timed.stop()
    (row,) = timed.truth()
    assert row["request_id"] == "run/0/1/1"
    assert (row["output_tokens"], row["aborted"]) == (50, False)
    seen = got.content_arrivals_ns()
    assert len(seen) == len(row["event_ns"]) == 50
    assert row["received_ns"] < row["head_ns"] < row["event_ns"][0]
    assert row["event_ns"][-1] <= row["end_ns"]
    # A client may be slow to look, and the stamp is taken just after the event has left.
    differences = [saw - sent for saw, sent in zip(seen, row["event_ns"], strict=True)]
    assert min(differences) > -20_000_000
    assert abs(statistics.median(differences)) < 2_000_000


@pytest.mark.timing
def test_events_go_out_when_they_are_due_and_never_before(timed, make_chat):
    timed.ask(body=make_chat(max_tokens=200, stream=True))
    timed.stop()
    (row,) = timed.truth()
    first_due = row["received_ns"] + TTFT_NS
    late = [at - (first_due + i * ITL_NS) for i, at in enumerate(row["event_ns"])]
    assert min(late) >= 0
    assert statistics.median(late) < 1_500_000


@pytest.mark.timing
@pytest.mark.parametrize(("when", "waits"), [("at-once", False), ("first-token", True)])
def test_the_event_that_opens_a_stream_comes_at_once_or_with_the_first_token(
    start_emulator, make_chat, when, waits
):
    emulator = start_emulator("--schedule", "fixed", "--ttft", "300ms", "--itl", "1ms", "--opening", when)
    got = emulator.ask(body=make_chat(max_tokens=2, stream=True))
    emulator.stop()
    (row,) = emulator.truth()
    assert "role" in got.chunks()[0]["choices"][0]["delta"]
    assert (got.arrived_ns[0] > row["received_ns"] + 290_000_000) == waits


def test_an_answer_in_one_piece_has_no_events_but_its_times(timed, make_chat):
    timed.ask(body=make_chat(max_tokens=10))
    timed.stop()
    (row,) = timed.truth()
    assert row["event_ns"] == []
    assert row["end_ns"] - row["received_ns"] >= TTFT_NS + 9 * ITL_NS


@pytest.mark.parametrize("schedule", ["fixed", "roofline"])
def test_a_stream_that_the_client_cuts_is_stopped_and_booked_as_aborted(start_emulator, make_chat, schedule):
    emulator = start_emulator("--schedule", schedule)
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=10)
    body = make_chat("hi", max_tokens=1000, stream=True, ignore_eos=True)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"X-Request-Id": "cut"})
    response = connection.getresponse()
    for _ in range(8):
        response.readline()
    emulator.wait_for_metric("num_requests_running", 1)
    response.close()
    connection.close()
    emulator.wait_for_metric("num_requests_running", 0)
    assert emulator.metric("kv_cache_usage_perc") == 0
    emulator.stop()
    (row,) = emulator.truth()
    assert row["aborted"] is True
    assert row["request_id"] == "cut"
    assert 1 <= len(row["event_ns"]) <= row["output_tokens"] < 1000


def test_a_stream_under_way_when_the_emulator_stops_is_booked_too(timed, make_chat):
    asked = threading.Thread(target=timed.ask, kwargs={"body": make_chat(max_tokens=1000)})
    asked_failed: list[BaseException] = []
    threading.excepthook, kept = (lambda args: asked_failed.append(args.exc_value)), threading.excepthook
    asked.start()
    timed.wait_for_metric("num_requests_running", 1)
    code, out, err = timed.stop()
    asked.join(10)
    threading.excepthook = kept
    assert asked_failed
    assert (code, err) == (0, "")
    assert out.startswith("lateness: ")
    assert [row["aborted"] for row in timed.truth()] == [True]


def test_the_emulator_tells_its_lateness_when_it_stops(timed, make_chat):
    timed.ask(body=make_chat(max_tokens=30, stream=True))
    code, out, _err = timed.stop()
    assert code == 0
    assert out.startswith("lateness: 30 events sent, p50 ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps arrivals")
def test_a_request_came_when_the_kernel_got_it_even_if_the_emulator_was_not_looking(timed):
    body = b'{"prompt":"x","max_tokens":2}'
    os.kill(timed.process.pid, signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", timed.port), timeout=10) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        sent_ns = time.time_ns()
        time.sleep(0.4)
        os.kill(timed.process.pid, signal.SIGCONT)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
    timed.stop()
    (row,) = timed.truth()
    assert row["received_ns"] < sent_ns + 50_000_000
    assert row["end_ns"] > sent_ns + 400_000_000


def test_bytes_that_the_kernel_does_not_take_are_stamped_when_they_have_left():
    reactor = Reactor()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    connection = ClientConnection(reactor, ours, lambda *_: None, lambda _: None)
    block = b"x" * 1000
    sent: list[int] = []
    for _ in range(200):
        connection.write(block, sent.append)
    taken_at_once = len(sent)
    waiting = bytearray(4)
    fcntl.ioctl(theirs, termios.FIONREAD, waiting)
    assert 0 < taken_at_once < 150
    assert taken_at_once == int.from_bytes(waiting, sys.byteorder) // len(block)
    read_from_ns = time.monotonic_ns()
    got = 0
    theirs.settimeout(5)
    while got < 200 * len(block):
        got += len(theirs.recv(65_536))
        reactor._serve_sockets()
    assert len(sent) == 200
    assert sent == sorted(sent)
    assert all(at < read_from_ns for at in sent[:taken_at_once])
    assert all(at >= read_from_ns for at in sent[taken_at_once:])
    connection.close()
    theirs.close()
