"""What a terminal shows: the table, the verdict with its findings, and where the report is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.tables import FOOTNOTE, HEADERS, clean, headline_rows

_COLOURS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_PLAIN_WIDTH = 100
_NAMES = 2
"""The first columns hold names, which are folded when they are very long; numbers never."""
_LONGEST_NAME = 16
_UNITS = {"TTFT p50": "s", "TTG p50": "s", "TPOT p50": "ms"}
"""Said once in the header here, to leave room for the names."""


def console() -> Console:
    """A console for people; in a pipe or file plain text of 100 columns."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_PLAIN_WIDTH, highlight=False, color_system=None, legacy_windows=False)


def show(summary: dict[str, Any], report: Path | None, out: Console) -> None:
    """Print a summary and the path of its report, if it has one."""
    out.print(_table(summary))
    rows = [text for row in headline_rows(summary) for text in row.texts]
    if any(text.startswith("m ") or text == "∞" for text in rows):
        out.print(Text(FOOTNOTE, style="dim"))
    if summary.get("comparison"):
        out.print(Text(clean(summary["comparison"]["words"])))
    verdict = summary["verdict"]
    out.print(Text(verdict["status"].upper(), style=f"bold {_COLOURS[verdict['status']]}"))
    for finding in verdict["findings"]:
        out.print(_finding(finding))
    if report is None:
        return
    mark = "Report (EMULATED): " if summary["emulated"] else "Report: "
    out.print(Text.assemble(mark, clean(str(report))), soft_wrap=True)


def _table(summary: dict[str, Any]) -> Table:
    words = ["EMULATED"] * bool(summary["emulated"]) + ["PARTIAL"] * bool(summary["partial"])
    title = Text(" · ".join([*words, clean(summary["run"])]), style="bold")
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    rows = [[clean(text) for text in row.texts] for row in headline_rows(summary)]
    for index, header in enumerate(HEADERS):
        name = index < _NAMES
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            _header(header),
            justify="left" if name else "right",
            overflow="fold",
            no_wrap=not name,
            min_width=min(longest, _LONGEST_NAME) if name else None,
        )
    above = ["", ""]
    for row in rows:
        model, task = row[:_NAMES]
        names = ["" if model == above[0] else model, "" if [model, task] == above else task]
        table.add_row(*map(Text, names), *map(_number, HEADERS[_NAMES:], row[_NAMES:]))
        above = [model, task]
    return table


def _header(name: str) -> str:
    """A column's name over two lines, with its unit."""
    return " ".join([name, _UNITS.get(name, "")]).strip().replace(" ", "\n", 1)


def _number(header: str, text: str) -> Text:
    unit = _UNITS.get(header)
    return Text(text.replace(f" {unit}", "", 1) if unit else text)


def _finding(finding: dict[str, Any]) -> Text:
    where = f"{finding['run']}: " if finding.get("run") else ""
    style = _COLOURS.get(finding["level"], "dim")
    head = Text(f"  {clean(finding['level'])} ", style=style)
    return Text.assemble(
        head, clean(f"{where}{finding['what']}\n"), Text(f"    → {clean(finding['remedy'])}")
    )
