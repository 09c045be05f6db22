"""The relay before a real server (`benchmarks.relay`): it changes nothing and notes what passed, and when."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns
from typing import Any

from benchmarks.relay import Relay
from serve.emulator.records import _EPOCH_OFFSET_NS

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
END = b"0\r\n\r\n"


def now_ns() -> int:
    return monotonic_ns() + _EPOCH_OFFSET_NS


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(*deltas: dict[str, str], **more: Any) -> bytes:
    said = {"choices": [{"index": 0, "delta": delta} for delta in deltas], **more}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


OPENING, DONE = event({"role": "assistant", "content": ""}), b"data: [DONE]\n\n"
HEL, LO, YOU = (event({"content": text}) for text in ("Hel", "lo", " you"))


class ScriptedServer:
    """Answers each request of one connection with its pieces, each one when `go` is released."""

    def __init__(self, replies: list[list[bytes]]) -> None:
        self.go = threading.Semaphore(0)
        self.sent_ns: list[int] = []
        self._replies = replies
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listening, self._listening.accept()[0] as sock:
            for pieces in self._replies:
                asked = b""
                while not asked.endswith((b"}", b"\r\n\r\n")):
                    asked += sock.recv(65_536)
                for piece in pieces:
                    self.go.acquire()
                    self.sent_ns.append(now_ns())
                    sock.sendall(piece)
            sock.recv(1)


class Client:
    """Asks over one connection, and notes when it had each piece."""

    def __init__(self, url: str, server: ScriptedServer) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.sock = socket.create_connection((host, int(port)), timeout=10)
        self.got_ns: list[int] = []
        self._server = server

    def ask(self, request_id: str, in_halves: bool = False) -> int:
        """Send a request; the moment before its last byte was sent."""
        body = b'{"stream": true}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: {request_id}\r\nContent-Length: {len(body)}"
        )
        request = head.encode() + b"\r\n\r\n" + body
        if in_halves:
            self.sock.sendall(request[:-5])
            request = request[-5:]
            time.sleep(0.02)
        asked_ns = now_ns()
        self.sock.sendall(request)
        return asked_ns

    def get(self, pieces: list[bytes]) -> None:
        """Have the server send these, and see that they come as they were sent."""
        for piece in pieces:
            self._server.go.release()
            got = b""
            while len(got) < len(piece):
                got += self.sock.recv(len(piece) - len(got))
            self.got_ns.append(now_ns())
            assert got == piece


@contextmanager
def relayed(replies: list[list[bytes]], log: Path) -> Iterator[tuple[Client, ScriptedServer]]:
    server = ScriptedServer(replies)
    with log.open("wb") as file, Relay(server.url, file) as relay:
        threading.Thread(target=relay.serve_forever, args=(0.01,), daemon=True).start()
        client = Client(relay.url, server)
        with client.sock:
            yield client, server
        relay.shutdown()


def rows_of(log: Path, count: int) -> list[dict[str, Any]]:
    """The lines, as soon as there are so many: a line is written after its last bytes were passed on."""
    give_up = time.monotonic() + 10
    while len(lines := log.read_bytes().splitlines()) < count and time.monotonic() < give_up:
        time.sleep(0.005)
    return [json.loads(line) for line in lines]


def test_each_event_of_each_answer_is_noted_between_the_server_s_sending_and_the_client_s_getting(
    tmp_path: Path,
) -> None:
    usage = event(usage={"completion_tokens": 7})
    first = [
        HEAD + chunk(OPENING),
        chunk(HEL + LO),
        chunk(YOU[:20]),
        chunk(YOU[20:]),
        chunk(usage + DONE) + END,
    ]
    second = [HEAD, chunk(OPENING + HEL)[:30], chunk(OPENING + HEL)[30:], chunk(LO), END]
    log = tmp_path / "truth.jsonl"
    with relayed([first, [HEALTHY], second], log) as (client, server):
        asked_ns = [client.ask("run/0/1/1", in_halves=True)]
        client.get(first)
        client.sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        client.get([HEALTHY])
        asked_ns.append(client.ask("run/0/2/1"))
        client.get(second)
        rows = rows_of(log, 2)
    assert [row["request_id"] for row in rows] == ["run/0/1/1", "run/0/2/1"]
    assert [row["output_tokens"] for row in rows] == [7, 2]
    assert not any(row["aborted"] for row in rows)
    for row, pieces, at_ns in zip(rows, ([1, 1, 3], [8, 9]), asked_ns, strict=True):
        assert at_ns - 1_000_000 < row["received_ns"] < row["head_ns"] <= row["event_ns"][0]
        for piece, event_ns in zip(pieces, row["event_ns"], strict=True):
            assert server.sent_ns[piece] <= event_ns <= client.got_ns[piece]


def test_an_answer_that_the_client_leaves_is_noted_as_aborted(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with relayed([[HEAD + chunk(OPENING + HEL), chunk(LO)]], log) as (client, _):
        client.ask("run/0/1/1")
        client.get([HEAD + chunk(OPENING + HEL), chunk(LO)])
        client.sock.close()
        (row,) = rows_of(log, 1)
    assert (row["aborted"], len(row["event_ns"]), row["output_tokens"]) == (True, 2, 2)
