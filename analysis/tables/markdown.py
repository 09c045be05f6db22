"""A run's or a comparison's numbers as Markdown for a pull request; no name in them can act as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.tables import study_tables
from analysis.tables.headline import FOOTNOTE, HEADERS, clean, headline_rows
from analysis.tables.ranking import ORDER_HEADS, order_rows

_MOST_ROWS = 100
_MOST_FINDINGS = 20


def write_run(summary: dict[str, Any], path: Path) -> None:
    """The verdict, the table of waits, its findings, and for several models what tells them apart."""
    mark = "EMULATED · " if summary["emulated"] else ""
    lines = [
        f"### {escaped(mark + clean(summary['run']))}",
        "",
        f"**{summary['verdict']['status'].upper()}**",
    ]
    if summary["emulated"]:
        lines[-1] += " · These numbers come from an emulator, not from a model."
    if summary["partial"]:
        lines[-1] += " · PARTIAL: the run was not finished."
    lines += ["", *_findings(summary["verdict"]["findings"])]
    rows = [row.texts for row in headline_rows(summary)]
    lines += table(HEADERS, rows, f"{mark}Waiting by model, task and load")
    if any(text.startswith("m ") or text == "∞" for row in rows for text in row):
        lines += [escaped(FOOTNOTE), ""]
    lines += _compared(summary, mark)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _findings(findings: list[dict[str, Any]]) -> list[str]:
    told = []
    for finding in findings[:_MOST_FINDINGS]:
        where = f"{finding['run']}: " if finding.get("run") else ""
        told.append(f"- **{escaped(clean(finding['level']))}** {escaped(clean(where + finding['what']))}")
        told.append(f"  → {escaped(clean(finding['remedy']))}")
    more = len(findings) - _MOST_FINDINGS
    told += [f"- and {more} more in the report"] if more > 0 else []
    return [*told, ""] if told else []


def _compared(summary: dict[str, Any], mark: str) -> list[str]:
    lines = []
    if comparison := summary.get("comparison"):
        lines += [escaped(clean(comparison["words"])), ""]
        lines += table(ORDER_HEADS, order_rows(comparison), f"{mark}Order by tokens per second against time")
    study = summary.get("study") or {"ratios": [], "precisions": []}
    if ratios := study_tables.ratio_rows(study):
        lines += table(study_tables.RATIO_HEADS, ratios, f"{mark}Each task over the model's quickest one")
        lines += [study_tables.RATIO_NOTE, ""]
    if precisions := study_tables.precision_rows(study):
        caption = f"{mark}The order of models at each precision against that at 16 bits"
        lines += table(study_tables.PRECISION_HEADS, precisions, caption)
        lines += [study_tables.PRECISION_NOTE, ""]
    return lines


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> list[str]:
    """A caption, the table, and an empty line; nothing where it has no rows."""
    told = list(rows)
    if not told:
        return []
    body = [line([clean(text) for text in row]) for row in told[:_MOST_ROWS]]
    more = [f"… and {len(told) - _MOST_ROWS} rows more in summary.csv"] if len(told) > _MOST_ROWS else []
    return [f"**{escaped(caption)}**", "", line(heads), line(["---"] * len(heads)), *body, *more, ""]


def line(texts: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(text if text == "---" else escaped(text) for text in texts) + " |"


def escaped(text: str) -> str:
    """Markdown and HTML taken literally."""
    plain = text.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|@#!~" else c for c in plain)
