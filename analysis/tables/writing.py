"""How a number, a load and a name of unknown origin are written: one way for every table, page and file.

Texts that came from a server or a file are made safe by the function named after the place they go to.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable

from analysis.measures.cells import ALL
from turnbench.cleaning import printable
from turnbench.formats.summary import Distribution, LevelSummary

NONE = "–"
"""Stands where there is no number."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN = "\\`*_[]|@#!~"


def number(value: float | None) -> str:
    """About three digits, never in powers of ten."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    size = abs(value)  # as it is after rounding: 0.9996 is 1.00
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def seconds(value_ms: float) -> str:
    """Milliseconds as seconds with about three digits."""
    return f"{number(value_ms / 1e3)} s"


def milliseconds(value_ms: float) -> str:
    """Milliseconds with about three digits."""
    return f"{number(value_ms)} ms"


def signed(value: float | None) -> str:
    """A correlation, from -1.00 to +1.00."""
    return NONE if value is None else f"{value:+.2f}"


def percent(share: float) -> str:
    """A share in whole percent; never -0%."""
    return f"{round(share * 100)}%"


def tenths(share: float) -> str:
    """A share in percent with one decimal; without it where it is whole."""
    return f"{share * 100:.1f}%".replace(".0%", "%")


def change(ratio: float) -> str:
    """A ratio of two times as a change in percent: 1.05 is +5.0%; never -0.0%."""
    return f"{round((ratio - 1) * 100, 1) + 0.0:+.1f}%" if ratio < 100 else "∞"


def interval(ends: list[float] | tuple[float, float], write: Callable[[float], str]) -> str:
    """Both ends of an interval."""
    return f"{write(ends[0])} to {write(ends[1])}"


def middle(distribution: Distribution, write: Callable[[float], str], turns: int) -> str:
    """The median; ≥ where it falls among turns that never ended. Where there are too few turns for one:
    the mean, marked "m", and with its n unless that is all `turns`; * marks a restricted mean. ∞ where
    nothing is known of the unfinished ones."""
    if distribution.p50 is not None:
        return write(distribution.p50)
    if "p50" in distribution.bound:
        return f"≥ {write(distribution.bound['p50'])}"
    if distribution.mean is not None:
        mean = f"m {write(distribution.mean)}{'*' * (distribution.mean_to is not None)}"
        return mean if distribution.n == turns else f"{mean} ({distribution.n})"
    return "∞" if distribution.n else NONE


def doubtful(text: str) -> bool:
    """Whether a cell's text needs the note on means and unfinished turns."""
    return text.startswith(("m ", "≥ ")) or text == "∞"


def task(name: object) -> str:
    """A task, or the sum over all of them."""
    return "all tasks" if name == ALL else str(name)


def people(level: LevelSummary) -> str:
    """A level's load in words."""
    if level.users is not None:
        return "1 person" if level.users == 1 else f"{level.users} people"
    rate = level.arrival_rate_per_s
    return f"{rate:g} conversations arriving per second" if rate else "an unrecorded load"


def stamp(emulated: bool) -> str:
    """What is put before the title of every table and figure of an emulated run."""
    return "EMULATED · " if emulated else ""


def for_terminal(text: object) -> str:
    """Without control characters, which could steer a terminal."""
    return printable(text)


def for_markdown(text: object) -> str:
    """Markdown and HTML taken literally, on one line."""
    plain = printable(text).replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in plain)


def for_plotly(text: object) -> str:
    """Plotly takes some HTML in its labels: names must not act as HTML."""
    return html.escape(printable(text), quote=False)


def for_csv(value: object) -> object:
    """A spreadsheet runs a text that starts like a formula: the quote in front keeps it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def for_script_tag(value: object) -> str:
    """JSON that can stand inside a script tag: nothing in it can end the tag or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
