"""What a terminal shows: one table, a few lines under it, the verdict with its findings, the report."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.compare.baseline import Comparison
from analysis.measures.cells import ALL
from analysis.tables.comparisons import changes_table, precisions_table, ratios_table
from analysis.tables.rows import (
    LevelCell,
    TextTable,
    cells_at_levels,
    typical_ms,
    waits_table,
)
from analysis.tables.sentences import (
    accuracy_in_words,
    caveats,
    emulated_in_words,
    invalid_first,
    outcome,
    reversal_in_words,
    said_of,
    said_once,
)
from analysis.tables.writing import NONE, doubtful, for_terminal, middle, number, seconds, stamp
from turnbench.formats import Finding, Summary

_COLOURS = {"valid": "green", "suspect": "yellow", "invalid": "red"}
_OF_VERDICT = {"worse": "red", "better": "green", "same": "dim", "not judged": "yellow"}
_PLAIN_WIDTH = 100
_LEAST_NAME = 16
"""Columns of names are folded when they are very long, but never to less than this; numbers never are."""
_LONGEST_NAME = 28
_EACH = 2
"""Findings of one check that are shown; a sweep may have one in every run."""
_MOST_LOADS = 3
_UNITS = {"TTFT p50": "s", "TTG p50": "s", "TPOT p50": "ms"}
"""Given once in the header here, to leave room for the names."""
_SWEEP_NOTE = (
    "TTG: median seconds to the complete answer (m: mean of the n turns in brackets, too few for a median). "
    "tps: tokens per second."
)


def console() -> Console:
    """A console for people; in a pipe or file plain text of 100 columns."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_PLAIN_WIDTH, highlight=False, color_system=None, legacy_windows=False)


def show(summary: Summary, report: Path | None, out: Console, *, study: bool = False) -> None:
    """Print a summary and the path of its report, if it has one: one table, and a few lines under it.

    `study`: also the study's own table beside ours, for runs that get no report of their own.
    """
    words = ["EMULATED"] * summary.emulated + ["PARTIAL"] * summary.partial
    title = " · ".join([*words, summary.run])
    waits = waits_table(summary)
    if before := invalid_first(summary):
        out.print(Text(before, style=f"bold {_COLOURS['invalid']}"))
    sweep = _sweep_table(summary, title)
    out.print(sweep or _waits_table(waits, title))
    if study:
        _show_study(summary, out)
    if sweep:
        out.print(Text(_SWEEP_NOTE, style="dim"))
        reversal = reversal_in_words(summary.comparison.cells) if summary.comparison else ""
        failed = sum(cell.missed for cell in cells_at_levels(summary) if cell.task == ALL)
        for line in (reversal, f"{failed} turns failed or did not finish." if failed else ""):
            if line:
                out.print(Text(for_terminal(line)))
    elif any(doubtful(text) for row in waits.rows for text in row):
        out.print(Text(waits.note, style="dim"))
    for line in accuracy_in_words(summary):
        out.print(Text(for_terminal(line)))
    if summary.answer_lengths:
        out.print(Text(for_terminal(emulated_in_words(summary)), style="dim"))
    verdict = summary.verdict
    out.print(Text(verdict.status.upper(), style=f"bold {_COLOURS[verdict.status]}"))
    for finding in _grouped(said_once(verdict.findings)):
        head = Text(f"  {for_terminal(finding.level)} ", style=_COLOURS.get(finding.level, "dim"))
        what, remedy = for_terminal(said_of(finding)), for_terminal(finding.remedy)
        out.print(Text.assemble(head, f"{what}\n    → {remedy}"))
    if report is not None:
        mark = "Report (EMULATED): " if summary.emulated else "Report: "
        out.print(Text.assemble(mark, for_terminal(report)), soft_wrap=True)


def show_comparison(comparison: Comparison, threshold: float, out: Console) -> None:
    """Print runs against their baseline: the table, what could not be judged, and the outcome."""
    changes = changes_table(comparison)
    if changes.rows:
        table = _empty(stamp(any(comparison.emulated)) + changes.caption)
        named = any(row[0] for row in changes.rows)  # the model, unless each side has only one
        for index, head in enumerate(changes.heads):
            if index or named:
                table.add_column(head, justify="left" if index in changes.names else "right")
        for row in changes.rows:
            table.add_row(
                *(Text(for_terminal(text), _OF_VERDICT.get(text, "")) for text in row[0 if named else 1 :])
            )
        out.print(table)
    for line in caveats(comparison):
        out.print(Text(for_terminal(line), style="dim"))
    out.print(Text(outcome(comparison, threshold), style="bold"))


def _grouped(findings: list[Finding]) -> list[Finding]:
    """The first findings of each check, with how many more of its sort there are."""
    by_check: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_check.setdefault((finding.level, finding.check), []).append(finding)
    shown: list[Finding] = []
    for same in by_check.values():
        more = len(same) - _EACH
        shown += same[:_EACH]
        if more > 0:
            remedy = f"{shown[-1].remedy} ({more} more like it in the report)"
            shown[-1] = msgspec.structs.replace(shown[-1], remedy=remedy)
    return shown


def _waits_table(waits: TextTable, title: str) -> Table:
    """A run's headline; a name that is that of the row above is not repeated."""
    table = _empty(title)
    rows = [[for_terminal(text) for text in row] for row in waits.rows]
    for index, head in enumerate(waits.heads):
        is_name = index in waits.names
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            f"{head} {_UNITS.get(head, '')}".strip().replace(" ", "\n", 1),
            justify="left" if is_name else "right",
            overflow="fold",
            no_wrap=not is_name,
            min_width=min(longest, _LEAST_NAME) if is_name else None,
        )
    above = ["", ""]
    for model, task, *numbers in rows:
        names = ["" if model == above[0] else model, "" if [model, task] == above else task]
        units = [_UNITS.get(head) for head in waits.heads[2:]]
        plain = [
            text.replace(f" {unit}", "", 1) if unit else text
            for unit, text in zip(units, numbers, strict=True)
        ]
        table.add_row(*map(Text, names), *map(Text, plain))
        above = [model, task]
    return table


def _sweep_table(summary: Summary, title: str) -> Table | None:
    """Several models: TTG p50 and tps by task, model under model, load beside load; None where a task was
    played by one only."""
    cells = [cell for cell in cells_at_levels(summary) if cell.task != ALL]
    names = list(dict.fromkeys(cell.name for cell in cells))
    if len(names) < 2:
        return None
    loads = list(dict.fromkeys(cell.load for cell in cells))
    if len(loads) > _MOST_LOADS:
        loads = [loads[0], loads[len(loads) // 2], loads[-1]]
    table = _empty(title)
    for name in ("task", "model"):
        table.add_column(name, overflow="fold", max_width=_LONGEST_NAME)
    for place, load in enumerate(loads):
        unit = (" person" if load == "1" else " people") if place == 0 and load.isdigit() else ""
        table.add_column(f"TTG s\n{load}{unit}", justify="right", no_wrap=True)
    for load in loads:
        table.add_column(f"tps\n{load}", justify="right", no_wrap=True)
    found = {(cell.task, cell.name, cell.load): cell for cell in cells}
    for task in dict.fromkeys(cell.task for cell in cells):
        mine = [name for name in names if any((task, name, load) in found for load in loads)]
        mine.sort(key=lambda name: typical_ms(found.get((task, name, loads[-1]))))
        for place, name in enumerate(mine):
            at = [found.get((task, name, load)) for load in loads]
            texts = [_sweep_time(cell) for cell in at]
            texts += [number(cell.cell.tps) if cell else NONE for cell in at]
            head = for_terminal(task) if place == 0 else ""
            end = place == len(mine) - 1
            table.add_row(Text(head), Text(for_terminal(name)), *map(Text, texts), end_section=end)
    return table


def _sweep_time(cell: LevelCell | None) -> str:
    """The median in seconds; where there are too few turns for one, the mean with its n."""
    if cell is None:
        return NONE
    times = cell.of("ttg_ms")
    text = middle(times, seconds, times.n).replace(" s", "")
    return f"{text} ({times.n})" if text.startswith("m ") else text


def _show_study(summary: Summary, out: Console) -> None:
    """Each task against the fastest one at the highest load, and the rankings at each precision, if any."""
    study, mark = summary.study or None, stamp(summary.emulated)
    ratios = ratios_table(study)
    if ratios.rows:
        people = ratios.heads.index("people")
        load = ratios.rows[-1][people]
        rows = [row for place, row in enumerate(ratios.rows) if place == 0 or row[people] == load]
        without = [row[:people] + row[people + 1 :] for row in rows]
        heads = ratios.heads[:people] + ratios.heads[people + 1 :]
        out.print(
            plain_table(TextTable(f"{ratios.caption}, at a load of {load}", heads, without, (0, 1)), mark)
        )
    precisions = precisions_table(study)
    if precisions.rows:
        out.print(plain_table(precisions, mark))


def plain_table(table: TextTable, mark: str) -> Table:
    """A table as text; `mark` stands before its caption."""
    shown = _empty(mark + table.caption)
    for index, head in enumerate(table.heads):
        side = "left" if index in table.names else "right"
        shown.add_column(head.replace(" ", "\n", 1), justify=side, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        shown.add_row(*(Text(for_terminal(text)) for text in row))
    return shown


def _empty(title: str) -> Table:
    return Table(
        title=Text(for_terminal(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
