"""Files for other programs: summary.json, summary.csv and turns.parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.summary import Summary
from analysis.turns.study import Study

_ROWS = 50_000
"""Rows that parquet's writer holds at a time."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_json(summary: Summary, path: Path) -> None:
    """Strict JSON: a value that is not finite would be a bug and raises ValueError."""
    path.write_text(
        json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def write_csv(summary: Summary, path: Path) -> None:
    """One row a cell, keys joined by `_`; the last column says whether its run was an emulator's."""
    emulated = {run["run"]: run["emulated"] for run in summary.get("runs", [])}
    rows = [
        flat(cell) | {"emulated": emulated.get(cell.get("run"), summary["emulated"])}
        for cell in summary["cells"]
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["model", "task", "level"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_safe(row.get(column)) for column in columns] for row in rows)


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by `_`; the two ends of an interval end in `_lo` and `_hi`."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            out |= flat(item, f"{name}_")
        elif prefix.endswith("ci95_"):
            out |= dict(zip((f"{name}_lo", f"{name}_hi"), item or (None, None), strict=True))
        else:
            out[name] = item
    return out


def _safe(value: object) -> object:
    """A spreadsheet runs a text that starts like a formula: the quote in front keeps it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def write_parquet(study: Study, path: Path) -> None:
    """Every record with its metrics; times on the run's clock, event columns as lists."""
    table = pa.Table.from_pandas(study.frame, preserve_index=False)
    events = study.events
    for name, values in (
        ("event_us", events.at_us),
        ("event_tokens", events.tokens),
        ("event_words", events.words),
    ):
        table = table.append_column(name, pa.LargeListArray.from_arrays(events.offsets, values))
    # Event columns are most of the file: a dictionary of arrivals only costs time.
    texts = [field.name for field in table.schema if pa.types.is_large_string(field.type)]
    pq.write_table(
        table, path, compression="lz4", use_dictionary=texts, write_statistics=False, row_group_size=_ROWS
    )
