"""From a run directory to one table of turns and their events."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.arrays import Events, Whole, joined
from turnbench.formats import TurnRecord
from turnbench.run_directory import RunDirectory

_LISTS = ("event_us", "event_tokens", "event_words", "text")
COLUMNS = tuple(name for name in TurnRecord.__struct_fields__ if name not in _LISTS)
_row = attrgetter(*COLUMNS)
_PARTS = ("frame", "events", "unusable")
_BATCH = 4096
"""Turns read and measured at a time: few enough that their events stay near the processor."""
_NULLABLE = (
    "sent_ns",
    "head_ns",
    "end_ns",
    "connect_us",
    "answer_event",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "status",
)


Measure = Callable[[pd.DataFrame, Events], pd.DataFrame]


@dataclass(frozen=True)
class Turns:
    """One row a record; row i of `frame` has the events i of `events`."""

    frame: pd.DataFrame
    events: Events
    unusable: int
    """Records left out because a number in them is out of all range."""


def load_turns(run: RunDirectory, measure: Measure) -> Turns:
    """Every record of a run, attempts included. A line that can't be read is counted, never fatal.

    `measure` gives further columns for some of the rows and their events. It is called on a few thousand
    turns at a time, so that what it needs on the way doesn't grow with the run.
    """
    with _uncollected():
        parts = [_part(batch, measure) for batch in _batches(run.turns())] or [_part([], measure)]
    frames, events, unusable = ([getattr(part, name) for part in parts] for name in _PARTS)
    parts.clear()
    return Turns(pd.concat(frames, ignore_index=True), joined(events), sum(unusable))


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


def _batches(records: Iterator[TurnRecord]) -> Iterator[list[TurnRecord]]:
    while batch := list(islice(records, _BATCH)):
        yield batch


def _part(batch: list[TurnRecord], measure: Measure) -> Turns:
    records = batch
    try:
        frame, events = _frame(batch), _events(batch)
    except OverflowError:  # one in the batch: worth looking at each only then
        records = [record for record in batch if _in_range(record)]
        frame, events = _frame(records), _events(records)
    frame = pd.concat([frame, measure(frame, events)], axis=1)
    return Turns(frame, events.narrow(), len(batch) - len(records))


def _in_range(record: TurnRecord) -> bool:
    """Whether its numbers can be computed with; no clock or counter of ours makes one that can't."""
    try:
        _frame([record])
        _events([record])
    except OverflowError:
        return False
    return True


def _frame(records: list[TurnRecord]) -> pd.DataFrame:
    rows = [_row(record) for record in records]
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    return pd.DataFrame(
        {name: _series(name, list(column)) for name, column in zip(COLUMNS, columns, strict=True)}
    )


def _events(records: list[TurnRecord]) -> Events:
    counts = [len(record.event_us) for record in records]
    offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    at_us = np.fromiter(chain.from_iterable(record.event_us for record in records), np.int64, offsets[-1])
    tokens = _counts([record.event_tokens for record in records], counts, 1)
    return Events(offsets, at_us, tokens, _counts([record.event_words for record in records], counts, 0))


def _counts(lists: Sequence[list[int] | None], counts: list[int], default: int) -> Whole:
    """A number for each event: the record's own where they are aligned with its events, else the default."""
    total = sum(counts)
    if not any(lists):
        return np.full(total, default)
    fitted = (
        values if values is not None and len(values) == count else repeat(default, count)
        for values, count in zip(lists, counts, strict=True)
    )
    return np.fromiter(chain.from_iterable(fitted), np.int32, total).astype(np.int64)


def _series(name: str, column: list[Any]) -> pd.Series[Any]:
    if name in _NULLABLE:
        return pd.Series(column, dtype="Int64")
    if TurnRecord.__annotations__[name] == "int":
        return pd.Series(column, dtype="int64")
    if TurnRecord.__annotations__[name] == "bool":
        return pd.Series(column, dtype="bool")
    return pd.Series(column, dtype="object" if name in ("error", "finish_reason") else "str")


def load_health(run: RunDirectory) -> pd.DataFrame:
    """The engines' own lines, in order of worker and time; lines that lack a number are left out."""
    names = ["t_ns", "worker", "loop_lag_ms", "cpu_share", "stolen_share"]
    names += ["planned", "dropped", "begun", "finished"]
    lines = [line for line in run.health() if isinstance(line, dict)]
    frame = pd.DataFrame(lines, columns=names) if lines else pd.DataFrame(columns=names)
    for name in names:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    frame = frame.dropna(subset=["t_ns", "worker"])
    return frame.sort_values(["worker", "t_ns"]).reset_index(drop=True)


def load_server(run: RunDirectory) -> list[dict[str, Any]]:
    """The server's own metrics in order of time; lines without a time are left out."""
    lines = [line for line in run.server() if isinstance(line, dict) and _is_time(line.get("t_ns"))]
    return sorted(lines, key=lambda line: line["t_ns"])


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
