"""Keeps one server process, and never lets it outlive its launcher.

    python -I -S serve/launch/guard.py GRACE_S -- COMMAND...

Standard input is a pipe that only the launcher holds. However the launcher ends (by itself, or killed), the
pipe closes and the guard stops the server: TERM, GRACE_S seconds, then KILL to its whole process group. The
launcher can also write the order, `t` for that or `k` for KILL at once. The guard has a session of its own,
so a Ctrl-C in the terminal passes it by. Run by its path, it costs milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType

LEFTOVERS_S = 3.0
"""How long the server's own children may take to end after it."""
DYING_S = 3.0
"""How long to wait for what was killed: much memory takes a moment to give back."""
STOP_ORDERLY, STOP_NOW = b"t", b"k"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class SignalPipe:
    """Signals as something to wait for together with files, instead of something that interrupts anywhere."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._former = {each: signal.signal(each, _nothing) for each in signals}

    def wait(self, timeout_s: float | None, file: int | None = None) -> tuple[set[int], bool]:
        """The signals that came, and whether `file` can be read; both empty when the time is over."""
        watched = [self._read] if file is None else [self._read, file]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        caught = set(os.read(self._read, 4096)) if self._read in ready else set()
        return caught, file in ready

    def __enter__(self) -> SignalPipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._former.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler that does something is not needed: the wake-up descriptor carries the signal's number."""


def main(arguments: list[str]) -> int:
    """The server's exit code; 128 + N if signal N ended it."""
    grace_s, command = float(arguments[0]), arguments[2:]
    _adopt_orphans()
    with SignalPipe(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) as signals:
        try:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent()
            )
        except OSError as error:
            print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
        code = _watch(server, signals, grace_s)
        _clear_group(server.pid)
    return code if code >= 0 else 128 - code


def _watch(server: subprocess.Popen[bytes], signals: SignalPipe, grace_s: float) -> int:
    """Wait for the server's end, or for the order to end it."""
    orders: int | None = sys.stdin.fileno()
    kill_at: float | None = None
    while (code := server.poll()) is None:
        left_s = None if kill_at is None else kill_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            _signal_group(server.pid, signal.SIGKILL)
            return server.wait()
        caught, ordered = signals.wait(left_s, orders)
        order = os.read(sys.stdin.fileno(), 1) if ordered else b""
        if ordered and not order:
            orders = None
        if order == STOP_NOW:
            kill_at = 0.0
        elif kill_at is None and (ordered or caught - {signal.SIGCHLD}):
            # TERM to the leader alone: a server of several processes ends its own children in its own order.
            server.terminate()
            kill_at = time.monotonic() + grace_s
    return code


def _clear_group(group: int) -> None:
    """Nothing of the server's stays: its children get a moment to tidy up, then KILL, and are gone."""
    if _outlasts(group, LEFTOVERS_S) and _signal_group(group, signal.SIGKILL):
        _outlasts(group, DYING_S)


def _outlasts(group: int, moment_s: float) -> bool:
    ends_at = time.monotonic() + moment_s
    while _is_there(group):
        if time.monotonic() >= ends_at:
            return True
        time.sleep(0.02)
    return False


def _adopt_orphans() -> None:
    """On Linux children that a server leaves behind become ours: else only init could see them dead."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _is_there(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # what is dead counts as there until its parent has looked
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return _signal_group(group, 0)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux the kernel itself sends TERM to the server if the guard is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
