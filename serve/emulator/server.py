"""The emulator as a server: its paths, who may use them, and how clients are accepted, with TLS or not."""

from __future__ import annotations

import contextlib
import errno
import hmac
import resource
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from selectors import EVENT_READ
from time import monotonic_ns
from typing import TYPE_CHECKING

import msgspec

from serve.emulator import VERSION
from serve.emulator.connection import ClientConnection, HttpRequest, stamp_arrivals
from serve.emulator.dialects import DIALECTS, EmulatedDialect
from serve.emulator.reactor import Reactor
from serve.emulator.records import Lateness, ServerRecords
from serve.emulator.reply import EmulatedReply
from serve.emulator.request import EmulatedModel, RequestRefused, invalid
from serve.emulator.schedules import AnswerSchedule
from serve.emulator.tokenize import tokenize
from turnbench.files import regular_file

if TYPE_CHECKING:
    from serve.emulator.fault_injection import FaultInjector

BACKLOG = 4096
ACCEPT_BATCH = 32
PAUSE_NS = 50_000_000

OWNER = "turnbench-emulator"
JSON = "application/json"
PERMISSION = {
    "id": "modelperm-emulated",
    "object": "model_permission",
    "created": 0,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
METRICS = "text/plain; version=1.0.0; charset=utf-8"


Page = tuple[str, bytes]
"""Content type and body."""


class BadEmulatorOptions(Exception):
    """Something the person who started the emulator must change; the text says what."""


class EmulatorApp:
    """Answers the requests of all connections. `dev_mode` opens the paths that vLLM keeps for it."""

    def __init__(
        self,
        model: EmulatedModel,
        schedule: AnswerSchedule,
        records: ServerRecords,
        api_key: str | None,
        injector: FaultInjector | None = None,
        dev_mode: bool = False,
        dialects: Sequence[EmulatedDialect] = DIALECTS,
    ) -> None:
        self._model = model
        self._schedule = schedule
        self._records = records
        self._api_key = api_key
        self._injector = injector
        # What is late on purpose says nothing of this process: its lateness is kept apart.
        self._faulty_records = records if injector is None else replace(records, lateness=Lateness())
        self._started_s = int(time.time())
        self._answered = 0
        self._dialects = {dialect.path: dialect for dialect in dialects}
        self._pages: dict[str, tuple[str, Callable[[HttpRequest], Page]]] = {
            "/health": ("GET", lambda _: ("", b"")),
            "/ping": ("GET", lambda _: ("", b"")),
            "/version": ("GET", lambda _: (JSON, msgspec.json.encode({"version": VERSION}))),
            "/v1/models": ("GET", lambda _: (JSON, self._models())),
            "/metrics": ("GET", lambda _: (METRICS, self._metrics())),
            "/tokenize": ("POST", lambda request: (JSON, tokenize(request.body, self._model))),
        }
        if dev_mode:
            self._pages["/reset_prefix_cache"] = ("POST", lambda _: (JSON, self._reset()))

    def serve(self, connection: ClientConnection, request: HttpRequest) -> None:
        """Answer one request, at once or by the schedule."""
        method, page = self._pages.get(request.path, ("POST", None))
        dialect = self._dialects.get(request.path)
        if request.path.startswith("/v1/") and not self._may(request):
            self._respond(connection, 401, b'{"error":"Unauthorized"}')
        elif page is None and dialect is None:
            self._respond(connection, 404, b'{"detail":"Not Found"}')
        elif request.method != method:
            self._respond(connection, 405, b'{"detail":"Method Not Allowed"}', more=f"Allow: {method}\r\n")
        else:
            try:
                if dialect is not None:
                    self._generate(connection, request, dialect)
                elif page is not None:
                    content_type, body = page(request)
                    self._respond(connection, 200, body, content_type)
            except RequestRefused as refusal:
                self._respond(connection, refusal.status, refusal.body())

    def _respond(
        self, connection: ClientConnection, status: int, body: bytes, content_type: str = JSON, more: str = ""
    ) -> None:
        connection.respond(status, body, content_type, more=more)
        connection.done()

    def _may(self, request: HttpRequest) -> bool:
        if self._api_key is None:
            return True
        given = request.headers.get("authorization") or f"Bearer {request.headers.get('x-api-key', '')}"
        return hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode())

    def _generate(
        self, connection: ClientConnection, http_request: HttpRequest, dialect: EmulatedDialect
    ) -> None:
        """Begin the reply to a request for text; raises RequestRefused."""
        channel = connection if self._injector is None else self._injector.meet(connection, dialect)
        if channel is None:
            return
        content_type = http_request.headers.get("content-type", JSON)
        if content_type.partition(";")[0].strip().lower() != JSON:
            raise invalid("Unsupported Media Type: Only 'application/json' is allowed", None)
        request = dialect.read(http_request.body, self._model)
        request.request_id = http_request.headers.get("x-request-id")
        request.received_ns = http_request.received_ns
        answer = self._schedule.answer(request)
        self._answered += 1
        events = dialect.events(request, answer, self._model, self._answered)
        records = self._records if channel is connection else self._faulty_records
        self._schedule.start(EmulatedReply(channel, request, answer, events, records))

    def _models(self) -> bytes:
        model = {
            "id": self._model.name,
            "object": "model",
            "created": self._started_s,
            "owned_by": OWNER,
            "root": self._model.name,
            "parent": None,
            "max_model_len": self._model.max_model_len,
            "permission": [{**PERMISSION, "created": self._started_s}],
        }
        return msgspec.json.encode({"object": "list", "data": [model]})

    def _metrics(self) -> bytes:
        self._schedule.count()
        return self._records.counters.as_prometheus(self._model.name)

    def _reset(self) -> bytes:
        return msgspec.json.encode({"success": self._schedule.forget_prefixes()})


class ClientPool:
    """Takes in connections and keeps those that are open."""

    def __init__(
        self,
        reactor: Reactor,
        app: EmulatorApp,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        idle_ns: int | None = None,
    ) -> None:
        self._reactor = reactor
        self._app = app
        self._listener = listener
        self._tls = tls
        self._idle_ns = idle_ns
        self._open: set[ClientConnection] = set()

    def accept(self, _mask: int) -> None:
        """Take in those that wait, a few at a time."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, _address = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._pause()
                return
            self._take_in(sock)

    def _take_in(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            # The client has gone again already.
            sock.close()
            return
        connection = ClientConnection(self._reactor, sock, self._app.serve, self._open.discard, self._idle_ns)
        self._open.add(connection)

    def _pause(self) -> None:
        """No descriptor is left: a listener that stays readable would keep the loop spinning."""
        self._reactor.forget(self._listener)
        self._reactor.at(monotonic_ns() + PAUSE_NS, self._resume)

    def _resume(self, _due_ns: int) -> None:
        self._reactor.watch(self._listener, EVENT_READ, self.accept)

    def close(self) -> None:
        """Cut every connection; streams under way are recorded as aborted."""
        for connection in list(self._open):
            connection.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises BadEmulatorOptions."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it, so that a request sent before its connection is taken in is stamped too.
    stamp_arrivals(listener)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BadEmulatorOptions(f"cannot listen on {host}:{port}: {error.strerror}; try --port 0") from None
    listener.setblocking(False)
    return listener


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS for servers with this certificate, or None without one; raises BadEmulatorOptions."""
    if certificate is None:
        if key is not None:
            raise BadEmulatorOptions("--tls-key needs --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(regular_file(certificate), regular_file(key) if key else None)
    except OSError as error:
        raise BadEmulatorOptions(f"--tls-cert {certificate} cannot be used: {error}") from None
    return context
