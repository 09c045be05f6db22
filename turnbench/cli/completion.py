"""`turnbench completion bash|zsh`: every command and option, for the shell to complete."""

from __future__ import annotations

from importlib import import_module

from turnbench.command_line import CommandParser


def command_parser(prog: str) -> CommandParser:
    """Which shell."""
    example = f"{prog} bash > ~/.local/share/bash-completion/completions/turnbench"
    parser = CommandParser(prog=prog, description="Print a completion script.", example=example)
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh")
    return parser


def main(arguments: list[str], prog: str = "turnbench completion") -> int:
    """Print the script; 0."""
    given = command_parser(prog).parse_args(arguments)
    import shtab

    print(shtab.complete(whole_parser(), given.shell))
    return 0


def whole_parser() -> CommandParser:
    """One parser with every command in it."""
    from turnbench.cli.main import COMMANDS

    whole = CommandParser(prog="turnbench")
    commands = whole.add_subparsers(metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = import_module(command.module).command_parser(f"turnbench {name}")
        commands.add_parser(name, help=command.help, parents=[one], add_help=False)
    return whole
