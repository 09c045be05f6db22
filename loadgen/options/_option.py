"""What an option is: one field of Settings, with its help, parser, default and conflicts beside it.

    class Settings(msgspec.Struct):
        drain_s: Annotated[float, Option("Longest wait ...", seconds, "TIME", "60s")] = 60.0

Command line, environment, web form, run.json, `--help` and docs/options.md are made from these fields, see
`_command_line`. Locust sends option values to workers and shows them in its start form, so there they are
text, number, bool or None; a parser here makes the field's value of it, or says what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_type_hints

import msgspec

_UNITS = ("_per_s", "_s")
_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its field. Without `metavar` it is a switch."""

    help: str
    """One or two sentences."""
    parse: Callable[[str], Any] = str
    """Makes the field's value of what was typed; for an option that `repeats`, a (name, value) pair of each.

    Raises ValueError(why), or ValueError(shown, why) where the value, or its name, may be shown.
    """
    metavar: str | None = None
    default: str = ""
    """As a person would type it; empty: the field's own default stands, and the help says what that means."""
    repeats: bool = False
    name: str = ""
    """Its name on the command line, if that isn't the field's without its unit."""
    excludes: Mapping[str, str] = field(default_factory=dict)
    """Flags that can't be given beside it, and why, with what to do."""
    locusts: str = ""
    """The flag of an option that is Locust's own."""
    key: str = ""
    """Where it stands among Locust's parsed options, if that isn't its name."""
    at_start: bool = False
    """Whether it is about the process and not a run: it is not in the start form."""


@dataclass(frozen=True)
class DeclaredOption:
    """An option together with its field."""

    field: str
    option: Option
    default: Any
    """The field's."""

    @property
    def name(self) -> str:
        """On the command line, without the dashes."""
        plain = self.field
        for unit in _UNITS:
            plain = plain.removesuffix(unit)
        return self.option.name or plain.replace("_", "-")

    @property
    def flag(self) -> str:
        return self.option.locusts or f"--{self.name}"

    @property
    def dest(self) -> str:
        """Its key among the parsed options."""
        return self.option.key or self.name.replace("-", "_")

    @property
    def env_var(self) -> str:
        return "TURNBENCH_" + self.name.replace("-", "_").upper()

    @property
    def is_switch(self) -> bool:
        return self.option.metavar is None

    @property
    def repeats(self) -> bool:
        return self.option.repeats

    @property
    def metavar(self) -> str | None:
        return self.option.metavar

    @property
    def help(self) -> str:
        return self.option.help

    def read(self, value: Any, problems: list[str]) -> Any:
        """The field's value of what was typed; its default where nothing was, or where a problem is added."""
        if self.repeats:
            found = {}
            for number, text in enumerate(value or [], start=1):
                try:
                    if not _is_sound(text):  # not shown: it may be a key
                        raise ValueError("not valid text; write it in UTF-8")
                    name, paired = self.option.parse(text)
                    found[name] = paired
                except ValueError as error:
                    problems.append(_problem(f"{self.flag} number {number}", self.flag, error))
            return found or self.default
        text = "" if value is None else str(value).strip()
        try:
            if self.is_switch:
                return switch(text)
            if not text and self.default is not msgspec.NODEFAULT:
                return self.default
            if not _is_sound(text):
                raise ValueError(f"{text!r} is not valid text; write it in UTF-8")
            return self.option.parse(text)
        except ValueError as error:
            problems.append(_problem(self.flag, self.flag, error))
            return self.default

    def is_given(self, options: Mapping[str, Any]) -> bool:
        """Whether somebody asked for it, with a sound value or not."""
        value = options.get(self.dest)
        if self.is_switch:
            return str(value or "").strip().lower() not in _OFF
        return value is not None and value != [] and str(value).strip() != ""


def _problem(where: str, flag: str, error: ValueError) -> str:
    if len(error.args) == 2:
        shown, why = error.args
        return f"{flag} {shown}: {why}"
    return f"{where}: {error}"


@cache
def declared(kind: type[msgspec.Struct]) -> tuple[DeclaredOption, ...]:
    """The options of a Settings class, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for each in msgspec.structs.fields(kind):
        default = each.default
        if each.default_factory is not msgspec.NODEFAULT:
            default = each.default_factory()
        extras = getattr(hints[each.name], "__metadata__", ())
        found += [DeclaredOption(each.name, extra, default) for extra in extras if isinstance(extra, Option)]
    return tuple(found)


def _is_sound(text: str) -> bool:
    """Whether it was UTF-8: no message or file could carry it otherwise."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def switch(text: str) -> bool:
    """Whether a switch is on, by the words that an environment, a plan or a configuration file may use."""
    word = text.strip().lower()
    if word not in (*_ON, *_OFF):
        raise ValueError(f"{text[:40]!r} is neither on nor off (true, yes, 1; false, no, 0)")
    return word in _ON
