"""Files for other programs: summary.json, summary.csv, turns.parquet and a spreadsheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.tables.comparisons import precisions_table, rankings_table
from analysis.tables.rows import TextTable
from analysis.tables.writing import for_csv, for_terminal
from analysis.turns.frame import TEXTS
from analysis.turns.study import Study
from turnbench.formats import Summary, summary_json

_PARQUET_ROWS = 50_000
"""Rows that parquet's writer holds at a time."""
_PLAIN_TEXT = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
"""A name from a server stays text whatever it begins with."""
_WIDEST = 40
_MOST_SHEET_ROWS = 1_000_000
_MOST_CHARS = 32_000
Row = dict[str, Any]


def write_json(value: object, path: Path) -> None:
    """Strict JSON of plain values and Structs: a value that is not finite is a bug and raises ValueError."""
    text = json.dumps(msgspec.to_builtins(value), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_summary(summary: Summary, path: Path) -> None:
    """summary.json."""
    write_json(summary_json(summary), path)


def write_csv(summary: Summary, path: Path) -> None:
    """One row a cell, keys joined by `_`; the last column says whether its run was an emulator's."""
    emulated = {run.run: run.emulated for run in summary.runs or []}
    rows = [
        flat(cell) | {"emulated": emulated.get(cell.get("run"), summary.emulated)}
        for cell in summary_json(summary)["cells"]
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["model", "task", "level"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([for_csv(row.get(column)) for column in columns] for row in rows)


def flat(value: dict[str, Any], prefix: str = "") -> Row:
    """Nested keys joined by `_`; the two ends of an interval end in `_lo` and `_hi`."""
    out: Row = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            out |= flat(item, f"{name}_")
        elif prefix.endswith("ci95_"):
            out |= dict(zip((f"{name}_lo", f"{name}_hi"), item or (None, None), strict=True))
        else:
            out[name] = item
    return out


def write_parquet(study: Study, path: Path) -> None:
    """Every record with its metrics; times on the run's clock, event columns as lists."""
    table = pa.Table.from_pandas(study.frame, preserve_index=False)
    for name in TEXTS:  # also where none has a value: the files of all runs have the same columns
        texts = table[name].cast(pa.large_string())
        table = table.set_column(table.schema.get_field_index(name), name, texts)
    events = study.events
    for name, values in (
        ("event_us", events.at_us),
        ("event_tokens", events.tokens),
        ("event_words", events.words),
    ):
        table = table.append_column(name, pa.LargeListArray.from_arrays(events.offsets, values))
    # Event columns are most of the file: a dictionary of arrivals only costs time.
    pq.write_table(
        table,
        path,
        compression="lz4",
        use_dictionary=list(TEXTS),
        write_statistics=False,
        row_group_size=_PARQUET_ROWS,
    )


def write_workbook(summary: Summary, path: Path) -> None:
    """A spreadsheet: sheets of cells, levels, findings and, for several models, how they differ.

    Raises OSError where the file can't be written.
    """
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    book = xlsxwriter.Workbook(str(path), _PLAIN_TEXT)
    mark = "EMULATED " if summary.emulated else ""
    verdict = {"verdict": summary.verdict.status, "emulated": summary.emulated}
    plain, study = summary_json(summary), summary.study or None
    sheets = {
        "run": [verdict | {"run": summary.run, "partial": summary.partial}],
        "cells": [{"name": cell["model"]} | flat(cell) for cell in plain["cells"]],
        "levels": [flat(level) for level in plain["levels"]],
        "findings": plain["verdict"]["findings"],
        "models": _by_head(rankings_table(summary.comparison or None)),
        "tasks": [flat(msgspec.to_builtins(row)) for row in study.ratios] if study else [],
        "precisions": _by_head(precisions_table(study)),
    }
    for name, rows in sheets.items():
        if rows:
            _fill(book, f"{mark}{name}", f"{mark}{for_terminal(summary.run)}: {name}", rows)
    try:
        book.close()
    except FileCreateError as error:
        cause = error.args[0] if error.args else error
        raise cause if isinstance(cause, OSError) else OSError(0, str(error), str(path)) from None


def _by_head(table: TextTable) -> list[Row]:
    """Texts under their heads; an interval, and a head that comes twice, belong to the head before them."""
    heads = table.heads
    names = [
        f"{heads[i - 1]} {head}" if head in heads[:i] or head == "95%" else head
        for i, head in enumerate(heads)
    ]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def _fill(book: Any, name: str, title: str, rows: list[Row]) -> None:
    """A title, the heads in bold with a filter, and a row each."""
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True})
    heads = list(dict.fromkeys(key for row in rows for key in row))
    sheet.write_string(0, 0, title, bold)
    for column, head in enumerate(heads):
        sheet.write_string(1, column, head, bold)
        texts = [len(str(row.get(head, ""))) for row in rows[:200] if isinstance(row.get(head), str)]
        sheet.set_column(column, column, min(max([len(head), *texts]) + 2, _WIDEST))
    for number, row in enumerate(rows[:_MOST_SHEET_ROWS], 2):
        for column, head in enumerate(heads):
            value = row.get(head)
            if isinstance(value, bool):
                sheet.write_boolean(number, column, value)
            elif isinstance(value, int | float):
                sheet.write_number(number, column, value)
            elif value is not None and value != "":
                sheet.write_string(number, column, for_terminal(value)[:_MOST_CHARS])
    sheet.freeze_panes(2, 0)
    sheet.autofilter(1, 0, min(len(rows), _MOST_SHEET_ROWS) + 1, len(heads) - 1)
