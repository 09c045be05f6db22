"""The argument parser of every command: help that fits a screen and ends with an example, and one line for a
mistake, with the nearest thing that was meant; and what commands of several rooms take.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from turnbench import exits

_HELP_COLUMN = 26


def nearest(typed: str, known: Iterable[str]) -> str:
    """`; did you mean X?` with the known word most like the typed one, or nothing where none is like it."""
    close = difflib.get_close_matches(typed, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def one_line(program: str, message: str) -> NoReturn:
    """End with exit 2 and one line on standard error: what was typed is wrong, and nothing was started."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(exits.BAD_CONFIGURATION)


def collector_url(text: str) -> str:
    """The address of an OpenTelemetry collector as it was typed; raises ValueError for all else. It is
    written into run.json, so it may hold no key."""
    why = ""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        sound, why = False, f" ({error})"
    if not sound:
        raise ValueError(f"not an address such as http://127.0.0.1:4318{why}")
    if parts.username is not None or parts.query:
        raise ValueError("no key or password here; it goes into OTEL_EXPORTER_OTLP_HEADERS")
    return text


class CommandParser(argparse.ArgumentParser):
    """argparse with short usage lines, an `example` under the options, and mistakes on one line."""

    def __init__(self, *args: Any, example: str = "", **more: Any) -> None:
        more.setdefault("formatter_class", _Formatter)
        if example:
            more["epilog"] = f"example:\n  {example}"
        self._typed: list[str] = []
        super().__init__(*args, **more)

    def format_help(self) -> str:
        if self.usage is None:
            required = [_shown(action) for action in self._actions if not action.option_strings]
            self.usage = " ".join(["%(prog)s", *required, "[options]"])
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but what nobody knows ends here, where the options that do exist are known."""
        self._typed = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown[0])
        return found, unknown

    def refuse(self, unknown: str) -> NoReturn:
        """End with one line about an argument that the command does not have."""
        name = unknown.partition("=")[0]
        if name.startswith("-"):
            self.error(f"unknown option {name}{nearest(name, self._option_string_actions)}")
        self.error(f"unexpected argument {unknown!r}")

    def error(self, message: str) -> NoReturn:
        if "required" in message:  # rather what is there by mistake than what is missing because of it
            flags = [word.partition("=")[0] for word in self._typed if word.startswith("--")]
            known = tuple(self._option_string_actions)
            for flag in flags:
                if not any(name.startswith(flag) for name in known):
                    self.refuse(flag)
        one_line(self.prog, message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        hint = nearest(str(value), choices) or f"; one of {', '.join(choices)}"
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"unknown command {value!r}{hint}")
        raise argparse.ArgumentError(action, f"{value!r} is not known{hint}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """One line an option wherever the terminal allows it."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN, **more)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-u, --users N` instead of `-u N, --users N`."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        metavar = self._get_default_metavar_for_optional(action)
        if action.nargs == "+":
            metavar = f"{action.metavar or metavar}..."
            return f"{', '.join(action.option_strings)} {metavar}"
        value = self._format_args(action, metavar)
        return f"{', '.join(action.option_strings)} {value}"

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        """Choices read a|b|c, as in this project's other help."""
        if action.metavar is None and action.choices is not None:
            joined = "|".join(str(choice) for choice in action.choices)
            return lambda size: (joined,) * size
        return super()._metavar_formatter(action, default_metavar)


def _shown(action: argparse.Action) -> str:
    """A positional argument in a usage line."""
    metavar = action.metavar if action.metavar is not None else action.dest.upper()
    name = metavar if isinstance(metavar, str) else " ".join(metavar)
    if action.nargs in ("*", "?"):
        return f"[{name}{'...' if action.nargs == '*' else ''}]"
    return name + "..." * (action.nargs == "+")


def option_strings(parser: argparse.ArgumentParser) -> Sequence[str]:
    """Every option that a parser takes."""
    return list(parser._option_string_actions)
