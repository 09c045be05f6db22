"""What a terminal shows: the table, the verdict with its findings, and where the report is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.measures.cells import ALL
from analysis.tables.headline import FOOTNOTE, HEADERS, clean, headline_rows
from analysis.tables.ranking_words import swap_in_words
from analysis.tables.terminal_sweep import study_tables, sweep_table

_COLOURS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_PLAIN_WIDTH = 100
_NAMES = 2
"""The first columns hold names, which are folded when they are very long; numbers never."""
_LONGEST_NAME = 16
_EACH = 2
"""Findings of one check that are told; a sweep may have the same one in every run."""
SWEEP_FOOTNOTE = (
    "TTG: half of the answers were complete within so many seconds (m: mean of the n turns in brackets, "
    "too few for a median). tps: tokens a second."
)
_UNITS = {"TTFT p50": "s", "TTG p50": "s", "TPOT p50": "ms"}
"""Said once in the header here, to leave room for the names."""


def console() -> Console:
    """A console for people; in a pipe or file plain text of 100 columns."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_PLAIN_WIDTH, highlight=False, color_system=None, legacy_windows=False)


def show(summary: dict[str, Any], report: Path | None, out: Console, *, study: bool = False) -> None:
    """Print a summary and the path of its report, if it has one: one table, and a few lines under it.

    `study`: also the study's own table beside ours, for runs that get no report of their own.
    """
    words = ["EMULATED"] * bool(summary["emulated"]) + ["PARTIAL"] * bool(summary["partial"])
    title = " · ".join([*words, clean(summary["run"])])
    several = sweep_table(summary, title)
    out.print(several or _table(summary, title))
    for table in study_tables(summary, "EMULATED · " if summary["emulated"] else "") if study else []:
        out.print(table)
    for line in _under(summary, several is not None):
        out.print(Text(clean(line), style="dim" if line in (FOOTNOTE, SWEEP_FOOTNOTE) else ""))
    verdict = summary["verdict"]
    out.print(Text(verdict["status"].upper(), style=f"bold {_COLOURS[verdict['status']]}"))
    for finding in _grouped(verdict["findings"]):
        out.print(_finding(finding))
    if report is not None:
        mark = "Report (EMULATED): " if summary["emulated"] else "Report: "
        out.print(Text.assemble(mark, clean(str(report))), soft_wrap=True)


def _under(summary: dict[str, Any], several: bool) -> list[str]:
    """What the table can't say by itself."""
    if several:
        swap = swap_in_words((summary.get("comparison") or {"cells": []})["cells"])
        failed = sum(cell["failed"] + cell["unfinished"] for cell in summary["cells"] if _is_whole(cell))
        lines = [SWEEP_FOOTNOTE, swap, f"{failed} turns failed or never ended." if failed else ""]
        return [line for line in lines if line]
    rows = [text for row in headline_rows(summary) for text in row.texts]
    marked = any(text.startswith("m ") or text == "∞" for text in rows)
    return [FOOTNOTE] if marked else []


def _is_whole(cell: dict[str, Any]) -> bool:
    """Whether a cell holds all turns of one model at one level."""
    return cell["task"] == ALL and ALL not in (cell["model"], cell["level"])


def _grouped(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each check once, with how many more of its sort there are."""
    by_check: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        by_check.setdefault((finding["level"], finding["check"]), []).append(finding)
    told = []
    for same in by_check.values():
        more = len(same) - _EACH
        told += same[:_EACH]
        if more > 0:
            told[-1] = told[-1] | {"remedy": f"{told[-1]['remedy']} ({more} more like it in the report)"}
    return told


def _table(summary: dict[str, Any], title: str) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
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
