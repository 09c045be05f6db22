"""From directories, of runs or sweeps, to summaries and files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pandas as pd

from analysis.compare.causes import ratios_of
from analysis.compare.ranking import comparison_of, orders_by_precision
from analysis.compare.variants import VARIANT, sample_of, side_by_side, variant_of, with_waits
from analysis.report.facts import RunFacts, facts_of
from analysis.report.page import write_report
from analysis.summary import summarise
from analysis.sweep import Sweep, missing, names_of, pooled, sweep_at
from analysis.tables.export import write_csv, write_parquet, write_summary
from analysis.tables.sentences import in_words, invalid_first
from analysis.turns.study import study_run
from turnbench.formats import StudyTables, Summary
from turnbench.run_directory import RunError, read_run
from turnbench.turns import WORDS_PER_MIN

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class Analysed:
    """A run or a sweep: its summary, what its report draws besides, and its measured turns, a table a run."""

    summary: Summary
    facts: list[RunFacts]
    samples: list[pd.DataFrame]
    path: Path

    @property
    def report(self) -> Path:
        return self.path / REPORT_NAME

    @property
    def turns(self) -> pd.DataFrame:
        """The turns of all its runs that have waits, with a `name` that distinguishes models."""
        return side_by_side([with_waits(sample) for sample in self.samples], names_of(self.summary))

    @property
    def runs(self) -> list[pd.DataFrame]:
        """All measured turns, failed ones too, a table a run, with such names."""
        names = names_of(self.summary)
        return [side_by_side([sample], names) for sample in self.samples]


def analyse(path: Path, words_per_min: float = WORDS_PER_MIN) -> Analysed:
    """Analyse a run or a sweep and write its files into its directory.

    Raises RunError where it can't be read and OSError where it can't be written.
    """
    sweep = sweep_at(path)
    found = _of_run(path, "", words_per_min) if sweep is None else _of_sweep(sweep, words_per_min)
    _compare_models(found)
    _write(found)
    return found


def _of_run(path: Path, name: str, words_per_min: float) -> Analysed:
    """One run, under this name in a sweep; writes turns.parquet."""
    study = study_run(read_run(path), words_per_min)
    with ThreadPoolExecutor(1) as beside:  # compression needs no interpreter
        writing = beside.submit(write_parquet, study, path / "turns.parquet")
        summary = summarise(study)
        exact_kept = all(finding.check != "not_exact" for finding in summary.verdict.findings)
        summary.variant = variant_of(study.manifest, exact_kept)
        writing.result()
    sample = sample_of(study, name or summary.run, exact_kept)
    return Analysed(summary, [facts_of(study)], [sample], path)


def _of_sweep(sweep: Sweep, words_per_min: float) -> Analysed:
    """Every cell by itself, its files in its own directory, then all of them in one summary."""
    summaries, facts, samples = [], [], []
    for cell in sweep.cells:
        folder = sweep.path / cell.dir
        try:
            one = _of_run(folder, cell.dir, words_per_min)
        except RunError as error:
            summaries.append(missing(cell, str(error).replace(str(folder), cell.dir)))
            continue
        _write(one)
        variant = (one.summary.variant or {}) | {VARIANT: cell.variant or ""}
        summaries.append(msgspec.structs.replace(one.summary, run=cell.dir, variant=variant))
        facts += one.facts
        samples += one.samples
    return Analysed(pooled(sweep, summaries), facts, samples, sweep.path)


def several(found: list[Analysed], into: Path | None = None) -> Analysed:
    """Runs and sweeps as one result, each run under its directory's name; written where `into` says."""
    names = _apart([one.path.resolve() for one in found])
    summaries, samples, facts = [], [], []
    for one, name in zip(found, names, strict=True):
        summaries.append(msgspec.structs.replace(one.summary, run=name))
        inner = bool(one.summary.runs)
        samples += [s.assign(run=name + "/" + s["run"] if inner else name) for s in one.samples]
        facts += [replace(fact, name=f"{name}/{fact.name}" if inner else name) for fact in one.facts]
    together = Sweep(into or found[0].path, f"{len(found)} runs", [])
    joined = Analysed(pooled(together, summaries), facts, samples, together.path)
    _compare_models(joined)
    if into:
        into.mkdir(parents=True, exist_ok=True)
        _write(joined)
    return joined


def _compare_models(one: Analysed) -> None:
    turns = one.turns
    if comparison := comparison_of(turns):
        comparison.words = " ".join(filter(None, [invalid_first(one.summary), in_words(comparison.cells)]))
    one.summary.comparison = comparison
    one.summary.study = StudyTables(ratios=ratios_of(turns), precisions=orders_by_precision(turns))


def _apart(paths: list[Path]) -> list[str]:
    """The shortest ends of these paths that differ."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, 1)]


def _write(one: Analysed) -> None:
    write_summary(one.summary, one.path / "summary.json")
    write_csv(one.summary, one.path / "summary.csv")
    write_report(one.summary, one.facts, one.report)
