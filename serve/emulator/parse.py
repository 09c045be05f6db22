"""Reads HTTP requests from bytes, however they are cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

MAX_BODY_BYTES = 32 * 1024 * 1024


class BadRequest(Exception):
    """What came is no request that can be answered; `status` and text say why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request, complete. `received_ns` is the monotonic moment its last byte came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_ns: int
    keep_alive: bool
    version: str


@dataclass(slots=True)
class _Draft:
    url: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    size: int = 0


class RequestReader:
    """Collects complete requests in `ready`; calls `go_on` for a client that waits before it sends a body."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.ready: deque[Request] = deque()
        self._go_on = go_on
        self._parser = httptools.HttpRequestParser(self)
        self._draft = _Draft()
        self._arrived_ns = 0

    def feed(self, data: bytes, arrived_ns: int) -> None:
        """Take the next bytes, which came at that monotonic moment; raises BadRequest."""
        self._arrived_ns = arrived_ns
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise BadRequest(400, "Invalid HTTP request received.") from None
        if self._draft.size > MAX_BODY_BYTES:
            raise BadRequest(413, "The request body is larger than 32 MiB.")

    # Called by the parser

    def on_message_begin(self) -> None:
        self._draft = _Draft()

    def on_url(self, url: bytes) -> None:
        self._draft.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._draft.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._draft.headers.get("expect", "").lower() == "100-continue":
            self._go_on()

    def on_body(self, body: bytes) -> None:
        self._draft.size += len(body)
        if self._draft.size <= MAX_BODY_BYTES:
            self._draft.body.append(body)

    def on_message_complete(self) -> None:
        draft, parser = self._draft, self._parser
        self.ready.append(
            Request(
                method=parser.get_method().decode("ascii"),
                path=draft.url.split(b"?", 1)[0].decode("latin-1"),
                headers=draft.headers,
                body=b"".join(draft.body),
                received_ns=self._arrived_ns,
                keep_alive=parser.should_keep_alive(),
                version=parser.get_http_version(),
            )
        )
