"""Which commands there are, and the one that was typed.

A command is a module with `command_parser(prog)` and `main(arguments, prog)`; it is imported when it is asked
for, so that `turnbench --help` is quick. Exit codes: `turnbench.exits`.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import NamedTuple

from turnbench import __version__, exits
from turnbench.command_line import nearest, one_line
from turnbench.extras import OF_THE_ANALYSIS, missing_for_analysis


class Command(NamedTuple):
    """One command: the module that has it, and what it does in one line."""

    module: str
    help: str


COMMANDS = {
    "run": Command("turnbench.cli.run", "load a server with conversations and measure every turn"),
    "sweep": Command("turnbench.cli.sweep", "serve, load and compare several models by a plan"),
    "report": Command("analysis.__main__", "analyse runs again: tables, verdict, report.html"),
    "compare": Command("turnbench.cli.compare", "say whether runs are worse than a baseline"),
    "export": Command("analysis.exports.command", "results as other tools have them, or sent to them"),
    "plan": Command("analysis.plan", "how long and how often to run, foreseen from a pilot run"),
    "serve": Command("serve.__main__", "serve a model, real or emulated; list, show, calibrate, stop"),
    "scenarios": Command("scenarios.__main__", "list, show, check and sample conversations"),
    "certify": Command("turnbench.cli.certify", "what this client adds to the times it measures"),
    "doctor": Command("turnbench.cli.doctor", "what this machine can do, and what to do about the rest"),
    "schema": Command("turnbench.cli.schema", "the JSON Schema of every file that is written"),
    "completion": Command("turnbench.cli.completion", "shell completion for bash and zsh"),
}

HELP = f"""\
usage: turnbench COMMAND [options]

How long does a person wait: for this task, on this model, at this load?

commands:
{chr(10).join(f"  {name:<12} {command.help}" for name, command in COMMANDS.items())}

options:
  --help, --version   `turnbench COMMAND --help` for a command's options

example:
  turnbench serve up yi-6b --backend emulator        # in one terminal
  turnbench run -H http://127.0.0.1:8000 --levels 1,4
"""


def main(arguments: list[str]) -> int:
    """Run the command that was typed; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(HELP)
    if arguments[0] == "--version":
        return _print(f"turnbench {__version__}\n")
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS.get(name)
    if command is None:
        kind = "option" if name.startswith("-") else "command"
        known = ["--help", "--version"] if name.startswith("-") else list(COMMANDS)
        hint = nearest(name, known) or "; `turnbench --help` lists them"
        one_line("turnbench", f"unknown {kind} {name!r}{hint}")
    at_once = signal.getsignal(signal.SIGINT)
    try:
        run = import_module(command.module).main
        if callable(at_once) and name != "run":  # a run takes the signal itself, once it can end in order
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = int(run(rest, f"turnbench {name}"))
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OF_THE_ANALYSIS:
            raise
        one_line(f"turnbench {name}", missing_for_analysis() or str(error))
    except KeyboardInterrupt:
        return exits.OF_SIGNAL[signal.SIGINT]
    except BrokenPipeError:  # the reader, such as `head`, has gone; Python would complain when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    finally:
        signal.signal(signal.SIGINT, at_once)


def _print(text: str) -> int:
    sys.stdout.write(text)
    return exits.OK
