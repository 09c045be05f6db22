"""From a directory, a run's or a sweep's, to its summary and files."""

from __future__ import annotations

from pathlib import Path

from analysis.export import write_csv, write_json, write_parquet
from analysis.report import RunFacts, facts_of, write_report
from analysis.study import study_run
from analysis.summary import Summary, summarise
from analysis.sweep import Sweep, missing, pooled, read_sweep
from loadgen import RunError, read_run

SUMMARY_NAMES = ("summary.json", "summary.csv")
REPORT_NAME = "report.html"


def analyse(path: Path) -> tuple[Summary, Path]:
    """Analyse a run or a sweep and write its files into its directory; the summary and the report's path.

    Raises RunError where it can't be read and OSError where it can't be written.
    """
    sweep = read_sweep(path)
    summary, facts = analyse_run(path) if sweep is None else _analyse_sweep(sweep)
    _write(summary, facts, path)
    return summary, path / REPORT_NAME


def analyse_run(path: Path) -> tuple[Summary, list[RunFacts]]:
    """The summary of one run, and what its report tells besides; writes turns.parquet."""
    study = study_run(read_run(path))
    summary = summarise(study)
    write_parquet(study, path / "turns.parquet")
    return summary, [facts_of(study)]


def _analyse_sweep(sweep: Sweep) -> tuple[Summary, list[RunFacts]]:
    """Every cell by itself, its files in its own directory, then all of them in one summary."""
    summaries, facts = [], []
    for cell in sweep.cells:
        folder = sweep.path / cell.folder
        try:
            summary, of_run = analyse_run(folder)
        except RunError as error:
            summaries.append(missing(cell, str(error).replace(str(folder), cell.folder)))
            continue
        _write(summary, of_run, folder)
        summaries.append(summary | {"run": cell.folder})
        facts += of_run
    return pooled(sweep, summaries), facts


def _write(summary: Summary, facts: list[RunFacts], path: Path) -> None:
    write_json(summary, path / SUMMARY_NAMES[0])
    write_csv(summary, path / SUMMARY_NAMES[1])
    write_report(summary, facts, path / REPORT_NAME)
