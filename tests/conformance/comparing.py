"""Two shapes side by side, and the differences that are known and named."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.shape import Shape

TABLE = Path(__file__).with_name("differences.yaml")
NOTHING = "-"
UNANSWERED = "unanswered"
"""Place of a row about a probe to which no answer comes in minutes, or none to others after it: not asked."""


@dataclass(frozen=True)
class Difference:
    """One place in which an answer differs from the recorded one."""

    probe: str
    where: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.probe}: {self.where}: recorded {self.recorded}, here {self.here}"


@dataclass(frozen=True)
class Known:
    """A row of the table; probe and place are patterns (`*` for anything)."""

    server: str
    probe: str
    where: str
    why: str

    def names(self, difference: Difference) -> bool:
        return fnmatchcase(difference.probe, self.probe) and fnmatchcase(difference.where, self.where)


def differences(probe: str, recorded: Shape, here: Shape) -> list[Difference]:
    """Place by place. Where another status came, or nothing stands in place of something, that is all."""
    found: list[Difference] = []
    for where in dict.fromkeys(where for where, _ in (*recorded, *here)):
        theirs, ours = ([what for place, what in side if place == where] for side in (recorded, here))
        if where == "metric":
            found += _metrics(probe, set(theirs), set(ours))
        elif ours != theirs and not any(_hides(each, where) for each in found):
            found.append(Difference(probe, where, " ".join(theirs) or NOTHING, " ".join(ours) or NOTHING))
        if where == "status" and found:
            return found
    return found


def _metrics(probe: str, recorded: set[str], here: set[str]) -> list[Difference]:
    missing, added = sorted(recorded - here), sorted(here - recorded)
    return [Difference(probe, f"metric {name}", name, NOTHING) for name in missing] + [
        Difference(probe, f"metric {name}", NOTHING, name) for name in added
    ]


def _hides(found: Difference, where: str) -> bool:
    """Whether a place lies below one that only one of both answers has."""
    empty = any(side[0] not in "{[" for side in (found.recorded, found.here))
    return empty and where.startswith((f"{found.where}.", f"{found.where}["))


def table(server: str) -> list[Known]:
    """The known differences of one server from the recorded vLLM."""
    rows: dict[str, list[dict[str, Any]]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [
        Known(server, probe, where, row["why"])
        for row in rows[server]
        for probe in _listed(row["probes"])
        for where in _listed(row["where"])
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def unnamed(found: list[Difference], known: list[Known]) -> list[str]:
    """Differences that no row names."""
    return [str(each) for each in found if not any(row.names(each) for row in known)]


def stale(found: list[Difference], known: list[Known]) -> list[str]:
    """Rows that name nothing any more."""
    return [f"{row.probe}: {row.where}" for row in known if not any(row.names(each) for each in found)]
