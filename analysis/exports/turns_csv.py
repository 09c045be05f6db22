"""`--to csv`: turns.csv, one row a record with its metrics, as turns.parquet has them, without the events."""

from __future__ import annotations

import csv
from pathlib import Path

from analysis.exports.result import RunResult
from analysis.tables.writing import for_csv


def write_turns_csv(run: RunResult, folder: Path) -> list[Path]:
    """turns.csv; a name from a server stays text in a spreadsheet, whatever it begins with."""
    frame = run.study.frame.assign(emulated=run.study.emulated)
    path = folder / "turns.csv"
    plain = frame.astype(object).where(frame.notna(), None)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(plain.columns)
        writer.writerows([for_csv(value) for value in row] for row in plain.itertuples(index=False))
    return [path]
