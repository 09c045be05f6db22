"""From a run directory to one table of turns, with what each one measured, and their events."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from turnbench.formats import HealthLine, TurnRecord
from turnbench.limits import TaskLimits, deadlines_ms, meets
from turnbench.metrics import METRICS, fluidity
from turnbench.run_directory import RunDirectory
from turnbench.turns import Events, Floats, Turns, counts_stop_token, joined, turns_of

_LISTS = ("event_us", "event_tokens", "event_words", "text", "after")
COLUMNS = tuple(name for name in TurnRecord.__struct_fields__ if name not in _LISTS)
_NUMBERS: dict[str, Any] = {"int | None": "Int64", "int": "int64", "bool | None": "boolean", "bool": "bool"}
"""The type of a column by that of the record's field; all others are texts."""
TEXTS = tuple(name for name in COLUMNS if TurnRecord.__annotations__[name] not in _NUMBERS)
_row = attrgetter(*COLUMNS)
_PARTS = ("frame", "events", "unusable")
_BATCH = 4096
"""Turns read and measured at a time: few enough that their events stay near the processor."""


@dataclass(frozen=True)
class TurnTable:
    """One row a record; row i of `frame` has the events i of `events`."""

    frame: pd.DataFrame
    events: Events
    unusable: int
    """Records discarded because a number in them is out of all range."""


def floats(series: pd.Series) -> Floats:
    """A column as floats, NaN where it is null."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def column_of(key: str) -> str:
    """The column that a metric has in the table: `output_tokens` is a field of the record itself already."""
    return "tokens" if key == "output_tokens" else key


def load_turns(run: RunDirectory, limits: Mapping[str, TaskLimits], words_per_min: float) -> TurnTable:
    """Every record of a run, attempts included, measured. A line that can't be read is counted, never fatal.

    A few thousand turns are measured at a time, so that what it needs on the way doesn't grow with the run.
    """
    stop_counted = counts_stop_token(run.manifest.server)

    def columns_of(records: list[TurnRecord]) -> Turns:
        return turns_of(records, words_per_min, stop_counted)

    with _uncollected():
        records = run.turns()
        batch = list(islice(records, _BATCH))
        parts = [_part(batch, limits, columns_of)]
        while batch := list(islice(records, _BATCH)):
            parts.append(_part(batch, limits, columns_of))
    frames, events, unusable = ([getattr(part, name) for part in parts] for name in _PARTS)
    parts.clear()
    frame = pd.concat(frames, ignore_index=True)
    frame.columns = frame.columns.astype("object")  # as the texts below: pandas's own are slow to pick from
    return TurnTable(frame, joined(events), sum(unusable))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk over thousands of new records again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _part(
    batch: list[TurnRecord],
    limits: Mapping[str, TaskLimits],
    columns_of: Callable[[list[TurnRecord]], Turns],
) -> TurnTable:
    records = batch
    try:
        frame, turns = _frame(batch), columns_of(batch)
    except OverflowError:  # one in the batch: worth looking at each only then
        records = [record for record in batch if _in_range(record)]
        frame, turns = _frame(records), columns_of(records)
    frame = pd.concat([frame, _measured(turns, limits)], axis=1)
    return TurnTable(frame, turns.events.narrow(), len(batch) - len(records))


def _measured(turns: Turns, limits: Mapping[str, TaskLimits]) -> pd.DataFrame:
    """Every metric, what counts and rates need besides, and `meets`: null where the task has no limits."""
    columns: dict[str, Any] = {
        column_of(key): metric.compute(turns) for key, metric in METRICS.items() if metric.per == "turn"
    }
    columns["shown_tokens"] = turns.shown_tokens
    columns["even_tokens"] = turns.even_tokens
    columns["later_tokens"] = turns.later_tokens
    columns["buffered"] = turns.buffered
    columns["fluid_met"], columns["fluid_total"] = fluidity(turns.events, *deadlines_ms(turns.tasks, limits))
    met, limited = meets(turns, limits)
    columns["meets"] = pd.arrays.BooleanArray(met, ~limited)
    return pd.DataFrame(columns)


def _in_range(record: TurnRecord) -> bool:
    """Whether its numbers can be computed with; no clock or counter of ours makes one that can't."""
    try:
        _frame([record])
        turns_of([record])
    except OverflowError:
        return False
    return True


def _frame(records: list[TurnRecord]) -> pd.DataFrame:
    rows = [_row(record) for record in records]
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    frame = pd.DataFrame(
        {name: _series(name, list(column)) for name, column in zip(COLUMNS, columns, strict=True)}
    )
    # In a conversation that is one line, a turn's number is its depth.
    frame["depth"] = frame["depth"].fillna(frame["turn"]).astype("int64")
    frame["continues"] = frame["continues"].fillna(frame["turn"] - 1).astype("int64")
    return frame


def _series(name: str, column: list[Any]) -> pd.Series[Any]:
    if name not in TEXTS:
        numbers: pd.Series[Any] = pd.Series(column, dtype=_NUMBERS[TurnRecord.__annotations__[name]])
        return numbers
    # Most are the same few objects. A mask over columns of pandas's own texts would take twice as long.
    seen: dict[Any, Any] = {}
    return pd.Series([seen.setdefault(value, value) for value in column], dtype="object")


def load_health(run: RunDirectory) -> pd.DataFrame:
    """The engines' own lines, in order of worker and time; a number that a line lacks is NaN."""
    names = HealthLine.__struct_fields__
    frame = pd.DataFrame([attrgetter(*names)(line) for line in run.health()], columns=list(names))
    for name in names:
        frame[name] = pd.to_numeric(frame[name])
    return frame.sort_values(["worker", "t_ns"]).reset_index(drop=True)
