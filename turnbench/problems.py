"""Mistakes in a file that a person wrote: where each is, what to do about it, and all of them at once.

Every reader of such a file (scenarios, sweep plans, fault files, the model catalogue, calibrations, server
facts) collects Problems and raises one subclass of FileProblems with all of them. The texts are safe for a
terminal: what comes out of a file is quoted and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

SHOWN_MAX = 100
"""Mistakes shown of one file."""
FOUND_MAX = 500
"""Mistakes looked for in one file. A file with more is not what its name says, and looking takes time."""
_NAMES_MAX = 12


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: where it is and what to do about it. `line` 0: the file as a whole."""

    source: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.text}"


class FileProblems(Exception):
    """A file that cannot be used: every mistake in it (`found`), and the lines to show (`problems`)."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.found = sorted(set(problems))
        lines = [str(problem) for problem in self.found]
        if len(lines) > SHOWN_MAX:
            lines[SHOWN_MAX:] = [f"... and {len(lines) - SHOWN_MAX} more; mend these first"]
        self.problems: list[str] = lines
        super().__init__("\n".join(lines))


def quoted(text: str, longest: int = 60) -> str:
    """Text from a file made safe for a terminal: quoted, escaped and not too long."""
    return ascii(text if len(text) <= longest else text[: longest - 3] + "...")


def nearest(word: str, known: Iterable[str], kind: str) -> str:
    """What to do about an unknown word: the nearest known one, or all of them (named by `kind`)."""
    choices = sorted(name for name in known if len(name) <= 60)[:FOUND_MAX]
    close = get_close_matches(word[:60], choices, n=1)
    if close:
        return f"did you mean {quoted(close[0])}?"
    return f"{kind}: {listed(choices)}"


def listed(names: Iterable[str]) -> str:
    """Names one after the other, no more than a line holds."""
    ordered = sorted(names)
    shown = [name if name.isidentifier() else quoted(name) for name in ordered[:_NAMES_MAX]]
    return ", ".join(shown + ["..."] * (len(ordered) > _NAMES_MAX)) or "none"
