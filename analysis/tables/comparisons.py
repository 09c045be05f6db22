"""Tables that set models, tasks, precisions or runs against each other (see `analysis.tables.rows`)."""

from __future__ import annotations

from math import inf

from analysis.compare.baseline import Comparison
from analysis.compare.causes import LENGTHS, PARTS, STUDY_RATIO
from analysis.tables.rows import TextTable
from analysis.tables.writing import (
    NONE,
    change,
    interval,
    milliseconds,
    number,
    percent,
    seconds,
    signed,
    task,
    tenths,
)
from turnbench.formats.comparison import ModelComparison, ModelPair, RankingCell, StudyTables, TimeShares

_MOST_CELLS = 40
_MOST_SWAPPED = 12
_CHANGED = {
    "ttft_ms": "TTFT p50",
    "ttg_ms": "TTG p50",
    "ttg_equal_ms": "TTG p50 = length",
    "tpot_ms": "TPOT p50",
}
_OF_MEDIANS = ("worse", "better", "same")
"""Verdicts that an interval stands beside."""
STUDY_NAME = "the study (2024)"


def rankings_table(comparison: ModelComparison | None) -> TextTable:
    """One row a task and load: agreement of both rankings, clearest reversal, sources of the variation."""
    rows = []
    for cell in comparison.cells if comparison else []:
        ends = cell.tau_ci95
        reversals = [pair for pair in cell.pairs if pair.swaps]
        clearest = max(reversals, key=lambda pair: pair.p or 0.0, default=None)
        rows.append(
            [
                *_where(cell),
                signed(cell.tau) + (f" ({interval(ends, signed)})" if ends else ""),
                f"{cell.pairs_agreeing} of {cell.pairs_in_all}",
                _reversal(clearest) if clearest else "none",
                *(_share(cell.shares, part) for part in PARTS),
            ]
        )
    heads = ("task", "people", "tau", "pairs agreeing", "clearest reversal")
    parts = tuple(part.replace("_", " ") for part in PARTS)
    return TextTable("Ranking by tokens per second vs. ranking by time", (*heads, *parts), rows, (0, 4))


def _where(cell: RankingCell) -> list[str]:
    """Task, with the setting if there are several, and load."""
    name = task(cell.task)
    return [f"{name} ({cell.setting})" if cell.setting else name, cell.load]


def _reversal(pair: ModelPair) -> str:
    sure = "" if pair.p is None else f" ({percent(pair.p)})"
    return f"{pair.faster} faster, {pair.sooner} sooner{sure}"


def _share(shares: TimeShares | None, part: str) -> str:
    if shares is None:
        return NONE
    ends = [end for end in (shares.ci95 or {}).get(part, []) if end is not None]
    known = len(ends) == 2
    return percent(shares.of(part)) + (
        f" ({interval(ends, lambda end: str(round(end * 100)))})" if known else ""
    )


def rank_tables(comparison: ModelComparison | None) -> list[TextTable]:
    """Both ranks of every model, a table a task and load.

    Of very many models or cells as many as a page can hold; summary.json has them all.
    """
    heads = (
        "model",
        "turns",
        "tps",
        "rank by tps",
        "mean TTG",
        "rank by time",
        "tokens per answer",
        "words/s",
        "s per 100 words",
    )
    found = []
    for cell in _shown(comparison):
        rows = [
            [
                model.name,
                str(model.turns),
                number(model.tps),
                f"{model.rank_tps:g}",
                "∞" if model.time_ms is None else seconds(model.time_ms),
                f"{model.rank_time:g}",
                number(model.tokens_mean),
                number(model.words_per_s),
                number(model.s_per_100_words),
            ]
            for model in cell.models[:_MOST_CELLS]
        ]
        found.append(TextTable(", load ".join(_where(cell)), heads, rows))
    return found


def swap_tables(comparison: ModelComparison | None) -> list[TextTable]:
    """Each model's speed with every other's answer lengths, a table a task and load."""
    found = []
    for cell in _shown(comparison):
        swap = cell.swap
        if swap and len(swap.names) <= _MOST_SWAPPED:
            rows = [
                [name, *(NONE if value is None else seconds(value) for value in row)]
                for name, row in zip(swap.names, swap.time_ms, strict=True)
            ]
            heads = ("speed of \\ lengths of", *swap.names)
            found.append(TextTable(", load ".join(_where(cell)), heads, rows))
    return found


def _shown(comparison: ModelComparison | None) -> list[RankingCell]:
    """The last cells, those at the highest loads."""
    return (comparison.cells if comparison else [])[-_MOST_CELLS:]


def effects_table(comparison: ModelComparison | None) -> TextTable:
    """One row a term of the analysis of variance."""
    effects = (comparison and comparison.effects) or []
    rows = [
        [
            item.term,
            str(item.df),
            f"{item.omega_squared:.3f}",
            "< 0.001" if item.p_value < 0.001 else f"{item.p_value:.3f}",
        ]
        for item in effects
    ]
    caption = "Analysis of variance of log TTG: one mean per conversation, type II sums of squares"
    return TextTable(caption, ("term", "degrees of freedom", "omega squared", "p"), rows)


def ratios_table(study: StudyTables | None) -> TextTable:
    """The study's own row, then one a model, load and task; no rows where there is nothing to compare."""
    rows = []
    for row in study.ratios if study else []:
        texts = [row.name, row.load, row.task]
        for length in LENGTHS:
            at = row.of(length)
            if at is None:
                texts += [NONE] * 3
                continue
            ends = f" ({interval(at.ci95, number)})" if at.ci95 else ""
            texts += [str(at.n), seconds(at.time_ms), number(at.ratio) + ends]
        rows.append(texts)
    if rows:
        own = interval(STUDY_RATIO, lambda end: f"{end:.2f}")
        rows.insert(0, [STUDY_NAME, NONE, "complex tasks", *[NONE] * 5, own])
    heads = ("model", "people", "task", "n", "mean TTG", "vs. fastest")
    note = (
        "Mean time to generate of a task, divided by that of the same model's fastest task at the same load, "
        "with its 95% interval. Conversations of several turns are left out or, where there are no two other "
        "tasks, stand there by their first turns. The study's row: "
        "complex tasks took 30 to 40% longer at 256 tokens, according to a summary of it."
    )
    more = ("n at 256", "TTG@256, mean", "vs. fastest at 256")
    return TextTable("Each task against the model's fastest one", (*heads, *more), rows, (0, 2), note)


def precisions_table(study: StudyTables | None) -> TextTable:
    """A row a task, load and lower precision."""
    rows = [
        [
            row.task,
            row.load,
            row.precision,
            str(row.models),
            signed(row.tau_time),
            interval(row.tau_time_ci95, signed) if row.tau_time_ci95 else NONE,
            signed(row.tau_tps),
            interval(row.tau_tps_ci95, signed) if row.tau_tps_ci95 else NONE,
        ]
        for row in (study.precisions if study else [])
    ]
    heads = ("task", "people", "precision", "models", "tau by time", "95%", "tau by tps", "95%")
    note = (
        "Kendall's tau between the ranking of models at 16 bits and at the lower precision; +1: the same "
        "ranking. The study expects its relative findings to hold at 8 and 4 bits."
    )
    return TextTable("Ranking of models at each precision vs. at 16 bits", heads, rows, (0, 2), note)


def changes_table(comparison: Comparison) -> TextTable:
    """Runs A against baseline B: a row a cell and metric; then failed shares and goodput."""
    rows = []
    for one in comparison.changes:
        write = milliseconds if one.metric == "tpot_ms" else seconds
        # An end that is null is open, but the interval of what was not judged is not known.
        low, high = (one.ci[0] or 0.0, inf if one.ci[1] is None else one.ci[1])
        rows.append(
            [
                one.model,
                one.task,
                one.load,
                _CHANGED[one.metric],
                *("∞" if value is None else write(value) for value in (one.a_ms, one.b_ms)),
                NONE if one.ratio is None else change(one.ratio),
                interval((low, high), change) if one.verdict in _OF_MEDIANS else NONE,
                one.verdict,
            ]
        )
    for share in comparison.shares:
        if share.share == "goodput" or share.a or share.b:
            points = f"{(share.a - share.b) * 100:+.1f} pts"
            ends = interval(share.ci, lambda end: f"{end * 100:+.1f}")
            values = (tenths(share.a), tenths(share.b), points, ends)
            name = "within limits" if share.share == "goodput" else share.share
            rows.append([share.model, share.task, share.load, name, *values, share.verdict])
    heads = ("model", "task", "people", "metric", "A", "B", "change", "interval", "verdict")
    note = (
        "A is the run, B the baseline; intervals are adjusted for their number (Holm), 96% ones of medians "
        "and 99% ones of shares. = length: with the baseline's lengths of answers."
    )
    return TextTable("A against baseline B", heads, rows, (0, 1, 2, 3, 8), note)
