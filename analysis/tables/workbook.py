"""A run's or sweep's tables as a spreadsheet (.xlsx), by the extra `turnbench[xlsx]`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analysis.tables import study_tables
from analysis.tables.export import flat
from analysis.tables.headline import clean, name_of
from analysis.tables.ranking import ORDER_HEADS, order_rows

MISSING = "--xlsx needs a library that is not installed: pip install 'turnbench[xlsx]'"
_PLAIN_TEXT = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
"""A name from a server stays text whatever it begins with."""
_WIDEST = 40
_MOST_ROWS = 1_000_000
_MOST_CHARS = 32_000
Row = dict[str, Any]


def can_write() -> bool:
    """Whether the extra is installed."""
    return find_spec("xlsxwriter") is not None


def write_workbook(summary: dict[str, Any], path: Path) -> None:
    """Sheets of cells, levels, findings and, for several models, what tells them apart.

    Raises OSError where the file can't be written.
    """
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    book = xlsxwriter.Workbook(str(path), _PLAIN_TEXT)
    mark = "EMULATED " if summary["emulated"] else ""
    for name, rows in _sheets(summary):
        if rows:
            _fill(book, f"{mark}{name}", f"{mark}{clean(summary['run'])}: {name}", rows)
    try:
        book.close()
    except FileCreateError as error:
        cause = error.args[0] if error.args else error
        raise cause if isinstance(cause, OSError) else OSError(0, str(error), str(path)) from None


def _sheets(summary: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    cells = [{"name": name_of(cell)} | flat(cell) for cell in summary["cells"]]
    findings = [dict(finding) for finding in summary["verdict"]["findings"]]
    verdict = {"verdict": summary["verdict"]["status"], "emulated": summary["emulated"]}
    study = summary.get("study") or {"ratios": [], "precisions": []}
    return [
        ("run", [verdict | {"run": summary["run"], "partial": summary["partial"]}]),
        ("cells", cells),
        ("levels", [flat(level) for level in summary["levels"]]),
        ("findings", findings),
        ("models", _rows(ORDER_HEADS, order_rows(summary.get("comparison")))),
        ("tasks", [flat(row) for row in study["ratios"]]),
        ("precisions", _rows(study_tables.PRECISION_HEADS, study_tables.precision_rows(study))),
    ]


def _rows(heads: tuple[str, ...], rows: list[list[str]]) -> list[Row]:
    """Texts under their headers; a header that comes twice belongs to the one before it."""
    names = [
        f"{heads[i - 1]} {head}" if head in heads[:i] or head == "95 %" else head
        for i, head in enumerate(heads)
    ]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _fill(book: Any, name: str, title: str, rows: list[Row]) -> None:
    """A title, the headers in bold with a filter, and a row each."""
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True})
    heads = list(dict.fromkeys(key for row in rows for key in row))
    sheet.write_string(0, 0, title, bold)
    for column, head in enumerate(heads):
        sheet.write_string(1, column, head, bold)
        texts = [len(str(row.get(head, ""))) for row in rows[:200] if isinstance(row.get(head), str)]
        sheet.set_column(column, column, min(max([len(head), *texts]) + 2, _WIDEST))
    for number, row in enumerate(rows[:_MOST_ROWS], 2):
        for column, head in enumerate(heads):
            _write(sheet, number, column, row.get(head))
    sheet.freeze_panes(2, 0)
    sheet.autofilter(1, 0, min(len(rows), _MOST_ROWS) + 1, len(heads) - 1)


def _write(sheet: Any, row: int, column: int, value: object) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float):
        sheet.write_number(row, column, value)
    elif value is not None and value != "":
        sheet.write_string(row, column, clean(value)[:_MOST_CHARS])
