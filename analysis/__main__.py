"""`python -m analysis RUN...`: analyse runs or sweeps; with --compare, say if they are worse than a baseline.

Writes each one's files into its directory, prints a table and the verdict.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from analysis.compare import THRESHOLD, compare
from analysis.compare_tables import show_comparison, write_markdown
from analysis.export import write_json
from analysis.pipeline import analyse, several
from analysis.summary import EXIT_BAD_CONFIGURATION, EXIT_INVALID, EXIT_MISSED, EXIT_VALID, exit_code
from analysis.tables import clean
from analysis.terminal import console, show
from loadgen import RunError


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 valid or suspect, 1 limits missed or a regression, 2 can't be read, 3 invalid or nothing
    to compare."""
    options = _parser().parse_args(arguments)
    try:
        return _compared(options) if options.compare else _analysed(options.run)
    except RunError as error:
        print(clean(error), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    except OSError as error:
        where = error.filename or options.run[0]
        print(clean(f"{where}: {error.strerror}; see that it can be read and written"), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    runs = "a run or sweep directory, such as runs/LATEST"
    parser.add_argument("run", type=Path, metavar="RUN", nargs="+", help=runs)
    parser.add_argument(
        "--compare", type=Path, metavar="BASELINE", nargs="+", help="exit 1 if RUN is worse than these"
    )
    parser.add_argument(
        "--threshold", type=_share, default=THRESHOLD, help="share by which a median may be worse (0.05)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the comparison for a pull request")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number such as 0.05")
    return value


def _analysed(paths: list[Path]) -> int:
    found = [analyse(path) for path in paths]
    if len(found) == 1:
        show(found[0].summary, found[0].report, console())
    else:
        show(several(found).summary, None, console())
    return max((exit_code(one.summary) for one in found), key=_severity)


def _severity(code: int) -> int:
    return [EXIT_VALID, EXIT_MISSED, EXIT_INVALID].index(code)


def _compared(options: argparse.Namespace) -> int:
    """A against baseline B; more runs of one side are repeats of it."""
    sides = [[analyse(path) for path in side] for side in (options.run, options.compare)]
    a, b = ([one.turns for one in side] for side in sides)
    found = compare(a, b, options.threshold)
    show_comparison(found, options.threshold, console())
    write_json({"changes": [change.as_dict() for change in found.changes]}, options.run[0] / "compare.json")
    if options.markdown:
        write_markdown(found, options.threshold, options.markdown)
    invalid = [one for side in sides for one in side if one.summary["verdict"]["status"] == "invalid"]
    for one in invalid:
        print(clean(f"{one.path}: INVALID; see the findings in {one.report}"), file=sys.stderr)
    if invalid or not found.changes:
        return EXIT_INVALID
    return EXIT_MISSED if found.regressions else EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(main())
