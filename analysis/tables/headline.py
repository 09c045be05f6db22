"""The table a person reads: which cells, which columns, and how a number is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.compare.sample import load_order
from analysis.measures.cells import ALL

HEADERS = (
    "model",
    "task",
    "people",
    "n",
    "TTFT p50",
    "TTG p50",
    "TPOT p50",
    "tps",
    "agg. TPS",
    "streams",
    "failed",
)
FOOTNOTE = (
    "m: a mean of all n turns (or of as many as stand in brackets), too few for a median. "
    "∞: unfinished turns stand where the number would."
)


@dataclass(frozen=True)
class Row:
    """One line of the headline table, as text, and the cell it came from."""

    texts: tuple[str, ...]
    cell: dict[str, Any]


def headline_rows(summary: dict[str, Any]) -> list[Row]:
    """Model, task and level, without the sums over levels; over tasks only where there are several."""
    levels = {(level.get("run"), level["index"]): level for level in summary["levels"]}
    cells = cells_at_levels(summary)
    played: dict[tuple[Any, str], set[str]] = {}
    for cell in cells:
        played.setdefault((cell.get("run"), cell["model"]), set()).add(cell["task"])
    shown = [c for c in cells if c["task"] != ALL or len(played[c.get("run"), c["model"]]) > 2]
    shown.sort(key=_order)
    return [Row(_texts(cell, levels[(cell.get("run"), cell["level"])]), cell) for cell in shown]


def cells_at_levels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells of one model and one level in order of `load`, with what the model is called (`name`)."""
    loads = {(level.get("run"), level["index"]): level["load"] for level in summary["levels"]}
    cells = [
        cell | {"name": name_of(cell), "load": loads[(cell.get("run"), cell["level"])]}
        for cell in summary["cells"]
        if cell["model"] != ALL and cell["level"] != ALL
    ]
    return sorted(cells, key=lambda cell: load_order(cell["load"]))


def _order(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["name"], cell["task"] == ALL, cell["task"], load_order(cell["load"])


def name_of(cell: dict[str, Any]) -> str:
    """What the cell's model is called: in a sweep with what tells its run apart."""
    return str(cell.get("name", cell["model"]))


def _texts(cell: dict[str, Any], level: dict[str, Any]) -> tuple[str, ...]:
    return (
        cell["name"],
        "all tasks" if cell["task"] == ALL else str(cell["task"]),
        cell["load"],
        str(cell["turns"]),
        middle(cell["ttft_ms"], seconds, cell["turns"]),
        middle(cell["ttg_ms"], seconds, cell["turns"]),
        middle(cell["tpot_ms"], milliseconds, cell["turns"]),
        number(cell["tps"]),
        number(cell["aggregate_tps"]),
        number(level["streams_mean"]),
        str(cell["failed"] + cell["unfinished"]),
    )


def middle(distribution: dict[str, Any], write: Callable[[float], str], turns: int) -> str:
    """The median; where it isn't allowed the mean, marked "m", and with its n if not all turns have one."""
    if distribution["p50"] is not None:
        return write(distribution["p50"])
    if distribution["mean"] is not None:
        mean = f"m {write(distribution['mean'])}"
        return mean if distribution["n"] == turns else f"{mean} ({distribution['n']})"
    return "∞" if distribution["n"] else "–"


def seconds(value_ms: float) -> str:
    """Milliseconds as seconds with about three digits."""
    return f"{number(value_ms / 1e3)} s"


def milliseconds(value_ms: float) -> str:
    """Milliseconds with about three digits."""
    return f"{number(value_ms)} ms"


def number(value: float | None) -> str:
    """About three digits, never in powers of ten."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def clean(text: object) -> str:
    """Text from a server or file without control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
