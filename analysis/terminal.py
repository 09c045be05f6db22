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
"""The first columns hold names, which may be folded; numbers may not."""


def console() -> Console:
    """A console for people; in a pipe or file plain text of 100 columns."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_PLAIN_WIDTH, highlight=False, color_system=None, legacy_windows=False)


def show(summary: dict[str, Any], report: Path, out: Console) -> None:
    """Print a summary and the path of its report."""
    out.print(_table(summary))
    rows = [text for row in headline_rows(summary) for text in row.texts]
    if any(text.startswith("m ") or text == "∞" for text in rows):
        out.print(Text(FOOTNOTE, style="dim"))
    verdict = summary["verdict"]
    out.print(Text(verdict["status"].upper(), style=f"bold {_COLOURS[verdict['status']]}"))
    for finding in verdict["findings"]:
        out.print(_finding(finding))
    out.print(Text.assemble("Report: ", clean(str(report))), soft_wrap=True)


def _table(summary: dict[str, Any]) -> Table:
    words = ["EMULATED"] * bool(summary["emulated"]) + ["PARTIAL"] * bool(summary["partial"])
    title = Text(" · ".join([*words, clean(summary["run"])]), style="bold")
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for index, header in enumerate(HEADERS):
        name = index < _NAMES
        table.add_column(header, justify="left" if name else "right", overflow="fold", no_wrap=not name)
    above = ""
    for row in headline_rows(summary):
        model, *others = (clean(text) for text in row.texts)
        table.add_row(Text("" if model == above else model), *map(Text, others))
        above = model
    return table


def _finding(finding: dict[str, Any]) -> Text:
    where = f"{finding['run']}: " if finding.get("run") else ""
    style = _COLOURS.get(finding["level"], "dim")
    head = Text(f"  {clean(finding['level'])} ", style=style)
    return Text.assemble(
        head, clean(f"{where}{finding['what']}\n"), Text(f"    → {clean(finding['remedy'])}")
    )
