"""python -m scenarios: Look at scenarios and check files before any request is made."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from textwrap import indent

from scenarios._load import load
from scenarios._plan import plan
from scenarios._scenario import Conversation, Scenario, ScenarioError
from scenarios._texts import names
from turnbench.command_line import CommandParser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m scenarios") -> int:
    """Run one command; 0, or 2 where a scenario has mistakes (all of them go to standard error)."""
    options = command_parser(prog).parse_args(arguments)
    try:
        for line in options.command(options):
            print(_printable(line))
    except ScenarioError as error:
        print(_printable(str(error)), file=sys.stderr)
        return 2
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def command_parser(prog: str) -> CommandParser:
    """The commands of this room, by the name under which they were called."""
    parser = CommandParser(
        prog=prog, description=__doc__.partition(": ")[2], example=f"{prog} sample chat -n 3"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the built-in mixes and tasks", example=f"{prog} list")
    listing.set_defaults(command=_list)
    showing = commands.add_parser(
        "show", help="print a scenario as one YAML text with everything in it", example=f"{prog} show chat"
    )
    showing.set_defaults(command=lambda options: load(options.name).text.splitlines())
    checking = commands.add_parser(
        "check", help="find every mistake in a scenario file", example=f"{prog} check mine.yaml"
    )
    checking.set_defaults(command=_check)
    sampling = commands.add_parser(
        "sample", help="print some conversations as they would be played", example=f"{prog} sample chat -n 3"
    )
    sampling.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the plan (default 0)")
    sampling.add_argument(
        "-n", type=_count, default=1, metavar="N", help="number of conversations (default 1)"
    )
    sampling.set_defaults(command=_sample)
    for command in (checking, sampling):
        command.add_argument(
            "--skip-bad-rows", action="store_true", help="leave out rows of data that cannot be played"
        )
    for command in (showing, checking, sampling):
        command.add_argument(
            "name", metavar="NAME|FILE", help="a built-in name, a YAML file or a file of data"
        )
    return parser


def _count(text: str) -> int:
    """A number of conversations. Raises what argparse shows."""
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise argparse.ArgumentTypeError(f"{text!a} is no number of conversations; write 1 or more")
    return int(text)


def _list(options: argparse.Namespace) -> Iterator[str]:
    for name in names():
        scenario = load(name)
        yield f"{name:<12}{_size(scenario):<22}{scenario.description}"


def _check(options: argparse.Namespace) -> Iterator[str]:
    scenario = load(options.name, skip_bad_rows=options.skip_bad_rows)
    yield f"{options.name}: good; {_size(scenario)}, tasks {', '.join(scenario.tasks)}"
    for note in scenario.notes:
        yield f"note: {note.what}; {note.remedy}"


def _sample(options: argparse.Namespace) -> Iterator[str]:
    scenario = load(options.name, skip_bad_rows=options.skip_bad_rows)
    for k in range(options.n):
        yield from _conversation(plan(scenario, options.seed, k))


def _conversation(conversation: Conversation) -> Iterator[str]:
    settings = "".join(
        f", {key} {value:g}" if isinstance(value, float) else f", {key} {value}"
        for key, value in conversation.sampling.items()
    )
    count = f"{len(conversation.turns)} turn" + "s" * (len(conversation.turns) > 1)
    yield f"conversation {conversation.index}: {conversation.task}, {count}{settings}"
    if conversation.tools:
        names = (str(tool.get("function", tool).get("name", "?")) for tool in conversation.tools)
        yield f"    tools: {', '.join(names)}"
    if conversation.system is not None:
        yield indent(conversation.system, "    system: ")
    for number, turn in enumerate(conversation.turns, start=1):
        pause = f" after {turn.think_s:g} s," if number > 1 else ""
        if turn.place is not None:
            before = ", ".join(f"turn {n + 1}" for n in turn.place.after) or "the start"
            pause = f" of {turn.place.branch}, {turn.think_s:g} s after {before},"
        yield f"  turn {number}:{pause} at most {turn.max_tokens} tokens"
        yield indent(turn.user, "    ")
        for message in turn.added:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] != "text":
                    yield f"    [{part['type']}]"
    yield ""


def _size(scenario: Scenario) -> str:
    return "endless" if scenario.size is None else f"{scenario.size} conversations"


def _printable(text: str) -> str:
    """Text of a file without what could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main())
