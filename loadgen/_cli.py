"""`python -m loadgen sweep FILE.yaml` and `python -m loadgen --help`."""

from __future__ import annotations

import argparse
import sys

from loadgen.options._command_line import OPTIONS
from turnbench.formats import BACKENDS, PRECISIONS
from turnbench.sweep.check import WEIGHTS
from turnbench.sweep.plan import PlanError, Wishes, read_plan, wished
from turnbench.sweep.play import resume_sweep, run_sweep


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    if given.command is None:
        _parser().print_help()
        return 0
    try:
        return resume_sweep(given.resume) if given.resume else _run(given)
    except KeyboardInterrupt:  # before its first run
        return 130
    except PlanError as error:
        print("\n".join(f"turnbench: {problem}" for problem in error.problems), file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    fields = {name: getattr(given, name) for name in Wishes.__dataclass_fields__}
    plan, said = wished(read_plan(given.file), Wishes(**fields))
    print("\n".join(said), end="\n" * bool(said), flush=True)
    return run_sweep(plan)


def _parser() -> argparse.ArgumentParser:
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
    change = sweep.add_argument_group("in place of what the plan says (not with --resume)")
    add = change.add_argument
    add("--model", action="append", dest="models", metavar="NAME", help="only this one; may be given again")
    add("--backend", choices=BACKENDS)
    add("--hardware", metavar="GPU", help="that the emulator plays")
    add("--precision", action="append", dest="precisions", choices=PRECISIONS, help="may be given again")
    add("--weights", choices=WEIGHTS)
    add("--parallel", type=int, metavar="N", help="runs at once, of emulators")
    add("--questions", type=_count, metavar="N", help="only so many conversations of each scenario")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _options_text() -> str:
    lines = ["options of locust -f loadgen/ (each also TURNBENCH_NAME in the environment):"]
    for option in OPTIONS:
        flag = f"--{option.name} {option.metavar or ''}".rstrip()
        default = f" [{option.default}]" if option.default else ""
        lines.append(f"  {flag:<26} {option.help}{default}")
    return "\n".join(lines)
