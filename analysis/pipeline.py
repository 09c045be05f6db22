"""From a directory to its summary and files."""

from __future__ import annotations

from pathlib import Path

from analysis.export import write_csv, write_json, write_parquet
from analysis.study import study_run
from analysis.summary import Summary, summarise
from loadgen import read_run

REPORT_NAME = "report.html"


def analyse(path: Path) -> tuple[Summary, Path]:
    """Analyse a run directory and write its files into it; the summary and the report's path.

    Raises RunError where it can't be read and OSError where it can't be written.
    """
    study = study_run(read_run(path))
    summary = summarise(study)
    write_json(summary, path / "summary.json")
    write_csv(summary, path / "summary.csv")
    write_parquet(study, path / "turns.parquet")
    return summary, path / REPORT_NAME
