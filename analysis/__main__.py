"""`python -m analysis RUN...`: analyse runs or sweeps; with --compare, say if they are worse than a baseline.

Writes each one's files into its directory, prints a table and the verdict.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

from analysis.compare.baseline import THRESHOLD, compare
from analysis.pipeline import analyse, several
from analysis.summary import EXIT_BAD_CONFIGURATION, EXIT_INVALID, EXIT_MISSED, EXIT_VALID, exit_code
from analysis.tables import markdown, workbook
from analysis.tables.compare import show_comparison, write_markdown
from analysis.tables.export import write_json
from analysis.tables.headline import clean
from analysis.tables.terminal import console, show
from turnbench.command_line import CommandParser
from turnbench.run_directory import RunError
from turnbench.turns import WORDS_PER_MIN


def main(arguments: list[str] | None = None, prog: str = "python -m analysis") -> int:
    """Exit code: 0 valid or suspect, 1 limits missed or a regression, 2 can't be read, 3 invalid or nothing
    to compare."""
    parser = command_parser(prog)
    options = parser.parse_args(arguments)
    if problem := _problem(options):
        parser.error(problem)
    try:
        return _compared(options) if options.compare else _analysed(options)
    except RunError as error:
        print(clean(error), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    except OSError as error:
        where = error.filename or options.run[0]
        print(clean(f"{where}: {error.strerror}; see that it can be read and written"), file=sys.stderr)
        return EXIT_BAD_CONFIGURATION


def command_parser(prog: str) -> CommandParser:
    """The options of this room, by the name under which it was called."""
    what = "Analyse runs or sweeps: writes summary and report into each, prints a table and the verdict."
    parser = CommandParser(prog=prog, description=what, example=f"{prog} runs/LATEST")
    runs = "a run or sweep directory, such as runs/LATEST"
    parser.add_argument("run", type=Path, metavar="RUN", nargs="+", help=runs)
    parser.add_argument(
        "--compare", type=Path, metavar="BASELINE", nargs="+", help="exit 1 if RUN is worse than these"
    )
    parser.add_argument(
        "--threshold", type=_share, default=THRESHOLD, help="share by which a median may be worse (0.05)"
    )
    parser.add_argument(
        "--reading-speed",
        type=_speed,
        default=WORDS_PER_MIN,
        metavar="WORDS",
        help="words a minute that a reader reads, for stall time (238)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for a pull request")
    parser.add_argument("--xlsx", type=Path, metavar="FILE", help="write a spreadsheet (turnbench[xlsx])")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of several RUNs: write summary and report here"
    )
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What in these options can't be done, said before anything is read."""
    if options.xlsx and not workbook.can_write():
        return workbook.MISSING
    if options.compare and (options.xlsx or options.out):
        return "--xlsx and --out are for runs, not for --compare, which has --markdown and compare.json"
    if options.out and len(options.run) == 1:
        return "--out is for several RUNs; one run's files are written into its own directory"
    return None


def _speed(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no reading speed; give words a minute such as 238")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number such as 0.05")
    return value


def _analysed(options: argparse.Namespace) -> int:
    found = [analyse(path, options.reading_speed) for path in options.run]
    whole = found[0] if len(found) == 1 else several(found, options.out)
    many = len(found) > 1
    report = None if many and not options.out else whole.report
    show(whole.summary, report, console(), study=many)
    if options.markdown:
        markdown.write_run(whole.summary, options.markdown)
    if options.xlsx:
        workbook.write_workbook(whole.summary, options.xlsx)
    return max((exit_code(one.summary) for one in found), key=_severity)


def _severity(code: int) -> int:
    return [EXIT_VALID, EXIT_MISSED, EXIT_INVALID].index(code)


def _compared(options: argparse.Namespace) -> int:
    """A against baseline B; more runs of one side are repeats of it."""
    both = (options.run, options.compare)
    sides = [[analyse(path, options.reading_speed) for path in side] for side in both]
    a, b = ([one.turns for one in side] for side in sides)
    emulated = [any(one.summary["emulated"] for one in side) for side in sides]
    found = replace(compare(a, b, options.threshold), emulated=(emulated[0], emulated[1]))
    show_comparison(found, options.threshold, console())
    told = {"emulated": any(emulated), "changes": [change.as_dict() for change in found.changes]}
    write_json(told, options.run[0] / "compare.json")
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
