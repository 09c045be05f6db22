"""`python -m loadgen sweep FILE.yaml` and `python -m loadgen --help`."""

from __future__ import annotations

import argparse
import sys

from loadgen._options import OPTIONS
from loadgen._sweep import resume_sweep, run_sweep
from loadgen._sweep_plan import PlanError, read_plan


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadgen",
        description="Load is made with `locust -f loadgen/ --headless -H URL ...`; its turnbench options:",
        epilog=_options_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    sweep = commands.add_parser("sweep", help="serve each model of a plan, load it, and compare them all")
    what = sweep.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="FILE.yaml", help="the plan of the sweep")
    what.add_argument("--resume", metavar="SWEEP", help="go on with the sweep in this directory")
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    try:
        return resume_sweep(given.resume) if given.resume else run_sweep(read_plan(given.file))
    except PlanError as error:
        print("\n".join(f"turnbench: {problem}" for problem in error.problems), file=sys.stderr)
        return 2


def _options_text() -> str:
    lines = ["options of locust -f loadgen/ (each also TURNBENCH_NAME in the environment):"]
    for option in OPTIONS:
        flag = f"--{option.name} {option.metavar or ''}".rstrip()
        default = f" [{option.default}]" if option.default else ""
        lines.append(f"  {flag:<26} {option.help}{default}")
    return "\n".join(lines)
