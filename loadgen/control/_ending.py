"""How a run ends: its analysis, its exit code, and the processes that outlast it."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time

import gevent
import psutil

from loadgen.control._state import Run

logger = logging.getLogger(__name__)

INVALID = 3
EXIT_OF_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143}
_FORKED_END_S = 5.0


def exit_code_of(run: Run, code: int, stopped_by: int | None) -> int:
    """The run's exit code: the analysis's, unless a signal ended it or it is INVALID by what we saw."""
    broken = any(finding["level"] == "invalid" for finding in run.manifest["findings"])
    if stopped_by is not None:
        return EXIT_OF_SIGNAL[signal.Signals(stopped_by)]
    if code == 1 and run.prepared.settings.find_capacity:
        code = 0  # it has to go beyond the limits to find where they are
    return INVALID if broken else code


def note_exit(run: Run, code: int) -> None:
    """Write the exit code into run.json; a directory that can't be written was told of before."""
    run.manifest["exit_code"] = code
    try:
        run.writer.write_manifest()
    except OSError as error:
        logger.error("%s: %s", run.writer.path, error)


def outlast_forked_workers() -> None:
    """Let the workers that Locust forked end before their parent: it forgets those that take a moment."""
    ourselves, until_s = psutil.Process(), time.monotonic() + _FORKED_END_S
    while time.monotonic() < until_s and ourselves.children():
        gevent.sleep(0.05)


def analysed(run: Run) -> int:
    """Analyse in a child, no pandas under gevent; it prints its table. The child's exit code.

    A second signal ends it: a person need not wait for the report of a long run.
    """
    sys.stdout.flush()
    command = [sys.executable, "-m", "analysis", str(run.writer.path)]
    # In a session of its own: Ctrl-C must not take the report away from who asked for a partial one.
    with subprocess.Popen(command, start_new_session=True) as child:
        while child.poll() is None:
            if run.hurry.wait(0.1):
                child.terminate()
                break
    return child.returncode if child.returncode in (0, 1) else INVALID
