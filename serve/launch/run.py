"""Runs a server through its life: start, progress, ready, and an end that leaves nothing behind.

The server writes into a log file; its newest line is shown as progress, and its last ones when it ends by
itself.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from serve.launch.command import ServerCommand
from serve.launch.guard import STOP_NOW, STOP_ORDERLY, SignalPipe
from turnbench import exits

GUARD = Path(__file__).with_name("guard.py")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 15.0
HEALTH_EVERY_S = 0.1
HEALTH_TIMEOUT_S = 2.0
PROGRESS_EVERY_S = 5.0

LOG_TAIL_BYTES = 65536
SHOWN_LINES = 15
LINE_CHARS = 160

LOG_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\) )?(?:INFO|WARNING|ERROR) [\d-]+ [\d:.]+ (?:\[[^\]]*\] )?")
PROGRESS = re.compile(
    r"load|download|weight|architecture|cache|compil|captur|graph|profil|engine|server|startup", re.I
)
PROGRESS_BAR = "Loading "
NO_PROGRESS = re.compile(r"█|Route:|non-default args|GET /|with config|deprecat|warn", re.I)
CAUSE = re.compile(r"\b(?:\w+\.)*\w*(?:Error|Exception): \S.*")
SECOND_HAND = re.compile(r"Engine core initialization failed|See root cause above|EngineDeadError")
"""vLLM's outer processes only say that an inner one failed."""

Say = Callable[[str], None]


def run_server(
    command: ServerCommand, url: str, log: Path, say: Say, on_ready: Callable[[], None] = lambda: None
) -> int:
    """Run until the server ends or a signal stops it; returns the exit code for the shell.

    Calls `on_ready`, then prints `ready: URL` on standard output; everything else goes to `say`.
    0: stopped on request once it was ready. 128 + N: stopped by signal N before that. 1: the server ended by
    itself; 2: over its options.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with SignalPipe(*STOP_SIGNALS, signal.SIGCHLD) as signals:
        started_s = time.monotonic()
        server = _GuardedServer(command, url, log, say, signals)
        try:
            if (stop := server.until_ready()) is None and server.runs():
                on_ready()
                print(f"ready: {url}", flush=True)
                say(f"ready after {time.monotonic() - started_s:.1f} s; log: {log}; Ctrl-C stops it")
                return server.end(server.until_stopped(), was_ready=True)
            return server.end(stop, was_ready=False)
        finally:
            server.close()


class _GuardedServer:
    """The server's process with the guard above it, which ends it when this process ends."""

    def __init__(self, command: ServerCommand, url: str, log: Path, say: Say, signals: SignalPipe) -> None:
        self._url = url
        self._log = log
        self._say = say
        self._signals = signals
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(GRACE_S), "--", *command.command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **command.environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def runs(self) -> bool:
        return self._guard.poll() is None

    def until_ready(self) -> int | None:
        """The signal that came before, if any. There is no limit: a download takes as long as it takes."""
        started_s = time.monotonic()
        next_report_s = PROGRESS_EVERY_S
        while self.runs() and not is_healthy(self._url):
            if stop := self._stop_signal(HEALTH_EVERY_S):
                return stop
            if (waited_s := time.monotonic() - started_s) >= next_report_s:
                self._say(f"{waited_s:5.0f} s  {newest_progress(log_tail(self._log))}")
                next_report_s += PROGRESS_EVERY_S
        return None

    def until_stopped(self) -> int | None:
        """The signal that asks for the end; None if the server ended by itself."""
        while self.runs():
            if stop := self._stop_signal(None):
                return stop
        return None

    def end(self, stop: int | None, *, was_ready: bool) -> int:
        """Stop the server, or say why it stopped by itself; the exit code."""
        if stop is None:
            code = self._guard.returncode
            when = "after it was ready" if was_ready else "before it was ready"
            self._say(describe_failure(log_tail(self._log), code, when, self._log))
            return code if code == exits.BAD_CONFIGURATION and not was_ready else 1
        self._say(f"stopping the server (at most {GRACE_S:.0f} s; Ctrl-C again: at once)")
        self._order(STOP_ORDERLY)
        while self.runs():
            if self._stop_signal(None):
                self._order(STOP_NOW)
        self._say("stopped")
        return exits.OK if was_ready else 128 + stop

    def close(self) -> None:
        """However we end, the guard gets its order and is waited for."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()

    def _stop_signal(self, timeout_s: float | None) -> int | None:
        caught, _ = self._signals.wait(timeout_s)
        return next((each for each in STOP_SIGNALS if each in caught), None)

    def _order(self, order: bytes) -> None:
        assert self._guard.stdin is not None
        try:
            self._guard.stdin.write(order)
            self._guard.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended in the meantime, which is what was wanted


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


def log_tail(log: Path) -> list[str]:
    """The last lines of the file without control characters, so that they cannot steer a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = ("".join(each for each in line if each.isprintable()) for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line.strip()]


def newest_progress(lines: list[str]) -> str:
    """The newest line that says how far the server is, without the logger's prefix."""
    for line in reversed(lines):
        plain = LOG_PREFIX.sub("", line).strip()
        is_logged = plain != line.strip() or line.startswith(PROGRESS_BAR)
        if is_logged and PROGRESS.search(plain) and not NO_PROGRESS.search(line):
            return plain[:LINE_CHARS]
    return "starting"


def describe_failure(lines: list[str], code: int, when: str, log: Path) -> str:
    """Several lines: the log's end, then what happened and, where the log says it, why."""
    causes = [
        found.group() for line in lines if (found := CAUSE.search(line)) and not SECOND_HAND.search(line)
    ]
    why = f": {causes[-1][:LINE_CHARS]}" if causes else ""
    shown = [f"  | {line[:LINE_CHARS]}" for line in lines[-SHOWN_LINES:]]
    return "\n".join([*shown, f"the server ended {when} (exit code {code}){why}; whole log: {log}"])
