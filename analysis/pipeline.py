"""From a directory, a run's or a sweep's, to its summary and files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.comparison import comparison_of
from analysis.export import write_csv, write_json, write_parquet
from analysis.report import RunFacts, facts_of, write_report
from analysis.sample import sample_of, side_by_side
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
    summary, facts, samples = _of_run(path) if sweep is None else _analyse_sweep(sweep)
    summary["comparison"] = comparison_of(side_by_side(samples))
    _write(summary, facts, path)
    return summary, path / REPORT_NAME


def _of_run(path: Path) -> tuple[Summary, list[RunFacts], list[pd.DataFrame]]:
    summary, facts, sample = analyse_run(path)
    return summary, facts, [sample]


def analyse_run(path: Path, name: str = "") -> tuple[Summary, list[RunFacts], pd.DataFrame]:
    """The summary of one run, what its report tells besides, and its turns; writes turns.parquet."""
    study = study_run(read_run(path))
    summary = summarise(study)
    write_parquet(study, path / "turns.parquet")
    return summary, [facts_of(study)], sample_of(study, name or summary["run"])


def _analyse_sweep(sweep: Sweep) -> tuple[Summary, list[RunFacts], list[pd.DataFrame]]:
    """Every cell by itself, its files in its own directory, then all of them in one summary."""
    summaries, facts, samples = [], [], []
    for cell in sweep.cells:
        folder = sweep.path / cell.folder
        try:
            summary, of_run, sample = analyse_run(folder, cell.folder)
        except RunError as error:
            summaries.append(missing(cell, str(error).replace(str(folder), cell.folder)))
            continue
        _write(summary, of_run, folder)
        summaries.append(summary | {"run": cell.folder})
        facts += of_run
        samples.append(sample)
    return pooled(sweep, summaries), facts, samples


def _write(summary: Summary, facts: list[RunFacts], path: Path) -> None:
    write_json(summary, path / SUMMARY_NAMES[0])
    write_csv(summary, path / SUMMARY_NAMES[1])
    write_report(summary, facts, path / REPORT_NAME)
