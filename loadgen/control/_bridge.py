"""Locust's end of the socket pair: starts the engine, passes messages; one greenlet writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable

from gevent.queue import Queue

from loadgen._messages import FROM_ENGINE, EngineMessage, FromEngine, Unpacker, pack
from loadgen.control._guard import spawn_guarded

_TAIL_BYTES = 2000


class Bridge:
    """A running engine. `on_message` gets each message, `on_death` once why there will be no more."""

    def __init__(self, on_message: Callable[[FromEngine], None], on_death: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self._closing = False
        self._outbox: Queue[bytes] = Queue()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (read after the engine's death)
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadgen.engine", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C in a terminal must not hit it
        )
        theirs.close()
        spawn_guarded(self._on_failure, self._write)
        spawn_guarded(self._on_failure, self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: EngineMessage) -> None:
        self._outbox.put(pack(message))

    def close(self) -> None:
        """Let the engine end: it does so when the socket closes."""
        self._closing = True
        self._socket.close()

    def _write(self) -> None:
        try:
            for data in self._outbox:
                self._socket.sendall(data)
        except OSError:
            return  # the reader tells of the engine's death

    def _read(self) -> None:
        unpacker = Unpacker(FROM_ENGINE)
        try:
            while data := self._socket.recv(1 << 16):
                for message in unpacker.feed(data):
                    self._on_message(message)
        except OSError:
            pass
        if not self._closing:
            self._on_death(self._last_words())

    def _on_failure(self, why: str) -> None:
        """A message that can't be read or understood: without its engine a run can only end."""
        if not self._closing:
            self.close()
            self._on_death(f"a message between Locust and its engine was not understood: {why}")

    def _last_words(self) -> str:
        """How the engine ended and the end of what it said."""
        code = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - _TAIL_BYTES, 0))
        tail = self._stderr.read().decode("utf-8", "replace").strip()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"engine ended with {how}" + (f"; it said: {tail}" if tail else "")
