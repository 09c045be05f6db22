"""Timed traces: requests of known lengths at known times, with texts made up out of our own pages."""

from __future__ import annotations

import re
from array import array
from datetime import datetime
from functools import lru_cache

import msgspec

from scenarios._builtin import pages
from scenarios._bundle import CHARACTERS_PER_TOKEN
from scenarios._rows import Index, csv_records, fields_of, first_row, lines
from turnbench.draws import stream

BLOCK_TOKENS = 512


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


class Trace:
    """Requests of known lengths at known times; the texts are made up out of our own pages."""

    passed_over = 0

    def __init__(self, path: str, kind: str) -> None:
        self._azure = kind == "azure"
        self.at_s, self.inputs, self.outputs = array("d"), array("L"), array("L")
        rows = csv_records(path) if self._azure else lines(path)
        if self._azure:
            header = fields_of(first_row(path, rows))
            self._places = [header.index(name) for name in _AZURE]
        self._index = Index(path, rows, self._keep)
        self._first_s = self.at_s[0]

    def __len__(self) -> int:
        return len(self._index)

    def _keep(self, row: bytes) -> bool:
        at_s, tokens_in, tokens_out = self._values(row)
        if tokens_in < 1 or tokens_out < 0:
            raise ValueError(f"{tokens_in} tokens in and {tokens_out} out; there must be one in at least")
        if self.at_s and at_s < self.at_s[-1]:
            raise ValueError("earlier than the row before")
        self.at_s.append(at_s)
        self.inputs.append(tokens_in)
        self.outputs.append(tokens_out)
        return True

    def _values(self, row: bytes) -> tuple[float, int, int]:
        if not self._azure:
            found = _DECODE_MOONCAKE(row)
            return found.timestamp / 1000, found.input_length, found.output_length
        fields = fields_of(row)
        if len(fields) <= max(self._places):
            raise ValueError(f"{len(fields)} fields where {max(self._places) + 1} belong")
        at, tokens_in, tokens_out = (fields[place] for place in self._places)
        return _seconds(at), _tokens(tokens_in), _tokens(tokens_out)

    def arrival_s(self, i: int) -> float:
        return self.at_s[i] - self._first_s

    def said(self, i: int) -> list[tuple[str, str]]:
        length = round(self.inputs[i] * CHARACTERS_PER_TOKEN)
        if self._azure:
            return [("user", _filler(length, "row", i))]
        ids = _DECODE_MOONCAKE(self._index[i]).hash_ids
        block = round(BLOCK_TOKENS * CHARACTERS_PER_TOKEN)
        text = "".join(_filler(block, "block", number) for number in ids)[:length]
        return [("user", text + _filler(length - len(text), "row", i))]


_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_DECODE_MOONCAKE = msgspec.json.Decoder(_Mooncake).decode


def _seconds(text: str) -> float:
    """A time such as 2023-11-16 18:15:46.6805900, seven digits and all, in seconds."""
    whole, _, fraction = text.removesuffix("+00:00").partition(".")
    if not re.fullmatch(r"\d*", fraction):
        raise ValueError(f"{text[:40]!a} is no time such as 2023-11-16 18:15:46.68")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        raise ValueError(f"{text[:40]!a} is no time such as 2023-11-16 18:15:46.68") from None


def _tokens(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise ValueError(f"{text[:40]!a} is no number of tokens")
    return int(text)


@lru_cache
def _pages() -> str:
    return " ".join(pages().split())


def _filler(length: int, *name: str | int) -> str:
    """So many characters of our own pages, from a place decided by the name."""
    pages = _pages()
    start = int(next(stream("filler", *name)) * len(pages))
    return (pages[start:] + pages * (length // len(pages) + 1))[: max(0, length)]
