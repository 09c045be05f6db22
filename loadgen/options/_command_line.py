"""Options on Locust's command line, in its environment and its start form, and as Settings.

Locust sends option values to workers as msgpack and shows them in its start form, so values are str, float,
bool or None and types do no work: everything is read in `settings_from`, all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import structs

from loadgen.options._endpoint import address_of
from loadgen.options._option import DeclaredOption, declared
from loadgen.options._settings import Settings
from loadgen.options._shape import Shape
from loadgen.options._shapes import SHAPES


class OptionErrors(ValueError):
    """Every mistake in the options, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def own_options(kind: type[Settings] = Settings) -> list[DeclaredOption]:
    """turnbench's own options; those of Locust that it reads are fields of Settings too."""
    return [each for each in declared(kind) if not each.option.locusts]


OPTIONS = tuple(own_options())


def add_options(parser: Any, kind: type[Settings] = Settings) -> None:
    """Add ours to Locust's parser; every option also reads TURNBENCH_NAME from the environment."""
    for each in own_options(kind):
        if each.repeats:
            parser.add_argument(
                each.flag, action="append", metavar=each.metavar, default=None, env_var=each.env_var,
                help=each.help, include_in_web_ui=False,
            )  # fmt: skip
        elif each.is_switch:
            parser.add_argument(
                each.flag, action="store_true", default=False, env_var=each.env_var, help=each.help
            )
        else:
            parser.add_argument(
                each.flag, type=str, metavar=each.metavar, default=each.option.default, env_var=each.env_var,
                help=each.help, include_in_web_ui=not each.option.at_start,
            )  # fmt: skip


def settings_from(
    options: Mapping[str, Any], kind: type[Settings] = Settings, shapes: Sequence[type[Shape]] = SHAPES
) -> Settings:
    """Settings of Locust's parsed options (a namespace's dict); raises OptionErrors with all mistakes.

    Values may also be text throughout, as in a sweep's plan. `turnbench_users_given` says whether -u was
    typed: Locust's start form always sends a number of people.
    """
    problems: list[str] = []
    all_options = declared(kind)
    fields: dict[str, Any] = {each.field: each.read(options.get(each.dest), problems) for each in all_options}
    given = {each.flag for each in all_options if each.is_given(options)}
    if not options.get("turnbench_users_given"):
        given.discard("-u")
    problems += [
        f"{each.flag} and {other} exclude each other: {why}"
        for each in all_options
        if each.flag in given
        for other, why in each.option.excludes.items()
        if other in given
    ]
    if fields["host"] is msgspec.NODEFAULT:  # the one that must be given
        fields["host"] = ""
    settings = kind(**fields)
    asked = [shape for shape in shapes if shape.is_asked(settings)]
    shape = asked[0]
    problems += [problem for each in asked for problem in each.problems(settings, frozenset(given))]
    if "--hold" in given and shape.ends == "time" and not shape.takes_hold:
        remedy = "add --levels (or several rates to --arrival-rate), or say -t instead"
        problems.append(f"--hold is about levels: {remedy}")
    problems += _other_dialect(settings)
    if problems:
        raise OptionErrors(list(dict.fromkeys(problems)))
    if not options.get("think_time"):
        settings = structs.replace(settings, think_time=shape.default_think_time)
    return settings


def _other_dialect(settings: Settings) -> list[str]:
    """What is wrong where --dialect and a whole endpoint in -H differ."""
    with suppress(ValueError):  # a host that is none is reported by itself
        named = address_of(settings.host).dialect
        if named is not None and settings.dialect not in ("auto", named):
            way = f"give the server's address alone, or drop --dialect {settings.dialect}"
            return [f"--dialect {settings.dialect}: -H is an endpoint of {named}; {way}"]
    return []


# --- help and docs ---


def options_text(heading: str, kind: type[Settings] = Settings) -> str:
    """All options for a terminal, a line each; Locust prints its own --help before it knows of them."""
    lines = [heading]
    for each in own_options(kind):
        flag = f"{each.flag} {each.metavar or ''}".rstrip()
        default = f" [{each.option.default}]" if each.option.default else ""
        lines.append(f"  {flag:<26} {each.help}{default}")
    return "\n".join(lines)


_PAGE = """# Options

Generated from `loadgen/options/_settings.py` by `turnbench schema --docs docs`: change the fields there.

Every option can also be given in the environment, as `TURNBENCH_` and its name in capitals with `_` for `-`,
and in Locust's configuration file. TIME is a number with ms, s, m or h, several in a row (`1m30s`), or a bare
number of seconds. A switch is on with `on`, `true`, `yes` or `1` and off with `off`, `false`, `no` or `0`.
Whatever is wrong is reported all at once, before any request, with exit code 2. All settings are recorded in
`run.json`.

| option | default | meaning | not together with |
|---|---|---|---|
{rows}

Locust's own `-H`, `-u`, `-r` and `-t` mean what they always do: the endpoint, people, people per second, and
how long the run lasts.
"""


def options_page(kind: type[Settings] = Settings) -> str:
    """docs/options.md."""
    rows, all_options = [], own_options(kind)
    for each in all_options:
        flag = f"`{each.flag}{' ' + each.metavar if each.metavar else ''}`".replace("|", "\\|")
        default = "off" if each.is_switch else f"`{each.option.default}`" if each.option.default else "-"
        excluded = [*each.option.excludes]
        excluded += [other.flag for other in all_options if each.flag in other.option.excludes]
        beside = ", ".join(f"`{flag}`" for flag in dict.fromkeys(excluded)) or "-"
        meaning = each.help.replace("|", "\\|")
        rows.append(f"| {flag} | {default} | {meaning} | {beside} |")
    return _PAGE.format(rows="\n".join(rows))
