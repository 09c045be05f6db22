"""`python -m analysis RUN...`: analyse runs or sweeps; with --compare, say if they are worse than a baseline.

Writes each one's files into its directory, prints a table and the verdict.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from analysis.compare.baseline import THRESHOLD, compare
from analysis.pipeline import Analysed, analyse, several
from analysis.report import images
from analysis.report.plots import figures
from analysis.summary import exit_code
from analysis.tables import export, markdown, terminal
from analysis.tables.sentences import outcome
from turnbench import exits
from turnbench.cleaning import printable
from turnbench.command_line import CommandParser
from turnbench.extras import missing
from turnbench.formats import ComparisonFile
from turnbench.run_directory import RunError
from turnbench.turns import WORDS_PER_MIN

_RUN = "a run or sweep directory, such as runs/LATEST"


def main(arguments: list[str] | None = None, prog: str = "python -m analysis") -> int:
    """Analyse or compare what the arguments name; the exit code is one of `turnbench.exits`."""
    parser = command_parser(prog)
    options = parser.parse_args(arguments)
    if problem := _problem(options):
        parser.error(problem)
    try:
        return _compared(options) if options.compare else _analysed(options)
    except RunError as error:
        print(printable(error), file=sys.stderr)
    except OSError as error:
        where = error.filename or options.run[0]
        print(printable(f"{where}: {error.strerror}; check that it can be read and written"), file=sys.stderr)
    return exits.BAD_CONFIGURATION


def command_parser(prog: str) -> CommandParser:
    """The options of this room, by the name under which it was called."""
    what = (
        "Say how long people waited in a run, a sweep or several of them: writes summary.json, summary.csv "
        "and\nreport.html into each, prints a table and the verdict. With --compare, say if they are worse "
        "than a baseline."
    )
    example = (
        f"{prog} runs/LATEST\n"
        f"  {prog} runs/20261129T120000Z-demo --markdown sweep.md\n"
        f"  {prog} runs/NEW --compare runs/OLD"
    )
    parser = CommandParser(prog=prog, description=what, example=example)
    parser.add_argument("run", type=Path, metavar="RUN", nargs="+", help=_RUN)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="BASELINE",
        nargs="+",
        help="compare with these; exit 1 if RUN is worse, 4 if that can't be judged, 3 if a run is INVALID",
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="SHARE",
        default=THRESHOLD,
        help="how much worse a median may be with --compare (0.05)",
    )
    parser.add_argument(
        "--single",
        action="store_true",
        help="judge medians with one run a side too",
    )
    parser.add_argument(
        "--reading-speed",
        type=_speed,
        default=WORDS_PER_MIN,
        metavar="WORDS",
        help="words a minute of a reader, for stall time (238)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for a pull request")
    parser.add_argument("--xlsx", type=Path, metavar="FILE", help="write a spreadsheet (turnbench[xlsx])")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="plots as PNG and SVG (turnbench[plots])")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write one summary and report of several RUNs here"
    )
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What in these options can't be done, found before anything is read."""
    for extra, asked in (("xlsx", options.xlsx), ("plots", options.plots)):
        if asked and (why := missing(extra)) is not None:
            return f"--{extra} {why}"
    if options.compare and (options.xlsx or options.out or options.plots):
        return (
            "--xlsx, --plots and --out are for runs, not for --compare, which has --markdown and compare.json"
        )
    if options.out and len(options.run) == 1:
        return "--out is for several RUNs; one run's files are written into its own directory"
    return None


def _speed(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a reading speed; write words per minute, such as 238"
        )
    return value


def _share(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; write a number such as 0.05")
    return value


def _analysed(options: argparse.Namespace) -> int:
    found = [analyse(path, options.reading_speed) for path in options.run]
    many = len(found) > 1
    whole = several(found, options.out) if many else found[0]
    report = None if many and not options.out else whole.report
    terminal.show(whole.summary, report, terminal.console(), study=many)
    if options.markdown:
        markdown.write_run(whole.summary, options.markdown)
    if options.xlsx:
        export.write_workbook(whole.summary, options.xlsx)
    if options.plots:
        images.write_images(figures(whole.summary, whole.facts), options.plots)
    return max((exit_code(one.summary) for one in found), key=[exits.OK, exits.MISSED, exits.INVALID].index)


def _compared(options: argparse.Namespace) -> int:
    """A against baseline B; more runs of one side are repeats of it."""
    a, b = (
        [analyse(path, options.reading_speed) for path in side] for side in (options.run, options.compare)
    )
    new, base = ([turns for one in side for turns in one.runs] for side in (a, b))
    found = compare(new, base, options.threshold, single=options.single)
    found.emulated = (_any_emulated(a), _any_emulated(b))
    invalid = [one for one in a + b if one.summary.verdict.status == "invalid"]
    code = exits.INVALID if invalid else found.exit_code
    terminal.show_comparison(found, options.threshold, terminal.console())
    written = ComparisonFile(
        emulated=any(found.emulated),
        exit_code=code,
        outcome=outcome(found, options.threshold),
        single=found.single,
        changes=found.changes,
        shares=found.shares,
        lengths=found.lengths,
        vanished=found.vanished,
        unjudged=found.unjudged,
    )
    export.write_json(written, options.run[0] / "compare.json")
    if options.markdown:
        markdown.write_comparison(found, options.threshold, options.markdown)
    for one in invalid:
        print(printable(f"{one.path}: INVALID; see the findings in {one.report}"), file=sys.stderr)
    return code


def _any_emulated(side: list[Analysed]) -> bool:
    return any(one.summary.emulated for one in side)


if __name__ == "__main__":
    raise SystemExit(main())
