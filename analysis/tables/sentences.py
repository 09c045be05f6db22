"""What the numbers say, in sentences: each says what its number says and no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from msgspec.structs import replace

from analysis.compare.baseline import ONE_RUN, Comparison
from analysis.compare.causes import LENGTHS, PARTS
from analysis.compare.ranking import SIGNIFICANT
from analysis.measures.cells import ALL
from analysis.tables.rows import MOST_FAILED, LevelCell, name_of, run_of, scored_cells
from analysis.tables.writing import (
    change,
    interval,
    number,
    people,
    percent,
    seconds,
    signed,
    stamp,
    tenths,
)
from turnbench.formats.comparison import LengthChange, ModelPair, RankingCell, ShareChange, StudyTables
from turnbench.formats.run import Finding, Severity
from turnbench.formats.summary import CellSummary, LevelSummary, Summary

_OFFSETS = -0.005
"""A share of the variation that reads as negative."""
_MOST_TASKS = 6
_MOST_MODELS = 8
_MOST_NAMED = 10
_MARKED_FAILED = 0.01
"""Failed share from which it stands beside every latency of its cell."""
_EMULATED = {
    (True, True): "Both sides are EMULATED: this compares emulators, not servers.",
    (True, False): "A is EMULATED and B was measured: their difference says nothing about a server.",
    (False, True): "A was measured and B is EMULATED: their difference says nothing about a server.",
}


def emulated_in_words(summary: Summary) -> str:
    """What an emulated result is not, and where the lengths of its answers are from."""
    found = "These numbers come from an emulator, not from a model."
    if summary.answer_lengths:
        found += f" Lengths of its answers: {summary.answer_lengths}"
        found += (
            ", and with them what depends on who says more." if summary.answer_lengths == "assumed" else "."
        )
    return found


def answer(summary: Summary) -> list[str]:
    """How long a person waits: a sentence a model (at most eight), at its lowest and its highest load."""
    levels = {(run_of(level), level.index): level for level in summary.levels}
    by_name: dict[str, list[CellSummary]] = {}
    for cell in summary.cells:
        if cell.task == ALL and cell.level != ALL and cell.model != ALL:
            by_name.setdefault(name_of(cell), []).append(cell)
    found = []
    for name, cells in list(by_name.items())[:_MOST_MODELS]:
        ends = [cells[0]] if len(cells) == 1 else [cells[0], cells[-1]]
        parts = [_wait(cell, levels[run_of(cell), int(cell.level)]) for cell in ends]
        found.append(f"{name}: {'; '.join(parts)}.")
    return found


def _wait(cell: CellSummary, level: LevelSummary) -> str:
    load = f"with {people(level)}"
    subject = "half of the answers"
    if cell.failed_share >= MOST_FAILED:
        load += f", of those answered ({cell.ok} of {cell.turns})"
        subject = "half"
    whole, first = cell.values["ttg_ms"], cell.values["ttft_ms"]
    if whole.p50 is not None and first.p50 is not None:
        return (
            f"{load}, {subject} began within {seconds(first.p50)} "
            f"and were complete within {seconds(whole.p50)}"
        )
    if first.p50 is not None and "p50" in whole.bound:
        return (
            f"{load}, {subject} began within {seconds(first.p50)} and half took "
            f"{seconds(whole.bound['p50'])} or longer: so many had not ended when they were last seen"
        )
    if whole.mean is not None and first.mean is not None:
        cut = "" if whole.mean_to is None else f", no wait counted beyond {seconds(whole.mean_to)}"
        return (
            f"{load}, an answer began after {seconds(first.mean)} and was complete after "
            f"{seconds(whole.mean)} on average (only {whole.n} turns: too few for a median{cut})"
        )
    return f"{load}, {cell.ok} of {cell.turns} turns finished, too few to say how long one takes"


def accuracy_in_words(summary: Summary) -> list[str]:
    """A sentence a model and scored task: its share of right answers, and whether load changes it."""
    found = []
    by_name: dict[tuple[str, str], list[LevelCell]] = {}
    for cell in scored_cells(summary):
        by_name.setdefault((cell.task, cell.name), []).append(cell)
    for (task_name, name), cells in list(by_name.items())[:_MOST_MODELS]:
        first, last = cells[0], cells[-1]
        text = f"{name}, {task_name}: {_right(first)} at {people(first.level)}"
        if last is not first:
            a, b = _right_ends(first), _right_ends(last)
            judged = "not judged"
            if a and b:
                judged = (
                    "surely fewer" if b[1] < a[0] else "surely more" if a[1] < b[0] else "no sure difference"
                )
            text += f", {_right(last)} at {people(last.level)}: {judged}"
        found.append(f"{text}.")
    return found


def _right(cell: LevelCell) -> str:
    ends = _right_ends(cell)
    known = f" ({interval(ends, percent)})" if ends else ""
    return f"{percent(cell.cell.right_share or 0.0)} of {cell.cell.scored} answers are right{known}"


def _right_ends(cell: LevelCell) -> tuple[float, float] | None:
    low, high = cell.cell.ci95.get("right_share") or (None, None)
    return None if low is None or high is None else (low, high)


def invalid_first(summary: Summary) -> str:
    """What stands before any finding of a run or sweep that is no measurement; "" where it is one."""
    if summary.verdict.status != "invalid":
        return ""
    runs = summary.runs or []
    bad = sum(run.verdict == "invalid" for run in runs)
    whose = f"{bad} of {len(runs)} runs are" if len(runs) > 1 else "This is"
    return f"INVALID: {whose} no measurement of the server; do not use these numbers, see the findings."


def in_words(cells: list[RankingCell]) -> str:
    """The comparison of models in one paragraph: under the first setting, at the last load at which most
    models were measured, task by task."""
    cells = [cell for cell in cells if cell.setting == cells[0].setting]
    most = max(len(cell.models) for cell in cells)
    load = [cell.load for cell in cells if len(cell.models) == most][-1]
    mine = [cell for cell in cells if cell.load == load]
    tasks = [cell for cell in mine if cell.task != ALL] or mine
    worst = sorted(tasks, key=lambda cell: cell.tau or 0.0)[:_MOST_TASKS]
    at = f"With {load} people" if load.isdigit() else f"At a load of {load}"
    at += f" ({cells[0].setting})" if cells[0].setting else ""
    agreements = [_agreement(cell) for cell in worst]
    listed = " and ".join(filter(None, [", ".join(agreements[:-1]), agreements[-1]]))
    widest = max(tasks, key=_gap)
    sentences = [
        f"{at}, the rankings of the models by tokens per second and by time agree on {listed}.",
        _shuffled(widest),
        _reversal(widest),
    ]
    sentences = [sentence for sentence in sentences if sentence]
    if shares := widest.shares:
        ends = [end for end in (shares.ci95 or {}).get("verbosity", []) if end is not None]
        known = f" ({interval(ends, percent)})" if ends else ""
        sentences.append(
            f"Of the variation in time in {widest.task}, {percent(shares.verbosity)}{known} comes from "
            f"the length of the answers, {percent(shares.time_per_token)} from the time per token and "
            f"{percent(shares.first_token)} from the time to first token."
        )
        if min(shares.of(part) for part in PARTS) <= _OFFSETS:
            sentences.append("A negative share offsets the others.")
    return " ".join([*sentences, _significance(tasks)])


def reversal_in_words(cells: list[RankingCell]) -> str:
    """The widest clear reversal over all cells of single tasks, in a sentence; "" where there is none."""
    tasks = [cell for cell in cells if cell.task != ALL and _clearest(cell)]
    if not tasks:
        return ""
    widest = max(tasks, key=_gap)
    setting = f" ({widest.setting})" if widest.setting else ""
    return f"{_reversal(widest)[:-1]}, at a load of {widest.load}{setting}."


def _agreement(cell: RankingCell) -> str:
    tau, ends = cell.tau, cell.tau_ci95
    known = f"{cell.pairs_agreeing} of {cell.pairs_in_all} pairs in {cell.task}"
    if tau is None:
        return f"{known} (all models are tied)"
    known += f" (Kendall's tau {signed(tau)}"
    if ends is None:
        return f"{known}; too few conversations for an interval)"
    doubt = ", so they may agree or disagree" if ends[0] <= 0 <= ends[1] else ""
    return f"{known}, 95% interval {interval(ends, signed)}{doubt})"


def _clearest(cell: RankingCell) -> ModelPair | None:
    """Of the pairs that surely swap places, the one furthest apart in time."""
    pairs = [pair for pair in cell.pairs if pair.swaps and _is_sure(pair)]
    return max(pairs, key=lambda pair: _ratio(cell, pair), default=None)


def _shuffled(cell: RankingCell) -> str:
    """Whether the lengths of answers change the order, against lengths that say nothing of the model."""
    if cell.tau is None or cell.tau_shuffled is None or cell.tau_shuffled_ci95 is None:
        return ""
    low, high = cell.tau_shuffled_ci95
    below = cell.tau < low
    return (
        f"Were the lengths of answers in {cell.task} shuffled among the models, tau would be "
        f"{signed(cell.tau_shuffled)} on average ({interval([low, high], signed)}): verbosity "
        f"{'changes' if below else 'is not shown to change'} the order."
    )


def _is_sure(pair: ModelPair) -> bool:
    return pair.p_adjusted is not None and pair.p_adjusted < SIGNIFICANT


def _ratio(cell: RankingCell, pair: ModelPair) -> float:
    times = {model.name: model.time_ms for model in cell.models}
    fast_ms, soon_ms = times[pair.faster], times[pair.sooner]
    return fast_ms / soon_ms if fast_ms and soon_ms else 0.0


def _gap(cell: RankingCell) -> float:
    pair = _clearest(cell)
    return _ratio(cell, pair) if pair else 0.0


def _reversal(cell: RankingCell) -> str:
    pair = _clearest(cell)
    if pair is None:
        return (
            "No model surely generates more tokens per second than another and takes longer to finish "
            "(p under 0.05, adjusted for all pairs, tasks and loads shown)."
        )
    fast, soon = (
        next(model for model in cell.models if model.name == name) for name in (pair.faster, pair.sooner)
    )
    if fast.time_ms is None or soon.time_ms is None or pair.p is None:
        return f"{fast.name} has turns that never finished."
    return (
        f"In {cell.task}, {fast.name} generates more tokens per second than {soon.name} "
        f"({number(fast.tps)} vs. {number(soon.tps)}) but takes longer to finish "
        f"({seconds(fast.time_ms)} vs. {seconds(soon.time_ms)} on average; surely: p = "
        f"{max(pair.p_adjusted or 0.0, 1e-4):.2g} adjusted for all pairs, tasks and loads shown)."
    )


def _significance(cells: list[RankingCell]) -> str:
    models = max(len(cell.models) for cell in cells)
    least = next(cell.least_p_value for cell in cells if len(cell.models) == models)
    if least > SIGNIFICANT:
        return (
            f"{models} models are too few for any ranking to be significant (even perfect agreement has "
            f"p = {least:.2g}): this describes these models, not models in general."
        )
    if models <= 5:
        return (
            f"With {models} models only perfect agreement is significant: "
            "this describes these models, not models in general."
        )
    return "The intervals describe these models, not models in general."


def ratios_in_words(study: StudyTables | None) -> list[str]:
    """How far apart the tasks are at natural length and at 256 tokens, over all models at one load."""
    found = []
    for length in LENGTHS:
        rows = [(row, at) for row in study.ratios if (at := row.of(length))] if study else []
        if not rows:
            continue
        load = rows[-1][0].load
        most: dict[str, float] = {}
        for row, at in rows:
            if row.load == load:
                most[row.name] = max(most.get(row.name, 1.0), at.ratio)
        ends = list(dict.fromkeys(number(end) for end in (min(most.values()), max(most.values()))))
        where = "At natural length" if length == "natural" else "At 256 tokens"
        whose = "the model" if len(most) == 1 else f"each of {len(most)} models"
        found.append(
            f"{where} and a load of {load}, the slowest task took {whose} {' to '.join(ends)} times as long "
            "on average as the fastest."
        )
    return found


def said_of(finding: Finding) -> str:
    """What was found; of several runs, with the run in front."""
    return f"{finding.run}: {finding.what}" if finding.run else finding.what


def said_once(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; what several runs have in the same words is one finding of all of them."""
    runs: dict[Finding, dict[str, None]] = {}
    for finding in findings:
        runs.setdefault(replace(finding, run=None), {}).update({finding.run: None} if finding.run else {})
    said = [replace(finding, run=_listed(list(names)) or None) for finding, names in runs.items()]
    return sorted(said, key=lambda finding: get_args(Severity).index(finding.level))


def outcome(comparison: Comparison, threshold: float) -> str:
    """What came of comparing runs with a baseline."""
    worse, judged = comparison.regressions, len(comparison.judged)
    found = [_share_in_words(change) for change in comparison.worse_shares]
    if comparison.vanished:
        found.append(f"{_listed(comparison.vanished)} {_are(comparison.vanished)} gone")
    if worse:
        over = f"{len(worse)} of {judged} medians {_are(worse)} worse by more than {threshold * 100:g}%"
        found.append(over + " (within these two runs)" * comparison.single)
    mark = stamp(any(comparison.emulated))
    changed = "".join(f"; {_lengths_in_words(one)}" for one in comparison.lengths[:1])
    if found:
        return f"{mark}REGRESSION: {'; '.join(found)}{changed}."
    unjudged = comparison.unjudged
    if unjudged or not judged:
        reasons = "; ".join(dict.fromkeys(unjudged.values())) or "there is no cell on both sides"
        shares = "; neither failures nor goodput are worse" if comparison.shares else ""
        return f"{mark}NOT JUDGED: {reasons}{shares}{changed}."
    within = "within these two runs " if comparison.single and comparison.one_run else ""
    return (
        f"{mark}NO REGRESSION: {within}none of {judged} medians is worse by more than {threshold * 100:g}%, "
        f"and neither failures nor goodput are{changed}."
    )


def _are(things: Sequence[object]) -> str:
    return "is" if len(things) == 1 else "are"


def _listed(cells: Sequence[str]) -> str:
    more = len(cells) - _MOST_NAMED
    return ", ".join(cells[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _share_in_words(found: ShareChange) -> str:
    cell = f"{found.model} {found.task} at {found.load}".strip()
    a, b = (tenths(share) for share in (found.a, found.b))
    if found.share != "goodput":
        counts = f"{round(found.a * found.a_turns)} of {found.a_turns} turns"
        return f"the {found.share} share of {cell} rose from {b} to {a} ({counts})"
    return f"goodput of {cell} fell: {a} of its turns met all limits, {b} before"


def _sentence(text: str) -> str:
    """Its first letter as a capital, and names in it as they are."""
    return text[:1].upper() + text[1:]


def _lengths_in_words(one: LengthChange) -> str:
    grown = one.a_tokens / one.b_tokens
    cell = f"{one.model} {one.task} at {one.load}".strip()
    return f"answers {'grew' if grown > 1 else 'shrank'} by {abs(grown - 1):.0%} in {cell}"


def caveats(comparison: Comparison) -> list[str]:
    """What the table of changes doesn't show."""
    found = []
    if any(comparison.emulated):
        found.append(_EMULATED[comparison.emulated])
    for one in comparison.lengths[:_MOST_NAMED]:
        equal = "" if one.ttg_equal_ratio is None else f": {change(one.ttg_equal_ratio)} at the median"
        found.append(
            f"{_sentence(_lengths_in_words(one))}, from {number(one.b_tokens)} to {number(one.a_tokens)} "
            f"tokens on average. TTG at equal length decides and TTG does not{equal}."
        )
    for share in comparison.shares:
        if share.share == "failed" and max(share.a, share.b) >= _MARKED_FAILED:
            sides = ((share.a, share.a_turns), (share.b, share.b_turns))
            of_a, of_b = (f"{turns - round(failed * turns)} of {turns}" for failed, turns in sides)
            cell = f"{share.model} {share.task} at {share.load}".strip()
            found.append(f"Medians of {cell} are of those answered: {of_a} in A, {of_b} in B.")
    by_reason: dict[str, list[str]] = {}
    for cell, reason in comparison.unjudged.items():
        by_reason.setdefault(reason, []).append(cell)
    found += [f"Not judged ({reason}): {_listed(cells)}." for reason, cells in by_reason.items()]
    if ONE_RUN in by_reason:
        found.append(
            "Repeat runs on both sides, three or more, to judge medians; --single tests within two runs."
        )
    elif comparison.single and comparison.one_run:
        found.append(
            "The test is within these two runs (--single): what differs from run to run is not known, and "
            "may be all of a change."
        )
    return found
