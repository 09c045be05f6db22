"""Runs a server through its life: start, progress, ready, and an end that leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from serve.launch.command import Launch
from serve.launch.guard import STOP_NOW, STOP_ORDERLY, SignalPipe
from serve.launch.log import describe_failure, newest_news, tail

GUARD = Path(__file__).with_name("guard.py")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 15.0
BAD_OPTIONS = 2
HEALTH_EVERY_S = 0.1
HEALTH_TIMEOUT_S = 2.0
NEWS_EVERY_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Server:
    guard: subprocess.Popen[bytes]
    signals: SignalPipe
    url: str
    log: Path
    say: Say

    def runs(self) -> bool:
        return self.guard.poll() is None

    def order(self, order: bytes) -> None:
        assert self.guard.stdin is not None
        try:
            self.guard.stdin.write(order)
            self.guard.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended in the meantime, which is what was wanted


def run_server(
    launch: Launch, url: str, log: Path, say: Say, on_ready: Callable[[], None] = lambda: None
) -> int:
    """Run until the server ends or a signal stops it; returns the exit code for the shell.

    Calls `on_ready`, then prints `ready: URL` on standard output; everything else goes to `say`.
    0: stopped on request once it was ready. 128 + N: stopped by signal N before that. 1: the server ended by
    itself; 2: over its options.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with SignalPipe(*STOP_SIGNALS, signal.SIGCHLD) as signals:
        started = time.monotonic()
        server = _Server(_start(launch, log), signals, url, log, say)
        try:
            if (stop := _until_ready(server)) is None and server.runs():
                on_ready()
                print(f"ready: {url}", flush=True)
                say(f"ready after {time.monotonic() - started:.1f} s; log: {log}; Ctrl-C stops it")
                return _end(server, _until_stopped(server), was_ready=True)
            return _end(server, stop, was_ready=False)
        finally:
            _close(server.guard)


def _start(launch: Launch, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", str(GUARD), str(GRACE_S), "--", *launch.command]
    environment = {**os.environ, **launch.environment, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def _until_ready(server: _Server) -> int | None:
    """The signal that came before, if any. There is no limit: a first download takes as long as it takes."""
    started = time.monotonic()
    next_news_s = NEWS_EVERY_S
    while server.runs() and not is_healthy(server.url):
        if stop := _stop_signal(server, HEALTH_EVERY_S):
            return stop
        if (waited_s := time.monotonic() - started) >= next_news_s:
            server.say(f"{waited_s:5.0f} s  {newest_news(tail(server.log))}")
            next_news_s += NEWS_EVERY_S
    return None


def _until_stopped(server: _Server) -> int | None:
    while server.runs():
        if stop := _stop_signal(server, None):
            return stop
    return None


def _stop_signal(server: _Server, timeout_s: float | None) -> int | None:
    caught, _ = server.signals.wait(timeout_s)
    return next((each for each in STOP_SIGNALS if each in caught), None)


def _end(server: _Server, stop: int | None, *, was_ready: bool) -> int:
    if stop is None:
        when = "after it was ready" if was_ready else "before it was ready"
        code = server.guard.returncode
        server.say(describe_failure(tail(server.log), code, when, server.log))
        return BAD_OPTIONS if code == BAD_OPTIONS and not was_ready else 1
    server.say(f"stopping the server (at most {GRACE_S:.0f} s; Ctrl-C again: at once)")
    server.order(STOP_ORDERLY)
    while server.runs():
        if _stop_signal(server, None):
            server.order(STOP_NOW)
    server.say("stopped")
    return 0 if was_ready else 128 + stop


def _close(guard: subprocess.Popen[bytes]) -> None:
    """However we end, the guard gets its order and is waited for."""
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait()


def is_healthy(url: str) -> bool:
    """Whether GET /health answers 200."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=HEALTH_TIMEOUT_S)
    if where.scheme == "https":
        # Our own server of a moment ago: whether it lives is asked, not who it is.
        unchecked = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            where.hostname or "", where.port, timeout=HEALTH_TIMEOUT_S, context=unchecked
        )
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
