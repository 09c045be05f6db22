"""`turnbench sweep PLAN`: serve each model of a plan, load it, and compare them all."""

from __future__ import annotations

import argparse
import sys

from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats import BACKENDS, PRECISIONS


def command_parser(prog: str) -> CommandParser:
    """A plan, and what the command line changes in it."""
    parser = CommandParser(
        prog=prog,
        description="Serve each model of a plan, load it, and compare them all; "
        "bundled plans: demo, demo-real, paper.",
        example=f"{prog} demo --model yi-6b",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="PLAN", help="a YAML file, or the name of a bundled plan")
    what.add_argument("--resume", metavar="SWEEP", help="go on with the sweep in this directory")
    change = parser.add_argument_group("in place of what the plan says (not with --resume)")
    add = change.add_argument
    add("--model", action="append", dest="models", metavar="NAME", help="only this one; may be given again")
    add("--backend", choices=BACKENDS, metavar="NAME", help=", ".join(BACKENDS))
    add("--hardware", metavar="GPU", help="that the emulator plays")
    add("--precision", action="append", dest="precisions", choices=PRECISIONS, metavar="NAME",
        help=f"{', '.join(PRECISIONS)}; may be given again")  # fmt: skip
    add("--weights", choices=("real", "dummy"), help="dummy: random ones, nothing is downloaded")
    add("--parallel", type=int, metavar="N", help="runs at once, of emulators")
    add("--questions", type=_count, metavar="N", help="only so many conversations of each scenario")
    return parser


def main(arguments: list[str], prog: str = "turnbench sweep") -> int:
    """Play it and analyse it; 2 for what is wrong with the plan, else as `turnbench.exits` has it."""
    given = command_parser(prog).parse_args(arguments)
    from turnbench.sweep.plan import Overrides, PlanError, overridden, read_plan
    from turnbench.sweep.play import resume_sweep, run_sweep

    try:
        if given.resume:
            return resume_sweep(given.resume)
        fields = {name: getattr(given, name) for name in Overrides.__dataclass_fields__}
        plan, notes = overridden(read_plan(given.file), Overrides(**fields))
        for note in notes:
            print(note, flush=True)
        return run_sweep(plan)
    except PlanError as error:
        print("\n".join(f"turnbench: {problem}" for problem in error.problems), file=sys.stderr)
        return exits.BAD_CONFIGURATION


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
