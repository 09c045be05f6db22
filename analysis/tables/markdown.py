"""A run or a comparison as Markdown for a pull request; no name in it can act as markup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.compare.baseline import Comparison
from analysis.tables.comparisons import (
    changes_table,
    precisions_table,
    rankings_table,
    ratios_table,
)
from analysis.tables.rows import TextTable, accuracy_table, waits_table
from analysis.tables.sentences import caveats, emulated_in_words, outcome, said_of, said_once
from analysis.tables.writing import doubtful, for_markdown, stamp
from turnbench.formats import Summary

_MOST_ROWS = 100
_MOST_FINDINGS = 20


def write_run(summary: Summary, path: Path) -> None:
    """The verdict, the table of waiting times, the findings, and for several models how they differ."""
    mark = stamp(summary.emulated)
    verdict = f"**{summary.verdict.status.upper()}**"
    if summary.emulated:
        verdict += " · " + emulated_in_words(summary)
    if summary.partial:
        verdict += " · PARTIAL: the run did not finish."
    lines = [f"### {for_markdown(mark + summary.run)}", "", verdict, ""]
    findings = said_once(summary.verdict.findings)
    for finding in findings[:_MOST_FINDINGS]:
        lines.append(f"- **{for_markdown(finding.level)}** {for_markdown(said_of(finding))}")
        lines.append(f"  → {for_markdown(finding.remedy)}")
    if len(findings) > _MOST_FINDINGS:
        lines.append(f"- and {len(findings) - _MOST_FINDINGS} more in the report")
    lines += [""] * bool(findings)
    waits = waits_table(summary)
    lines += _table(waits, mark)
    if any(doubtful(text) for row in waits.rows for text in row):
        lines += [for_markdown(waits.note), ""]
    accuracy = accuracy_table(summary)
    if accuracy.rows:
        lines += [*_table(accuracy, mark), for_markdown(accuracy.note), ""]
    if summary.comparison:
        lines += [for_markdown(summary.comparison.words), ""]
        lines += _table(rankings_table(summary.comparison), mark)
    study = summary.study or None
    for table in (ratios_table(study), precisions_table(study)):
        if table.rows:
            lines += [*_table(table, mark), for_markdown(table.note), ""]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def write_comparison(comparison: Comparison, threshold: float, path: Path) -> None:
    """The outcome in bold, the table of changes, and what it doesn't show."""
    changes = changes_table(comparison)
    lines = [f"**{outcome(comparison, threshold)}**", ""]
    lines += _table(changes, stamp(any(comparison.emulated)))
    lines += [*map(for_markdown, caveats(comparison)), "", changes.note]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(table: TextTable, mark: str) -> list[str]:
    """A caption, the table, and an empty line; nothing where it has no rows."""
    if not table.rows:
        return []
    body = [_line([for_markdown(text) for text in row]) for row in table.rows[:_MOST_ROWS]]
    more = len(table.rows) - _MOST_ROWS
    body += [f"… and {more} more rows in summary.csv"] * (more > 0)
    heads = [for_markdown(head) for head in table.heads]
    caption = for_markdown(mark + table.caption)
    return [f"**{caption}**", "", _line(heads), _line(["---"] * len(heads)), *body, ""]


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
