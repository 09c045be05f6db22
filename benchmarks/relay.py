"""A relay between a load generator and a real server: what the emulator's truth log says of the emulator.

    python -m benchmarks.relay http://127.0.0.1:8000 --truth FILE

Bytes pass unchanged in both directions, one thread a connection. Each streamed answer becomes one line of the
emulator's truth log (`serve.emulator.records`). `received_ns` is the kernel's stamp of the request's last
byte; `event_ns` is, for each event with a token, the moment just before the bytes that end it were handed to
the kernel: when it left this relay, not when the server computed it. `output_tokens` is the server's own
count, or the number of those events where it gives none. Prints `ready: URL`; SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import socketserver
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import BinaryIO
from urllib.parse import urlsplit

import httptools

from serve.emulator.connection import READ_BYTES, RequestReader, arrival_ns, stamp_arrivals
from serve.emulator.records import TruthLog, TruthRecord
from turnbench.clock import ANCILLARY_BYTES, keep_stamps_on


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port and passes on to the server at `url`."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, url: str, truth: BinaryIO) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        where = urlsplit(url)
        self.upstream, self.truth = (where.hostname or "", where.port or 80), TruthLog(truth)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(socketserver.BaseRequestHandler):
    """One connection: requests, and the answer to each in the same order."""

    server: Relay

    def setup(self) -> None:
        self._requests = RequestReader(lambda: None)
        self._answers = httptools.HttpResponseParser(self)
        self._sent_ns = 0
        self.on_message_begin()

    def handle(self) -> None:
        client: socket.socket = self.request
        with suppress(OSError), socket.create_connection(self.server.upstream) as upstream:
            for each in (client, upstream):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stamp_arrivals(client)
            while True:
                ready, _, _ = select.select([client, upstream], [], [])
                if upstream in ready:
                    if not (data := upstream.recv(READ_BYTES)):
                        break
                    self._sent_ns = monotonic_ns()
                    client.sendall(data)
                    self._answers.feed_data(data)
                if client in ready:
                    data, ancillary, _, _ = client.recvmsg(READ_BYTES, ANCILLARY_BYTES)
                    if not data:
                        break
                    upstream.sendall(data)
                    self._requests.feed(data, arrival_ns(ancillary))
        if self._requests.ready:
            self._record(aborted=True)

    # Called by the parser of answers

    def on_message_begin(self) -> None:
        self._event_ns: list[int] = []
        self._head_ns, self._tokens, self._unended = self._sent_ns, 0, b""

    def on_body(self, body: bytes) -> None:
        *events, self._unended = (self._unended + body).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            with suppress(ValueError):  # `[DONE]`, a comment
                said = json.loads(event.removeprefix(b"data:"))
                # The event that opens a stream has the role, and no token.
                if any("role" not in choice.get("delta", ()) for choice in said.get("choices", ())):
                    self._event_ns.append(self._sent_ns)
                self._tokens = (said.get("usage") or {}).get("completion_tokens", self._tokens)

    def on_message_complete(self) -> None:
        if self._answers.get_status_code() >= 200:  # after a lower one comes the answer itself
            self._record(aborted=False)

    def _record(self, aborted: bool) -> None:
        request = self._requests.ready.popleft()
        if self._event_ns:
            self.server.truth.write(
                TruthRecord(
                    request_id=request.headers.get("x-request-id"), received_ns=request.received_ns,
                    head_ns=self._head_ns, event_ns=self._event_ns, end_ns=self._sent_ns,
                    output_tokens=self._tokens or len(self._event_ns), aborted=aborted,
                )
            )  # fmt: skip
            self._event_ns = []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="the server's")
    parser.add_argument("--truth", type=Path, required=True, help="where the log is written")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with keep_stamps_on(), options.truth.open("wb") as truth, Relay(options.url, truth) as relay:
        print(f"ready: {relay.url}", flush=True)
        relay.serve_forever()


if __name__ == "__main__":
    main()
