"""Files of questions: one prompt a row, filled from the row's columns."""

from __future__ import annotations

import re
from typing import Any

from scenarios.data._rows import DataFile, FirstRow, Index, Messages, csv_rows, fields_of, first_row
from turnbench.problems import FileProblems, Problem, listed

_COLUMN = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_GUESSES = ("prompt", "question", "instruction", "text", "input")
"""Columns that are the prompt where the scenario gives none, the likeliest first."""
_CHOOSE = "Answer this question with the letter only: a, b, c or d.\n\n{}\na) {}\nb) {}\nc) {}\nd) {}"


class PromptTemplate:
    """A prompt with `{column}` in it; column names are in small letters, with `_` for all but letters and
    digits. Raises FileProblems for a column that the file lacks, or where none can be guessed."""

    def __init__(self, path: str, columns: list[str], prompt: str | None) -> None:
        self.columns = [re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") for name in columns]
        found = [name for name in _GUESSES if name in self.columns]
        if len(self.columns) == 1:
            found = self.columns
        if prompt is None and not found:
            names = listed(self.columns)
            what = f"no column is named prompt; write 'prompt: \"{{name}}\"' with one of {names}"
            raise FileProblems([Problem(path, 1, what)])
        self._prompt = prompt or f"{{{found[0]}}}"
        for name in _COLUMN.findall(self._prompt):
            if name not in self.columns:
                what = f"the prompt uses column {name!a}; columns: {listed(self.columns)}"
                raise FileProblems([Problem(path, 1, what)])

    def filled(self, fields: list[str]) -> Messages:
        """The prompt of a row."""
        texts = dict(zip(self.columns, fields, strict=True))
        return [("user", _COLUMN.sub(lambda match: texts[match[1]], self._prompt))]


class CsvFile(DataFile):
    """A CSV file whose first row names its columns."""

    kind = "csv"
    suffixes = (".csv",)
    sign = "the names of columns"

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return bool(first.fields)

    def __init__(self, path: str, prompt: str | None) -> None:
        rows = csv_rows(path)
        self._template = PromptTemplate(path, fields_of(first_row(path, rows)), prompt)
        self._index = Index(path, rows, self._keep)

    def __len__(self) -> int:
        return len(self._index)

    def _keep(self, row: bytes) -> bool:
        fields = fields_of(row)
        if len(fields) != len(self._template.columns):
            raise ValueError(f"{len(fields)} fields where {len(self._template.columns)} belong")
        if not any(field.strip() for field in fields):
            raise ValueError("nothing in this row")
        return True

    def messages(self, i: int) -> Messages:
        return self._template.filled(fields_of(self._index[i]))


class MmluFile(DataFile):
    """A CSV file of MMLU: question, four choices and the letter of the right one; no names of columns."""

    kind = "mmlu"
    suffixes = (".csv",)
    sign = "question, four choices, letter"

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return len(first.fields) == 6 and first.fields[5] in ("A", "B", "C", "D")

    def __init__(self, path: str, prompt: str | None) -> None:
        self._index = Index(path, csv_rows(path), self._keep)

    def __len__(self) -> int:
        return len(self._index)

    def _keep(self, row: bytes) -> bool:
        fields = fields_of(row)
        if len(fields) != 6:
            raise ValueError(f"{len(fields)} fields where 6 belong")
        if fields[5] not in ("A", "B", "C", "D"):
            raise ValueError(f"the last field is {fields[5][:20]!a}, which must be A, B, C or D")
        return True

    def messages(self, i: int) -> Messages:
        return [("user", _CHOOSE.format(*fields_of(self._index[i])[:5]))]


class ParquetFile(DataFile):
    """A Parquet file, whose table is held in memory."""

    kind = "parquet"
    suffixes = (".parquet",)
    sign = "columns"

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return first.suffix == ".parquet"

    def __init__(self, path: str, prompt: str | None) -> None:
        import pyarrow  # here, since it is large and few need it
        import pyarrow.parquet

        try:
            self._table: Any = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:80]
            what = f"not readable as Parquet ({reason!a}); write the file again"
            raise FileProblems([Problem(path, 0, what)]) from None
        self._template = PromptTemplate(path, self._table.column_names, prompt)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def messages(self, i: int) -> Messages:
        fields = [str(column[i].as_py() or "") for column in self._table.columns]
        return self._template.filled(fields)
