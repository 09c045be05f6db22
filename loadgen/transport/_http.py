"""aiohttp with arrival times: it keeps connections, TLS, proxies and the pool; the log of reads is ours."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.hdrs import CONTENT_TYPE
from aiohttp.http_writer import StreamWriter
from yarl import URL

from loadgen.transport._read_log import LAST_CHUNK, ReadLog
from loadgen.transport._reader import StampedReader

current_log: ContextVar[ReadLog] = ContextVar("current_log")
"""The log of the request that the running task is about to send."""

# aiohttp must never pause the reading of a stream that we hold back until its end.
_READ_BUFFER_BYTES = 1 << 30
_SHORT_BYTES = 1 << 16
"""A request's body that the kernel takes at once."""


class _StampedWrites:
    """The transport of a socket that reports each write to its handler, before and after.

    It reads nothing while the reader does: aiohttp asks for that at the end of every response.
    """

    def __init__(self, transport: asyncio.Transport, handler: StampedHandler) -> None:
        self._transport = transport
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self._handler.before_write(len(data))
        self._transport.write(data)
        self._handler.after_write()

    def pause_reading(self) -> None:
        if not self._handler.is_taken:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._handler.is_taken:
            self._transport.resume_reading()

    def writelines(self, parts: Any) -> None:
        whole = list(parts)
        self._handler.before_write(sum(map(len, whole)))
        self._transport.writelines(whole)
        self._handler.after_write()


class StampedHandler(ResponseHandler):
    """aiohttp's side of one connection, keeping the log of the request under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: StampedReader) -> None:
        super().__init__(loop=loop)
        self.log: ReadLog | None = None
        self.used = False
        self.is_taken = False
        """Whether the reader reads this connection, and not asyncio. This and the next two are its to set."""
        self.port = 0
        """The local one; where the wire clock needs it."""
        self.read_bytes: int | None = None
        """How much of the connection's stream was read; None where nobody asks or the kernel is silent."""
        self.opening_ns = 0
        """How long it took to open, if it was opened before there was a request for it."""
        self.raw_transport: asyncio.Transport = None  # type: ignore[assignment]  # from connection_made on
        self._reader = reader
        self._stamps_sends = False
        self._written_bytes = 0
        """What was written since transmit stamps are on: under TLS, ciphertext."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ssl_protocol = getattr(transport, "_ssl_protocol", None)
        self.raw_transport = cast(
            asyncio.Transport, transport if ssl_protocol is None else ssl_protocol._transport
        )
        # With no slack, resume_writing is called only when the kernel has taken everything.
        self.raw_transport.set_write_buffer_limits(0)
        writes: Any = _StampedWrites(self.raw_transport, self)
        if ssl_protocol is None:
            transport = writes
        else:  # what is counted is what the kernel gets
            ssl_protocol._transport = writes
        super().connection_made(transport)

    def is_connected(self) -> bool:
        """Whether a request can be sent; the pool asks. A close by the server may be here that nobody saw."""
        return super().is_connected() and not (self.log is None and self._reader.has_ended(self))

    def begin(self, log: ReadLog) -> None:
        """From now on this connection's reads belong to `log`."""
        if self.log is not None:  # the pool was quicker than the end of the request before
            self._reader.finish(self, self.log)
        self._reader.take(self)
        if not self._stamps_sends:
            self._stamps_sends, self._written_bytes = True, 0
            self._reader.stamp_sends(self)
        self._reader.begin(self, log)
        self.log, log.connection = log, self
        log.reused, self.used = self.used, True

    def finish(self, log: ReadLog) -> None:
        """The request of `log` is over; while the connection is idle the reader watches it for a close."""
        if self.log is log:
            if self._stamps_sends:
                self._reader.take_transmit_stamps(self)
            if not log.sent_by_kernel:  # a stamp that came later would wake asyncio until somebody reads it
                self._stop_stamping_sends()
            self._reader.finish(self, log)
            self.log = None

    def stream_begins(self) -> None:
        """The head has said that an event stream follows."""
        self._reader.hold(self)
        if self.log is not None and self.log.sent_by_kernel:  # else each read would carry a second message
            self._stop_stamping_sends()

    @property
    def look_bytes(self) -> int | None:
        """How much of the stream comes with one read while much comes; None: any little."""
        return self._reader.look_bytes(self)

    def _stop_stamping_sends(self) -> None:
        self._stamps_sends = False
        self._reader.stop_stamping_sends(self)

    def catch_up(self) -> None:
        """Read what has come and waits to be more."""
        if self.log is not None:
            self._reader.catch_up(self.log)

    def before_write(self, size_bytes: int) -> None:
        """The request's last byte leaves no earlier than now, as far as the kernel does not say better.

        What is written once the answer has begun is no part of the request: to a server that closes, TLS says
        goodbye in the very round in which the answer ends.
        """
        self._written_bytes += size_bytes
        if self.log is not None and not self.log.raw:
            self.log.will_send(self._reader.now_ns(), self._written_bytes)

    def after_write(self) -> None:
        if self.log is not None:
            if not self.log.raw:
                self.log.write_ns = self._reader.now_ns()
            self._reader.take_transmit_stamps(self)

    def resume_writing(self) -> None:
        self.after_write()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        log = self.log
        if log is None or not data:
            super().data_received(data)
            return
        log.add(data, self._reader.arrival_ns, self._reader.lag_ns)
        if log.deferred_from is None:
            super().data_received(data)
        elif log.may_have_ended():
            self.look_at_end()

    def look_at_end(self) -> None:
        """What came may be the whole: have the request look at it, when it is its turn to work.

        Where an empty line ends every event, aiohttp is given each at once: else each would wake the request.
        """
        assert self.log is not None
        if self.log.has_last_chunk():
            self.log.wake.set()
        else:
            self.flush()

    def flush(self) -> None:
        """Give aiohttp in one call what was kept back; if that was not the end, go on keeping back."""
        log = self.log
        if log is not None and log.deferred_from is not None:
            begin, chunk = log.deferred_from, None
            if log.plain is None and log.has_last_chunk():
                log.take_plain()
            if log.plain is not None:
                # aiohttp needs to know that the body is over, not what was in it.
                chunk = log.plain.next_chunk(log.raw, begin)
            kept = bytes(log.raw[begin:chunk]) + (b"" if chunk is None else LAST_CHUNK)
            log.deferred_from = len(log.raw)
            payload = self._payload
            super().data_received(kept)
            if payload is None or payload.is_eof():
                log.wake.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.flush()
        if self.log is not None:
            self.log.reset = exc if isinstance(exc, OSError) else self.log.reset
            self.log.wake.set()
        self._reader.give_back(self)
        payload = self._payload
        # A method of its own, which asyncio keeps in it, would make each closed transport a cycle.
        vars(self.raw_transport).pop("_read_ready_cb", None)
        super().connection_lost(exc)
        # aiohttp does not report that a body ended in chunks it could not read.
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the connection ended before the body"))
        del payload  # its exception leads to this frame


class StampedConnector(aiohttp.TCPConnector):
    """A pool without a limit whose connections carry the log of the task that asked for them."""

    def __init__(self, reader: StampedReader, unix_socket: str | None = None, **options: Any) -> None:
        if reader.wire_ports is not None:
            options["socket_factory"] = reader.wire_ports.socket
        super().__init__(limit=0, **options)
        self._reader = reader
        self._unix_socket = unix_socket
        self._factory = cast(Any, functools.partial(StampedHandler, loop=self._loop, reader=reader))

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 (aiohttp's signature)
        started_ns = self._reader.now_ns()
        connection = await super().connect(req, traces, timeout)
        log = current_log.get()
        handler = cast(StampedHandler, connection.protocol)
        handler.begin(log)
        log.connect_ns = 0 if log.reused else handler.opening_ns or self._reader.now_ns() - started_ns
        return connection

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        if self._unix_socket is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, handler = await self._loop.create_unix_connection(
                    cast(Any, self._factory), self._unix_socket
                )
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise aiohttp.ServerTimeoutError(f"no connection to {self._unix_socket}") from error
            raise UnixClientConnectorError(self._unix_socket, req.connection_key, error) from error
        return handler

    async def spare(self, url: URL, timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109 (aiohttp's)
        """A connection for a request to come, free or new; `release` puts it where that one will look."""
        started_ns = self._reader.now_ns()
        request = aiohttp.ClientRequest("POST", url, loop=self._loop)
        connection = await super().connect(request, [], timeout)
        handler = cast(StampedHandler, connection.protocol)
        if not handler.used and not handler.opening_ns:
            handler.opening_ns = self._reader.now_ns() - started_ns
        return connection


class PromptRequest(aiohttp.ClientRequest):
    """A request that leaves at once: one of usual length with its head, and without a task for its body.

    On Python 3.11 aiohttp writes each body in a task of its own: a round of the loop later, behind what
    others do.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        body, protocol = self._body, conn.protocol
        if not self._is_usual or body is None or protocol is None or protocol.writing_paused:
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await body.write_with_length(writer, body.size)
        writer.set_eof()
        protocol.start_timeout()
        assert self.response_class is not None
        response = self.response = self.response_class(  # type: ignore[assignment]
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=[],
            loop=self.loop,
            session=cast(Any, self._session),
            stream_writer=writer,
        )
        return response

    @property
    def _is_usual(self) -> bool:
        """Whether it is as ours nearly always are: nothing that aiohttp would do to it is to be done."""
        return (
            isinstance(self._body, aiohttp.BytesPayload)
            and (self._body.size or 0) <= _SHORT_BYTES
            and CONTENT_TYPE in self.headers
            and self.proxy is None
            and self.chunked is None
            and not self.compress
            and self._continue is None
        )

    def write_bytes(self, *given: Any) -> Coroutine[Any, Any, None]:
        if sys.version_info >= (3, 12):
            return super().write_bytes(*given)
        work = super().write_bytes(*given)
        try:
            waits_for = work.send(None)
        except StopIteration:
            return _finished()
        return _go_on(work, waits_for)


async def _finished() -> None: ...


@types.coroutine
def _go_on(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """The rest of this work, which waits for that."""
    while True:
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 (it is the work's to deal with)
            step = functools.partial(work.throw, error)
        else:
            step = functools.partial(work.send, None)
        try:
            waits_for = step()
        except StopIteration:
            return


def open_session(
    reader: StampedReader,
    *,
    connect_timeout_s: float,
    ssl: Any,
    trust_env: bool,
    unix_socket: str | None = None,
) -> aiohttp.ClientSession:
    """A session for streaming requests: no cookies, no compression, no limits but the connect time-out.

    `ssl` is aiohttp's: True for the default checks, False for none, or a context. With `unix_socket` every
    connection goes to that file, whatever the URL's host.
    """
    return aiohttp.ClientSession(
        connector=StampedConnector(reader, unix_socket, ssl=ssl),
        request_class=PromptRequest,
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER_BYTES,
        auto_decompress=False,
        trust_env=trust_env,
    )
