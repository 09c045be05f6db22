"""Timed traces: requests of known lengths at known times, with texts made up out of our own pages."""

from __future__ import annotations

import re
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from datetime import datetime

import msgspec

from scenarios._texts import CHARACTERS_PER_TOKEN, pages
from scenarios.data._rows import (
    DataFile,
    FirstRow,
    Index,
    Messages,
    Row,
    csv_rows,
    fields_of,
    first_row,
    json_rows,
)
from turnbench.draws import stream


class Trace(DataFile):
    """Requests of known lengths at known times, in the order in which they came."""

    timed = True

    def __init__(self, path: str, prompt: str | None) -> None:
        self._at_s, self._inputs, self._outputs = array("d"), array("L"), array("L")
        self._index = Index(path, self._rows(path), self._keep)

    def __len__(self) -> int:
        return len(self._index)

    def _rows(self, path: str) -> Iterator[Row]:
        return json_rows(path)

    @abstractmethod
    def _values(self, row: bytes) -> tuple[float, int, int]:
        """Time in s, tokens in and tokens out of a row. Raises ValueError."""

    def _keep(self, row: bytes) -> bool:
        at_s, tokens_in, tokens_out = self._values(row)
        if tokens_in < 1 or tokens_out < 0:
            raise ValueError(f"{tokens_in} tokens in and {tokens_out} out; there must be one in at least")
        if self._at_s and at_s < self._at_s[-1]:
            raise ValueError("earlier than the row before")
        self._at_s.append(at_s)
        self._inputs.append(tokens_in)
        self._outputs.append(tokens_out)
        return True

    def messages(self, i: int) -> Messages:
        return [("user", _filler(round(self._inputs[i] * CHARACTERS_PER_TOKEN), "row", i))]

    def answer_tokens(self, i: int) -> int:
        return max(1, self._outputs[i])

    def context_tokens(self, i: int) -> int:
        return self._inputs[i] + self._outputs[i]

    def arrival_s(self, i: int) -> float:
        return self._at_s[i] - self._at_s[0]


class AzureTrace(Trace):
    """Azure's traces of LLM inference (Patel 2024, "Splitwise"; the files of 2023): TIMESTAMP,
    ContextTokens, GeneratedTokens."""

    kind = "azure"
    suffixes = (".csv",)
    sign = "TIMESTAMP, ContextTokens, GeneratedTokens"

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return {"ContextTokens", "GeneratedTokens"} <= set(first.fields)

    def _rows(self, path: str) -> Iterator[Row]:
        rows = csv_rows(path)
        header = fields_of(first_row(path, rows))
        self._places = [header.index(name) for name in self.sign.split(", ")]
        return rows

    def _values(self, row: bytes) -> tuple[float, int, int]:
        fields = fields_of(row)
        if len(fields) <= max(self._places):
            raise ValueError(f"{len(fields)} fields where {max(self._places) + 1} belong")
        at, tokens_in, tokens_out = (fields[place] for place in self._places)
        # such as 2023-11-16 18:15:46.6805900: seven digits, which Python's own reader does not take
        whole, _, fraction = at.removesuffix("+00:00").partition(".")
        try:
            if not re.fullmatch("[0-9]*", fraction):
                raise ValueError(fraction)
            at_s = datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
        except ValueError:
            raise ValueError(f"{at[:40]!a} is no time such as 2023-11-16 18:15:46.68") from None
        for text in (tokens_in, tokens_out):
            if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
                raise ValueError(f"{text[:40]!a} is no number of tokens")
        return at_s, int(tokens_in), int(tokens_out)


class _MooncakeRow(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


class MooncakeTrace(Trace):
    """Traces of Mooncake (Qin 2024): timestamp in ms, input_length, output_length, and hash_ids of blocks of
    512 tokens. Blocks of the same id have the same text."""

    kind = "mooncake"
    suffixes = (".jsonl", ".json")
    sign = "'input_length'"
    shares_prefixes = True
    _BLOCK_TOKENS = 512
    _decode = msgspec.json.Decoder(_MooncakeRow).decode

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return b'"input_length"' in first.json

    def _values(self, row: bytes) -> tuple[float, int, int]:
        found = self._decode(row)
        return found.timestamp / 1000, found.input_length, found.output_length

    def messages(self, i: int) -> Messages:
        length = round(self._inputs[i] * CHARACTERS_PER_TOKEN)
        block = round(self._BLOCK_TOKENS * CHARACTERS_PER_TOKEN)
        ids = self._decode(self._index[i]).hash_ids
        text = "".join(_filler(block, "block", number) for number in ids)[:length]
        return [("user", text + _filler(length - len(text), "row", i))]


def _filler(length: int, *name: str | int) -> str:
    """So many characters of our own pages, from a place decided by the name."""
    text = pages()
    start = int(next(stream("filler", *name)) * len(text))
    return (text[start:] + text * (length // len(text) + 1))[: max(0, length)]
