"""`turnbench run`: Locust with our locustfile, in this process; its options and ours.

Headless unless `--web` asks for Locust's page. Locust parses the options itself; here unknown ones are
refused on one line, and the help shows those that matter.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from turnbench.command_line import CommandParser

_COMMON = ("--host", "--scenario", "--users", "--run-time", "--levels", "--hold", "--arrival-rate", "--once",
           "--find-capacity", "--slo", "--max-tokens", "--think-time", "--run-dir")  # fmt: skip
_NOT_OURS = ("-f", "--locustfile")


class RunParser(CommandParser):
    """Locust's options and ours, of which the help shows the common ones."""

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_text(f"usage: {self.prog} -H URL [options]")
        formatter.add_text(self.description)
        formatter.start_section("options")
        actions = {flag: action for action in self._actions for flag in action.option_strings}
        formatter.add_arguments([_in_short(actions[flag]) for flag in (*_COMMON, "--web", "--help-all")])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def _in_short(action: argparse.Action) -> argparse.Action:
    """An option with as much of its help as one line holds."""
    shown = argparse.Action(action.option_strings, action.dest, nargs=action.nargs, metavar=action.metavar)
    shown.help = _SHORT[max(action.option_strings, key=len)]
    return shown


_SHORT = {
    "--host": "the server, such as http://127.0.0.1:8000",
    "--scenario": "the conversations: a name, or a file (chat)",
    "--users": "people at once, in one level",
    "--run-time": "how long that level lasts, such as 2m",
    "--levels": "levels one after the other, such as 1,4,16",
    "--hold": "how long each is measured (60s)",
    "--arrival-rate": "conversations begun per second, instead of people",
    "--once": "every conversation of the scenario once, then end",
    "--find-capacity": "the highest load at which the limits hold",
    "--slo": "limits, such as ttft_ms=500,tpot_ms=50,share=0.95",
    "--max-tokens": "longest answer",
    "--think-time": "none, scenario, scenario*X or a time",
    "--run-dir": "where the run goes (runs/TIME-SCENARIO)",
    "--web": "start and stop from Locust's page instead",
    "--help-all": "every option, Locust's too",
}


def command_parser(prog: str) -> RunParser:
    """Every option of a run."""
    from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments

    from loadgen.options._command_line import add_options

    locust = get_empty_argument_parser()
    setup_parser_arguments(locust)
    add_options(locust)
    parser = RunParser(
        prog=prog,
        add_help=False,
        description="Load a server, measure every turn, and report. `turnbench serve` starts a server.",
        example=f"{prog} -H http://127.0.0.1:8000 --scenario chat --levels 1,4,16",
    )
    for action in locust._actions:
        if action.option_strings and action.option_strings[0] not in _NOT_OURS:
            parser._add_action(action)
    parser.add_argument("--web", action="store_true", help="start and stop from Locust's page")
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="every option")
    return parser


class _HelpAll(argparse.Action):
    """Prints every option, ours first."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(options_text(f"options of {parser.prog} (each also TURNBENCH_NAME in the environment):"))
        print("\nof Locust:\n")
        formatter = parser._get_formatter()
        ours = {flag for option in _our_options() for flag in [f"--{option.name}"]}
        theirs = [a for a in parser._actions if not ours & set(a.option_strings) and a.help != "==SUPPRESS=="]
        formatter.add_arguments(theirs)
        print(formatter.format_help())
        parser.exit()


def _our_options() -> tuple[Any, ...]:
    from loadgen.options._command_line import OPTIONS

    return OPTIONS


def options_text(heading: str) -> str:
    """Every option of ours with its help and default, one a line."""
    from loadgen.options import _command_line

    return _command_line.options_text(heading)


def main(arguments: list[str], prog: str = "turnbench run") -> int:
    """Run Locust to its end; its exit code is the run's."""
    import locust.main  # before all else: gevent patches the standard library

    # Locust puts the current folder first on the path, and it may have an `analysis/` of its own.
    import loadgen
    import scenarios  # noqa: F401

    command_parser(prog).parse_args(arguments)
    alone = [each for each in arguments if each != "--web"]
    if "--web" not in arguments and "--worker" not in arguments:
        alone.insert(0, "--headless")
    else:  # Locust ends in order by itself
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert loadgen.__file__ is not None
    sys.argv = [prog, "-f", str(Path(loadgen.__file__).with_name("locustfile.py")), *alone]
    try:
        locust.main.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
