"""Timed traces: requests of known lengths at known times, with texts made up out of our own pages."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from scenarios._texts import CHARACTERS_PER_TOKEN, pages
from scenarios.data._data_file import DataRow, DataSource, RecordFile, RowTurn, shown, tokens_of
from scenarios.data._prompts import asked
from scenarios.data._records import Record, slug
from turnbench.draws import stream
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.problems import listed

_BLOCKS = (512, 1024, 256, 128, 64, 32, 16)
"""Tokens of a block, as published traces have them, the likeliest first."""
_UNITS_S = {"s": 1.0, "ms": 0.001}
_GAP_MS_LEAST = 5.0
"""Whole numbers whose mean gap is shorter than this are no milliseconds: no published trace is so busy."""

# fmt: off
IMAGES_NOT_SENT = note("images_not_sent",
    "{:,} images of {:,} requests are not sent, since the trace does not have them; their tokens are text",
    "times of an encoder of images are not in these numbers")
TIME_UNIT = note("time_unit",
    "the times are read as seconds: {why}",
    "write 'time_unit: ms' if not",
    {"why": ["they have fractions", "as milliseconds they would come too fast"]})
BLOCK_TOKENS = note("block_tokens",
    "blocks are taken as {} tokens, which fit {:,} of {:,} rows: prompts may share too much or too little",
    "write 'block_tokens: N' into the scenario's source")
# fmt: on


class Trace(RecordFile):
    """Requests of known lengths at known times, in the order in which they came."""

    timed = True
    unit = "s"
    """Of times that are numbers."""

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        self._at, self._inputs, self._outputs = array("d"), array("L"), array("q")
        self._declared_unit = source.time_unit
        super().__init__(source)
        self._unit_s = _UNITS_S[source.time_unit or self._unit()]

    def _unit(self) -> str:
        """The unit of times that are numbers, as far as the rows say it."""
        return self.unit

    @abstractmethod
    def _values(self, record: Record) -> tuple[float | None, int, int | None]:
        """Time, tokens in and tokens out of a record; None: it does not say. Raises ValueError."""

    def _keep(self, record: Record) -> bool:
        at, tokens_in, tokens_out = self._values(record)
        if tokens_in < 1 or (tokens_out is not None and tokens_out < 0):
            raise ValueError(f"{tokens_in} tokens in and {tokens_out} out; there must be one in at least")
        if at is not None and self.timed and self._at and at < self._at[-1]:
            raise ValueError("earlier than the row before")
        self._at.append(self._at[-1] if at is None and self._at else at or 0.0)
        self._inputs.append(tokens_in)
        self._outputs.append(-1 if tokens_out is None else tokens_out)
        return True

    def row(self, i: int) -> DataRow:
        turn = asked(self._filler_of(i), answer_tokens=self._answer_tokens(i))
        return DataRow([replace(turn, prompt_tokens=self._inputs[i])])

    def _filler_of(self, i: int) -> str:
        return filler(round(self._inputs[i] * self.characters_per_token), "row", i)

    def _answer_tokens(self, i: int) -> int | None:
        return None if self._outputs[i] < 0 else max(1, self._outputs[i])

    def context_tokens(self, i: int) -> int | None:
        return self._inputs[i] + max(0, self._outputs[i])

    def arrival_s(self, i: int) -> float:
        return (self._at[i] - self._at[0]) * self._unit_s


class TableTrace(Trace):
    """A trace with a column each for time, tokens in and tokens out."""

    columns: ClassVar[tuple[str, str, str]]

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return set(cls.columns) <= source.columns

    def _values(self, record: Record) -> tuple[float | None, int, int | None]:
        fields = {slug(name): value for name, value in record.items()}
        at, *tokens = (fields.get(name) for name in self.columns)
        tokens_in, tokens_out = (tokens_of({"": value}, "") for value in tokens)
        if tokens_in is None or tokens_out is None:
            raise ValueError(f"a number is missing; there must be one in each of {listed(self.columns[1:])}")
        return time_of(at), tokens_in, tokens_out


class AzureTrace(TableTrace):
    """Azure's traces of LLM inference: TIMESTAMP, ContextTokens, GeneratedTokens (2023: Patel 2024,
    "Splitwise"; 2024: Stojkovic 2025, "DynamoLLM"), and NumImages in the multimodal ones."""

    kind = "azure"
    sign = "TIMESTAMP, ContextTokens, GeneratedTokens"
    columns = ("timestamp", "contexttokens", "generatedtokens")

    def __init__(self, source: DataSource) -> None:
        self._images = self._with_images = 0
        super().__init__(source)

    def _keep(self, record: Record) -> bool:
        images = tokens_of({slug(name): value for name, value in record.items()}, "numimages") or 0
        self._images += images
        self._with_images += images > 0
        return super()._keep(record)

    def notes(self) -> Iterator[Finding]:
        if self._images:
            yield IMAGES_NOT_SENT.finding(self._images, self._with_images)


class BurstGptTrace(TableTrace):
    """BurstGPT (Wang 2024): Timestamp in seconds, Model, Request tokens, Response tokens, ..."""

    kind = "burstgpt"
    sign = "Timestamp, Request tokens, Response tokens"
    columns = ("timestamp", "request_tokens", "response_tokens")


class MooncakeTrace(Trace):
    """Traces of Mooncake (Qin 2024) and their kin: timestamp, input_length, output_length, and hash_ids of
    blocks. Blocks of the same id have the same text. The size of a block is the one that fits lengths and
    numbers of blocks, the unit of time is ms unless times have fractions or would come too fast.

    A row may have its text (`text_input`), a `session_id`, and a `delay`: rows of a session with delays are
    the turns of one conversation, each so long after the reply to the one before.
    """

    kind = "mooncake"
    sign = "'input_length'"
    shares_prefixes = True
    unit = "ms"
    blocks: tuple[int, ...] = _BLOCKS
    _TEXTS = ("text_input", "input_text", "text", "prompt")

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        first = source.first
        own = {"timestamp", "hash_ids", "session_id", "delay"} & first.keys()
        return "input_length" in first or bool(own and {"text_input", "input_text"} & first.keys())

    def __init__(self, source: DataSource) -> None:
        self._fits: Counter[int] = Counter()
        self._with_blocks = 0
        self._fractions = False
        self._sessions: dict[str | int, list[int]] = {}
        self._chained = array("b")
        super().__init__(source)
        self._block_tokens = source.block_tokens or max(self.blocks, key=lambda size: self._fits[size])
        self._declared_block = source.block_tokens is not None
        followers = {i for rows in self._sessions.values() for i in rows[1:] if self._chained[i]}
        self._chains = [[i] for i in range(len(self._index)) if i not in followers]
        if followers:
            firsts = {rows[0]: rows for rows in self._sessions.values()}
            self._chains = [
                chain + [i for i in firsts.get(chain[0], ())[1:] if i in followers] for chain in self._chains
            ]

    def __len__(self) -> int:
        return len(self._chains)

    def _unit(self) -> str:
        if self._fractions:
            return "s"
        gap = (self._at[-1] - self._at[0]) / max(1, len(self._at) - 1)
        return "s" if self.unit == "s" or 0 < gap < _GAP_MS_LEAST else "ms"

    def _values(self, record: Record) -> tuple[float | None, int, int | None]:
        at = record.get("timestamp")
        if at is not None and (isinstance(at, bool) or not isinstance(at, int | float)):
            raise ValueError(f"{shown(at)} is no time; write a number")
        at = None if at is None else float(at)
        session, delay = record.get("session_id"), record.get("delay")
        if delay is not None and (not isinstance(delay, int | float) or not 0 <= float(delay) < math.inf):
            raise ValueError(f"a delay of {shown(delay)}; write a number from 0 on")
        follows = isinstance(session, str | int) and session in self._sessions
        if not len(self._at):
            self.timed = at is not None
        if at is None and self.timed and not follows:
            raise ValueError("no 'timestamp'; write when this request came")
        tokens = tokens_of(record, "input_length")
        text = self._text_of(record)
        if tokens is None:
            if text is None:
                raise ValueError("no 'input_length'; write how many tokens went in")
            tokens = max(1, round(len(text) / CHARACTERS_PER_TOKEN))
        output = tokens_of(record, "output_length")
        ids = record.get("hash_ids") or []
        if not isinstance(ids, list) or not all(isinstance(each, int | str) for each in ids):
            raise ValueError("'hash_ids' must be a list of numbers")
        if tokens < 1 or (output is not None and output < 0):
            return at, tokens, output  # refused in a moment: nothing is to be learned from it
        if at is not None and self.timed and self._at and at < self._at[-1]:
            return at, tokens, output
        self._fractions |= at is not None and not at.is_integer()
        if ids:
            self._with_blocks += 1
            for size in self.blocks:
                self._fits[size] += len(ids) in (math.ceil(tokens / size), tokens // size)
        if isinstance(session, str | int):
            self._sessions.setdefault(session, []).append(len(self._at))
        self._chained.append(follows and (delay is not None or at is None))
        return at, tokens, output

    def _text_of(self, record: Record) -> str | None:
        texts = (record.get(name) for name in self._TEXTS)
        return next((text for text in texts if isinstance(text, str) and text.strip()), None)

    def row(self, i: int) -> DataRow:
        turns = []
        for n, row in enumerate(self._chains[i]):
            record = self._index[row]
            delay_s = float(record.get("delay") or 0) * self._unit_s if n else None
            turns.append(self._turn(row, record, delay_s))
        return DataRow(turns)

    def _turn(self, row: int, record: Record, delay_s: float | None) -> RowTurn:
        text, asked_tokens = self._text_of(record), None
        if text is None:
            asked_tokens = self._inputs[row] if delay_s is None else None  # later ones hold replies, too
            length = round(self._inputs[row] * self.characters_per_token)
            block = round(self._block_tokens * self.characters_per_token)
            ids = record.get("hash_ids") or []
            text = "".join(filler(block, "block", number) for number in ids)[:length]
            text += filler(length - len(text), "row", row)
        message = {"role": "user", "content": text}
        answer_tokens = self._answer_tokens(row)
        return RowTurn([message], answer_tokens=answer_tokens, prompt_tokens=asked_tokens, think_s=delay_s)

    def context_tokens(self, i: int) -> int | None:
        return sum(self._inputs[row] + max(0, self._outputs[row]) for row in self._chains[i])

    def arrival_s(self, i: int) -> float:
        return super().arrival_s(self._chains[i][0])

    def notes(self) -> Iterator[Finding]:
        if self._declared_unit is None and self.timed and self.unit == "ms" and self._unit_s == 1.0:
            why = "they have fractions" if self._fractions else "as milliseconds they would come too fast"
            yield TIME_UNIT.finding(why=why)
        fitting = self._fits[self._block_tokens]
        if self._with_blocks and not self._declared_block and fitting < 0.9 * self._with_blocks:
            yield BLOCK_TOKENS.finding(self._block_tokens, fitting, self._with_blocks)


class BailianTrace(MooncakeTrace):
    """Qwen-Bailian's traces (Wang 2025, "KVCache Cache in the Wild"): Mooncake's keys, times in seconds and
    blocks of 16 tokens; each turn of a chat (`parent_chat_id`) is a request with its own time, whose prompt
    begins with the blocks of the turn before."""

    kind = "bailian"
    sign = "'chat_id' and 'parent_chat_id'"
    unit = "s"
    blocks = (16, *_BLOCKS)

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return {"chat_id", "parent_chat_id", "input_length"} <= source.first.keys()


def time_of(value: Any) -> float:
    """A time that is a number, or a date such as 2023-11-16 18:15:46.6805900 in seconds. Raises ValueError.

    (Seven digits, which Python's own reader does not take.)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", text) and math.isfinite(float(text)):
        return float(text)
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.([0-9]*))?(Z|[+-]\d\d:?\d\d)?", text)
    try:
        if found is None:
            raise ValueError(text)
        whole = datetime.fromisoformat(found[1] + (found[3] or "+00:00").replace("Z", "+00:00"))
        return whole.timestamp() + float(f"0.{found[2] or 0}")
    except ValueError:
        raise ValueError(f"{shown(value)} is no time such as 2023-11-16 18:15:46.68") from None


def filler(length: int, *name: str | int) -> str:
    """So many characters of our own pages, from a place decided by the name."""
    text = pages()
    start = int(next(stream("filler", *name)) * len(text))
    return (text[start:] + text * (length // len(text) + 1))[: max(0, length)]
