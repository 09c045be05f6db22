"""`python -m analysis RUN`: analyse a run or a sweep, write its files, print the table and the verdict."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.pipeline import analyse
from analysis.summary import EXIT_BAD_CONFIGURATION, exit_code
from analysis.tables import clean
from analysis.terminal import console, show
from loadgen import RunError


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 valid or suspect, 1 a level misses its limits, 2 can't be read, 3 invalid."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run or sweep directory, such as runs/LATEST")
    path: Path = parser.parse_args(arguments).run
    try:
        summary, report = analyse(path)
    except RunError as error:
        print(clean(error), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    except OSError as error:
        where = error.filename or path
        print(clean(f"{where}: {error.strerror}; see that it can be read and written"), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    show(summary, report, console())
    return exit_code(summary)


if __name__ == "__main__":
    raise SystemExit(main())
