"""Listening and taking clients in, plain or under TLS."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import ssl
from selectors import EVENT_READ

from serve.emulator.app import App
from serve.emulator.clock import monotonic_ns, stamp_arrivals
from serve.emulator.connection import Connection
from serve.emulator.reactor import Reactor

BACKLOG = 4096
ACCEPT_BATCH = 32
PAUSE_NS = 50_000_000


class BadConfiguration(Exception):
    """Something the person who started the emulator must change; the text says what."""


class Clients:
    """Takes in connections and keeps those that are open."""

    def __init__(
        self,
        reactor: Reactor,
        app: App,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        idle_ns: int | None = None,
    ) -> None:
        self._reactor = reactor
        self._app = app
        self._listener = listener
        self._tls = tls
        self._idle_ns = idle_ns
        self._open: set[Connection] = set()

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
        connection = Connection(self._reactor, sock, self._app.serve, self._open.discard, self._idle_ns)
        self._open.add(connection)

    def _pause(self) -> None:
        """No descriptor is left: a listener that stays readable would keep the loop spinning."""
        self._reactor.forget(self._listener)
        self._reactor.at(monotonic_ns() + PAUSE_NS, self._resume)

    def _resume(self, _due_ns: int) -> None:
        self._reactor.watch(self._listener, EVENT_READ, self.accept)

    def close(self) -> None:
        """Cut every connection; streams under way are booked as aborted."""
        for connection in list(self._open):
            connection.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises BadConfiguration."""
    _raise_descriptor_limit()
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
        raise BadConfiguration(f"cannot listen on {host}:{port}: {error.strerror}; try --port 0") from None
    listener.setblocking(False)
    return listener


def _raise_descriptor_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS for servers with this certificate, or None without one; raises BadConfiguration."""
    if certificate is None:
        if key is not None:
            raise BadConfiguration("--tls-key needs --tls-cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise BadConfiguration(f"--tls-cert {certificate} cannot be used: {error}") from None
    return context
