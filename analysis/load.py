"""From a run directory to one table of turns and their events."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Events
from loadgen import Run, TurnRecord

_LISTS = ("event_us", "event_tokens", "event_words", "text")
COLUMNS = tuple(name for name in TurnRecord.__struct_fields__ if name not in _LISTS)
_row = attrgetter(*COLUMNS)
_ONE, _ZERO = array("i", [1]), array("i", [0])
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


@dataclass(frozen=True)
class Turns:
    """One row a record; row i of `frame` has the events i of `events`."""

    frame: pd.DataFrame
    events: Events
    unusable: int
    """Records left out because a number in them is out of all range."""


def load_turns(run: Run) -> Turns:
    """Every record of a run, attempts included. A line that can't be read is counted, never fatal."""
    rows: list[tuple[Any, ...]] = []
    lengths = array("q")
    at_us, tokens, words = array("q"), array("i"), array("i")
    unusable = 0
    for record in run.turns():
        count = len(record.event_us)
        row = _row(record)
        try:
            array("q", [value for value in row if isinstance(value, int)])
            parts = (
                array("q", record.event_us),
                _fitted(record.event_tokens, count, _ONE),
                _fitted(record.event_words, count, _ZERO),
            )
        except OverflowError:  # no clock or counter of ours makes such a number
            unusable += 1
            continue
        at_us.extend(parts[0])
        tokens.extend(parts[1])
        words.extend(parts[2])
        lengths.append(count)
        rows.append(row)
    events = Events(
        np.concatenate(([0], np.cumsum(np.frombuffer(lengths, dtype=np.int64)))).astype(np.int64),
        np.frombuffer(at_us, dtype=np.int64),
        np.frombuffer(tokens, dtype=np.int32),
        np.frombuffer(words, dtype=np.int32),
    )
    return Turns(_frame(rows), events, unusable)


def _fitted(values: list[int] | None, count: int, default: array[int]) -> array[int]:
    """`count` numbers: the record's own where they are aligned with its events, else the default."""
    return array("i", values) if values is not None and len(values) == count else default * count


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else ([] for _ in COLUMNS)
    data = {name: list(column) for name, column in zip(COLUMNS, columns, strict=True)}
    return pd.DataFrame({name: _series(name, column) for name, column in data.items()})


def _series(name: str, column: list[Any]) -> pd.Series[Any]:
    if name in _NULLABLE:
        return pd.Series(column, dtype="Int64")
    if TurnRecord.__annotations__[name] == "int":
        return pd.Series(column, dtype="int64")
    if TurnRecord.__annotations__[name] == "bool":
        return pd.Series(column, dtype="bool")
    return pd.Series(column, dtype="object" if name in ("error", "finish_reason") else "str")


def load_health(run: Run) -> pd.DataFrame:
    """The engines' own lines, in order of worker and time; lines that lack a number are left out."""
    names = ["t_ns", "worker", "loop_lag_ms", "cpu_share", "planned", "dropped", "begun", "finished"]
    lines = [line for line in run.health() if isinstance(line, dict)]
    frame = pd.DataFrame(lines, columns=[*names]) if lines else pd.DataFrame(columns=names)
    for name in names:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    frame = frame.dropna(subset=["t_ns", "worker"])
    return frame.sort_values(["worker", "t_ns"]).reset_index(drop=True)


def load_server(run: Run) -> list[dict[str, Any]]:
    """The server's own metrics in order of time; lines without a time are left out."""
    lines = [line for line in run.server() if isinstance(line, dict) and _is_time(line.get("t_ns"))]
    return sorted(lines, key=lambda line: line["t_ns"])


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
