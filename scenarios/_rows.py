"""Rows of a file of one's own: where each starts, so that any of them can be read without the others.

An index holds eight bytes a row, never its text; each row is looked at once for mistakes and forgotten.
"""

from __future__ import annotations

import csv
import json
import os
import re
import weakref
from array import array
from collections.abc import Callable, Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

from scenarios._errors import ScenarioError
from turnbench.problems import FOUND_MAX, Problem

_BLOCK = 4 * 1024 * 1024
_DECODER = json.JSONDecoder()
_GAP = re.compile(r"[\ufeff \t\r\n,\[]*")
Row = tuple[int, int, int, bytes]
"""Start and end in the file, line, and the bytes."""


class Index:
    """The rows of a file that `keep` has taken; `keep` gives False for a row to pass over and raises
    ValueError, with words for a person, for one that is wrong."""

    def __init__(self, path: str, rows: Iterator[Row], keep: Callable[[bytes], bool]) -> None:
        self.path = path
        self.starts, self.ends = array("Q"), array("Q")
        self.passed_over = 0
        problems = list(self._fill(rows, keep))
        if not problems and not self.starts:
            problems = [Problem(path, 0, "no row that could be played; look at the form of the file")]
        if problems:
            raise ScenarioError(problems)
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


def digest(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def lines(path: str) -> Iterator[Row]:
    """Each line that is not blank."""
    start = 0
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            end = start + len(line)
            if not line.isspace():
                yield start, end, number, line.removeprefix(b"\xef\xbb\xbf")
            start = end


def csv_records(path: str) -> Iterator[Row]:
    """Each record of a CSV file, which may go over several lines where it has quotes."""
    start, begun, pending = 0, 1, b""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            pending += line
            if pending.count(b'"') % 2 == 0 or len(pending) > _BLOCK:
                if not pending.isspace():
                    yield start, start + len(pending), begun, pending.removeprefix(b"\xef\xbb\xbf")
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


def json_elements(path: str) -> Iterator[Row]:
    """Each element of a JSON array of objects, read in blocks. A cut or broken array is one wrong row."""
    at, line, here, text, ended = 0, 1, 0, "", False
    with Path(path).open(encoding="utf-8", newline="") as file:
        while True:
            gap = _GAP.match(text, here)
            skipped = gap[0] if gap else ""
            at, line, here = at + len(skipped.encode()), line + skipped.count("\n"), here + len(skipped)
            end = _end_of_object(text, here)
            if end is not None:
                raw = text[here:end].encode()
                yield at, at + len(raw), line, raw
                at, line, here = at + len(raw), line + raw.count(b"\n"), end
            elif ended:
                break
            else:
                block = file.read(max(_BLOCK, len(text) - here))
                text, here, ended = text[here:] + block, 0, not block
    if text[here:].strip() not in ("", "]"):
        yield at, at, line, text[here : here + 200].encode()


def _end_of_object(text: str, here: int) -> int | None:
    try:
        return int(_DECODER.raw_decode(text, here)[1]) if text.startswith("{", here) else None
    except json.JSONDecodeError:
        return None


def first_row(path: str, rows: Iterator[Row]) -> Any:
    """The first row of a file. Raises ScenarioError for a file without any."""
    for row in rows:
        return row[3]
    raise ScenarioError([Problem(path, 0, "the file is empty; it needs at least one row")])
