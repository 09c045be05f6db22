"""What every kind of data file is made of: the class that each derives from, and rows read where they lie.

An index holds sixteen bytes a row, never its text; each row is looked at once for mistakes and forgotten. A
hundred thousand conversations of 2 kB (225 MB) start in 1.1 s and 56 MB as lines of JSON, in 2.4 s and 57 MB
as one array.

The elements of a JSON array are found here and not by ijson: its C backend reads the same array in 1.1 s,
but gives no byte offsets, and without them a row can only be had by reading all rows before it. Its
Python backend knows them and takes 11 s.
"""

from __future__ import annotations

import csv
import json
import os
import re
import weakref
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from turnbench.problems import FOUND_MAX, FileProblems, Problem

_BLOCK_CHARACTERS = 1024 * 1024
_RECORD_BYTES_MAX = 4 * 1024 * 1024
"""A CSV record that goes on for longer has lost its closing quote."""
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()
_GAP = re.compile(r"[\ufeff \t\r\n,\[]*")
Row = tuple[int, int, int, bytes]
"""Start and end in the file, line, and the bytes."""


Messages = list[tuple[str, str]]
"""Roles (system, user, assistant) and texts of one conversation."""


class DataFile(ABC):
    """The rows of one file, each of them a conversation. A kind of file is a subclass that says how it is
    recognised, what a row means and which rows it refuses; it is played once it stands in `KINDS`."""

    kind: ClassVar[str]
    """Its name in a scenario's `source: {kind: ...}`."""
    suffixes: ClassVar[tuple[str, ...]]
    """Endings of its files' names."""
    sign: ClassVar[str]
    """How a person recognises it, for messages: what the first row has."""
    timed: ClassVar[bool] = False
    """Each row has a time at which it is due (see arrival_s), and they are played in this order."""
    shares_prefixes: ClassVar[bool] = False
    """Rows begin alike, and a server is meant to find that in its prefix cache."""
    passed_over: int = 0
    """Rows that are sound but hold nothing to play."""

    @classmethod
    @abstractmethod
    def recognises(cls, first: FirstRow) -> bool:
        """Whether a file that begins so is of this kind. Raises ValueError for a row that cannot be read."""

    @abstractmethod
    def __init__(self, path: str, prompt: str | None) -> None:
        """Look at every row once. `prompt`: the scenario's template, for kinds that fill one. Raises
        FileProblems with every mistake, and what opening a file raises."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def messages(self, i: int) -> Messages:
        """What row i says, from 0."""

    def answer_tokens(self, i: int) -> int | None:
        """The length of the answer to row i, where the file gives one."""
        return None

    def context_tokens(self, i: int) -> int | None:
        """Tokens of context that row i needs with its answer, where the file says so."""
        return None

    def arrival_s(self, i: int) -> float:
        """When row i is due, in seconds after the first. Only for kinds that are `timed`."""
        raise NotImplementedError


class Index:
    """The rows of a file that `keep` has taken; `keep` gives False for a row to pass over and raises
    ValueError, with words for a person, for one that is wrong. Raises FileProblems with every mistake."""

    def __init__(self, path: str, rows: Iterator[Row], keep: Callable[[bytes], bool]) -> None:
        self.path = path
        self.starts, self.ends = array("Q"), array("Q")
        self.passed_over = 0
        problems = list(self._fill(rows, keep))
        if not problems and not self.starts:
            problems = [Problem(path, 0, "no row that could be played; look at the form of the file")]
        if problems:
            raise FileProblems(problems)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def _fill(self, rows: Iterator[Row], keep: Callable[[bytes], bool]) -> Iterator[Problem]:
        found = 0
        for start, end, line, row in rows:
            try:
                taken = keep(row)
            except ValueError as error:  # also what json, csv and msgspec raise
                found += 1
                yield Problem(self.path, line, f"{' '.join(str(error).split())}; mend or remove this row")
                if found == FOUND_MAX:
                    return
                continue
            self.passed_over += not taken
            if taken:
                self.starts.append(start)
                self.ends.append(end)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> bytes:
        start = self.starts[i]
        return os.pread(self._file, self.ends[i] - start, start)


class FirstRow:
    """What a file begins with, for telling what kind it is. Raises FileProblems where it has no row."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.suffix = Path(path).suffix

    @cached_property
    def json(self) -> bytes:
        """The first row of a JSON file, as it is written."""
        return first_row(self.path, json_rows(self.path))

    @cached_property
    def fields(self) -> list[str]:
        """The first row of a CSV file. Raises ValueError."""
        return fields_of(first_row(self.path, csv_rows(self.path)))


def first_row(path: str, rows: Iterator[Row]) -> bytes:
    """The first row of a file. Raises FileProblems for a file without any."""
    for row in rows:
        return row[3]
    raise FileProblems([Problem(path, 0, "the file is empty; it needs at least one row")])


def csv_rows(path: str) -> Iterator[Row]:
    """Each record of a CSV file, which may go over several lines where it has quotes."""
    start, begun, pending = 0, 1, b""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            pending += line
            if pending.count(b'"') % 2 == 0 or len(pending) > _RECORD_BYTES_MAX:
                if not pending.isspace():
                    yield start, start + len(pending), begun, pending.removeprefix(_BOM)
                start, begun, pending = start + len(pending), number + 1, b""
        if pending:
            yield start, start + len(pending), begun, pending


def fields_of(row: bytes) -> list[str]:
    """The fields of one CSV record. Raises ValueError."""
    try:
        (fields,) = csv.reader([row.decode().rstrip("\r\n")], strict=True)
    except csv.Error as error:
        raise ValueError(f"not readable as CSV ({error})") from None
    return fields


def json_rows(path: str) -> Iterator[Row]:
    """Each row of a JSON file: the elements of one array (which may be one line of gigabytes), or each line
    that is not blank."""
    with Path(path).open("rb") as file:
        if file.read(1024).removeprefix(_BOM).lstrip().startswith(b"["):
            yield from _array_elements(path)
            return
        file.seek(0)
        start = 0
        for number, line in enumerate(file, start=1):
            end = start + len(line)
            if not line.isspace():
                yield start, end, number, line.removeprefix(_BOM)
            start = end


def _array_elements(path: str) -> Iterator[Row]:
    """Each element of a JSON array of objects, read in blocks. A cut or broken array is one wrong row."""
    at, line, here, text, ended = 0, 1, 0, "", False
    with Path(path).open(encoding="utf-8", newline="") as file:
        while True:
            gap = _GAP.match(text, here)
            skipped = gap[0] if gap else ""
            at, line, here = at + len(skipped.encode()), line + skipped.count("\n"), here + len(skipped)
            try:
                end = _DECODER.raw_decode(text, here)[1] if text.startswith("{", here) else None
            except json.JSONDecodeError:
                end = None
            if end is not None:
                raw = text[here:end].encode()
                yield at, at + len(raw), line, raw
                at, line, here = at + len(raw), line + raw.count(b"\n"), end
            elif ended:
                break
            else:
                block = file.read(max(_BLOCK_CHARACTERS, len(text) - here))
                text, here, ended = text[here:] + block, 0, not block
    if text[here:].strip() not in ("", "]"):
        yield at, at, line, text[here : here + 200].encode()
