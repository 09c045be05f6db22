"""A comparison of two runs for a terminal and, as Markdown, for a pull request."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.compare.baseline import Change, Comparison
from analysis.tables.headline import clean, milliseconds, seconds
from analysis.tables.markdown import escaped, table

_HEADS = ("model", "task", "people", "metric", "A", "B", "change", "interval", "verdict")
_NAMES = {"ttft_ms": "TTFT p50", "ttg_ms": "TTG p50", "tpot_ms": "TPOT p50"}
NO_REPEATS = "Each side is one run: differences between runs not known. Repeat runs on both sides to know."
_LEGEND = "A is the run, B the baseline; intervals are Holm-adjusted (95 %)."
_EMULATED = {
    (True, True): "Both sides are EMULATED: this compares emulators, not servers.",
    (True, False): "A is EMULATED and B was measured: their difference says nothing about a server.",
    (False, True): "A was measured and B is EMULATED: their difference says nothing about a server.",
}
_COLOURS = {"worse": "red", "better": "green", "same": "dim"}


def rows(comparison: Comparison) -> list[list[str]]:
    """A line a cell and metric, as text."""
    return [[clean(text) for text in _row(change)] for change in comparison.changes]


def _row(change: Change) -> list[str]:
    write = milliseconds if change.metric == "tpot_ms" else seconds
    middles = [write(value) if isfinite(value) else "∞" for value in (change.a_ms, change.b_ms)]
    interval = f"{_percent(change.ci[0])} to {_percent(change.ci[1])}"
    names = [change.model, change.task, change.load, _NAMES[change.metric]]
    return [*names, *middles, _percent(change.ratio), interval, change.verdict]


def _percent(ratio: float) -> str:
    """A ratio as a change in percent."""
    return f"{ratio - 1:+.1%}" if isfinite(ratio) and ratio < 100 else "∞"


def outcome(comparison: Comparison, threshold: float) -> str:
    """What came of it, in a sentence."""
    worse, judged = comparison.regressions, len(comparison.changes)
    mark = _mark(comparison)
    if not judged:
        return (
            f"{mark}Nothing could be compared: no cell has the same task and load in both, with 20 "
            "conversations and enough turns for a median."
        )
    found = f"{len(worse)} of {judged} medians are" if worse else f"none of {judged} medians is"
    return f"{mark}{'REGRESSION' if worse else 'NO REGRESSION'}: {found} worse by more than {threshold:.0%}."


def _mark(comparison: Comparison) -> str:
    return "EMULATED · " if any(comparison.emulated) else ""


def show_comparison(comparison: Comparison, threshold: float, out: Console) -> None:
    """Print the table, what could not be judged, and the outcome."""
    title = Text(f"{_mark(comparison)}A against baseline B", style="bold")
    shown_table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    told = rows(comparison)
    shown = [index for index in range(len(_HEADS)) if index or any(row[0] for row in told)]
    for index in shown:
        shown_table.add_column(_HEADS[index], justify="right" if 4 <= index < 8 else "left")
    for row in told:
        shown_table.add_row(*(Text(row[index], style=_COLOURS.get(row[index], "")) for index in shown))
    if told:
        out.print(shown_table)
    for line in notes(comparison):
        out.print(Text(line, style="dim"))
    out.print(Text(outcome(comparison, threshold), style="bold"))


def notes(comparison: Comparison) -> list[str]:
    """What the table doesn't show."""
    found = []
    if any(comparison.emulated):
        found.append(_EMULATED[comparison.emulated])
    if comparison.unjudged:
        cells = ", ".join(comparison.unjudged[:10])
        found.append(clean(f"Not judged (in one run only, or too few turns or conversations): {cells}."))
    if min(comparison.runs) < 2:
        found.append(NO_REPEATS)
    return found


def write_markdown(comparison: Comparison, threshold: float, path: Path) -> None:
    """A table for a pull request; no name in it can act as markup."""
    caption = f"{_mark(comparison)}A against baseline B"
    lines = [f"**{outcome(comparison, threshold)}**", "", *table(_HEADS, rows(comparison), caption)]
    lines += [*map(escaped, notes(comparison)), "", _LEGEND]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
