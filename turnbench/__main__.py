"""`python -m turnbench`, and where the console script begins.

Ctrl-C is quiet from here on: until a command runs, which may then end in order, it ends the process at once
with 130, also in the middle of an import, where an exception could surface anywhere.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """The command line; returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a script's `&` ignores it
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        # The last of all: Python is about to give the signal its default back, which kills.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    _prefer_installed()
    from turnbench.cli.main import main as run

    return run(sys.argv[1:])


def _prefer_installed() -> None:
    """With `python -m`, the current folder comes first: an `analysis/` there must not be taken for ours."""
    home, current = Path(__file__).resolve().parents[1], Path.cwd()
    if not sys.flags.safe_path and home != current:
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != current]


if __name__ == "__main__":
    sys.exit(main())
