"""The numbers of a cell: one model, task and level, or "all" of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from analysis.measures.censored import is_censored, values_of
from analysis.measures.distribution import (
    MOST_COALESCED,
    Sample,
    TurnSums,
    coalesced_share,
    distribution,
    gap_distribution,
)
from analysis.measures.throughput import Arrived, arrived_tokens
from analysis.turns.frame import floats
from analysis.turns.study import PLAN, Study, kept_and_cut
from turnbench.formats import CellSummary
from turnbench.formats.summary import Interval
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED, FAILED
from turnbench.stats.batches import SLOTS, batch_error, slots_of
from turnbench.stats.bootstrap import LEAST_CONVERSATIONS, Resampler
from turnbench.stats.intervals import ratio_interval, share_interval
from turnbench.turns import Ints

ALL = "all"


def cells_of(study: Study) -> list[CellSummary]:
    """Every cell with at least one measured turn, from the finest to all of them together."""
    arrived = arrived_tokens(study)
    made: dict[bytes, CellSummary] = {}
    found = []
    for (model, task, level), rows in _groups(study):
        same = rows.index.to_numpy().tobytes()
        if same not in made:  # with one task only, the cell over all tasks holds the same turns
            made[same] = _of_turns(study, rows)
        cell = msgspec.structs.replace(made[same], model=model, task=task, level=level)
        _add_rates(cell, study, rows, arrived)
        found.append(cell)
    return found


def _groups(study: Study) -> Iterator[tuple[tuple[Any, Any, Any], pd.DataFrame]]:
    measured = study.measured
    models = measured["model"].unique().tolist()
    for model in [*models, ALL] if len(models) > 1 else models:
        of_model = measured if model == ALL else measured[measured["model"] == model]
        tasks = of_model["task"].unique().tolist()
        for level in [*sorted(set(of_model["level"])), ALL]:
            at_level = of_model if level == ALL else of_model[of_model["level"] == level]
            for task in [*tasks, ALL]:
                rows = at_level if task == ALL else at_level[at_level["task"] == task]
                if len(rows):
                    yield (model, task, level if level == ALL else int(level)), rows


def _of_turns(study: Study, rows: pd.DataFrame) -> CellSummary:
    """What follows from the cell's turns alone; it has no names yet."""
    answered = rows["outcome"].isin(ANSWERED).to_numpy()
    censored = is_censored(rows)
    failed = rows["outcome"].isin(FAILED).to_numpy()
    talks = pd.factorize(rows["talk"])[0]
    slots = slots_of(floats(rows["position"]))
    resampler = Resampler(int(talks.max()) + 1)
    own_reads = coalesced_share(rows, study) <= MOST_COALESCED
    ok, known = rows[answered], answered | censored
    waits, known_talks, known_slots = rows[known], talks[known], slots[known]
    distributions = {}
    for key, metric in METRICS.items():
        if metric.per == "gap":
            turns = Sample(np.zeros(0), talks[answered], slots[answered])
            distributions[key] = gap_distribution(study, ok, turns, resampler, own_reads)
            continue
        values, so_far = values_of(waits, censored[known], metric)
        has = ~np.isnan(values)
        sample = Sample(values[has], known_talks[has], known_slots[has], so_far[has])
        distributions[key] = distribution(sample, resampler)
    ttg_s, tokens = floats(ok["ttg_ms"]) / 1e3, floats(ok["tokens"])
    per_token = ttg_s / np.where(tokens > 0, tokens, np.nan)
    has_both = ~np.isnan(per_token)
    cached = ok[ok["cached_tokens"].notna() & ok["prompt_tokens"].notna()]
    scored = _scored(study, ok, talks[answered], slots[answered], resampler)
    timed = TurnSums(talks[answered], slots[answered], resampler)
    return CellSummary(
        model="",
        task="",
        level=ALL,
        turns=len(rows),
        conversations=int(talks.max()) + 1,
        ok=len(ok),
        failed=int(failed.sum()),
        unfinished=len(rows) - len(ok) - int(failed.sum()),
        failed_share=float(failed.mean()),
        values=distributions,
        tps=_rate(np.nansum(tokens), np.nansum(ttg_s)),
        visible_tps=_rate(float(ok["shown_tokens"].sum()), np.nansum(ttg_s)),
        normalised_latency_s=float(per_token[has_both].mean()) if has_both.any() else None,
        chars_per_s=_rate(float(ok["chars"].sum()), np.nansum(ttg_s)),
        words_per_s=_rate(float(ok["words"].sum()), np.nansum(ttg_s)),
        cached_share=_rate(floats(cached["cached_tokens"]).sum(), floats(cached["prompt_tokens"]).sum()),
        fluidity=_rate(float(ok["fluid_met"].sum()), float(ok["fluid_total"].sum())),
        ci95={
            "tps": timed.ends(tokens, ttg_s),
            "visible_tps": timed.ends(floats(ok["shown_tokens"]), ttg_s),
            "normalised_latency_s": timed.ends(per_token, has_both),
            "fluidity": timed.ends(floats(ok["fluid_met"]), floats(ok["fluid_total"])),
            **scored.ci95,
        },
        scored=scored.answers,
        right_share=scored.right_share,
        read_share=scored.read_share,
        seconds_per_right=scored.seconds_per_right,
        intervals="both" if int(talks.max()) + 1 >= LEAST_CONVERSATIONS else "batches",
    )


@dataclass(frozen=True)
class ScoredAnswers:
    """Answers to questions with a key."""

    answers: int = 0
    right_share: float | None = None
    read_share: float | None = None
    seconds_per_right: float | None = None
    ci95: dict[str, Interval] = field(default_factory=dict)


def _scored(study: Study, ok: pd.DataFrame, talks: Ints, slots: Ints, resampler: Resampler) -> ScoredAnswers:
    """How many of these answered turns are right. What an emulator says is no answer."""
    mine = ok["right"].notna().to_numpy()
    if study.emulated or not mine.any():
        return ScoredAnswers()
    right = ok["right"][mine].to_numpy(dtype=bool)
    seconds = floats(ok["ttg_ms"])[mine] / 1e3
    talks, slots = talks[mine], slots[mine]
    ends = share_interval(right, talks, slots)
    per_right = ratio_interval(seconds, right.astype(np.float64), talks, slots, resampler)
    return ScoredAnswers(
        answers=len(right),
        right_share=float(right.mean()),
        read_share=float(ok["answered"][mine].notna().mean()),
        seconds_per_right=_rate(float(np.nansum(seconds)), float(right.sum())),
        ci95={
            "right_share": None if ends is None else [ends[0], ends[1]],
            "seconds_per_right": per_right if right.any() else None,
        },
    )


def _add_rates(cell: CellSummary, study: Study, rows: pd.DataFrame, arrived: Arrived) -> None:
    """What is counted per second of the level's window."""
    window_s = study.window_s(cell.level)
    mine, by_slot = arrived.of(cell.model, cell.task, cell.level)
    cell.aggregate_tps = _rate(mine, window_s)
    cell.ci95 = dict(cell.ci95)
    if window_s > 0 and by_slot.sum() > 0:
        error = batch_error(by_slot * mine / by_slot.sum(), np.full(SLOTS, window_s / SLOTS))
        cell.ci95["aggregate_tps"] = None if error is None else [max(error.ends[0], 0.0), error.ends[1]]
    limited = rows[["meets", "talk", "position"]].dropna(subset="meets")
    if len(limited):
        met = limited["meets"].to_numpy(dtype=np.float64)
        cell.turn_goodput_per_s = _rate(float(met.sum()), window_s)
        codes = pd.factorize(limited["talk"])[0]
        turns = TurnSums(codes, slots_of(floats(limited["position"])), Resampler(int(codes.max()) + 1))
        cell.ci95["turn_goodput_per_s"] = turns.per_second(met, window_s)
    talks = study.conversations[study.conversations.index.isin(rows["talk"].unique())]
    talks = talks if cell.level == ALL else talks[talks["level"] == cell.level]
    if kept := kept_and_cut(talks):
        cell.conversation_goodput_per_s = _rate(kept[0], window_s)
        cell.conversations_cut = kept[1]
        good = ((talks["end"] == PLAN) & talks["keeps"].fillna(False)).to_numpy(dtype=np.float64)
        whole = TurnSums(np.arange(len(good)), slots_of(floats(talks["position"])), Resampler(len(good)))
        cell.ci95["conversation_goodput_per_s"] = whole.per_second(good, window_s)


def _rate(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None
