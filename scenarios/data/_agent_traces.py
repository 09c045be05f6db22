"""Recordings of coding agents, which have the requests of sub-agents among their own.

Times and lengths are the recording's; the texts are cut from our own pages.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from scenarios.data._agents import NESTED_MOST
from scenarios.data._data_file import (
    DataRow,
    DataSource,
    Place,
    RecordFile,
    shown,
    tokens_of,
    what_it_is,
)
from scenarios.data._prompts import asked
from scenarios.data._records import Record
from scenarios.data._traces import filler
from turnbench.findings import note
from turnbench.formats import Finding

_ROUNDING_S = 0.05
"""So much earlier than the end of another a request may begin, by the recording, and have waited for it."""
_BLOCK_TOKENS = 64
_ID_TYPES = {int, str}

RECORDED_GAPS = note("recorded_gaps",
    "{:,} requests have no 'api_time': the pause after each holds the time that its answer took when it was "
    "recorded",
    "none needed, if the server is like the one that was recorded")  # fmt: skip


class AgentTrace(RecordFile):
    """A recording a row, as kv-cache-tester and the sets of the hub made with it have them:
    {"requests": [{"t": S, "in": ..., "out": ..., "hash_ids": [...], "api_time": S}, {"type": "subagent",
    "requests": [...]}]}.

    A request waits for those before it that had ended when it began, sub-agents' included. It goes on with
    the history of one of them where its blocks begin with all of that one's; else it begins with a prompt of
    its own, in which blocks of one id have one text. Ids are of the row unless `hash_id_scope` is "global".
    """

    kind = "agent-trace"
    sign = "'requests' with 'hash_ids'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        requests = source.first.get("requests")
        return isinstance(requests, list) and any(
            isinstance(each, dict) and ("hash_ids" in each or "requests" in each) for each in requests
        )

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        self._block_tokens = source.block_tokens
        self._without_end = self._global = 0
        self._longest = array("Q")
        """Tokens of each row's longest request, with its answer."""
        super().__init__(source)
        self.shares_prefixes = self._global == len(self._index)

    def _keep(self, record: Record) -> bool:
        requests = _requests_of(record, lays_out=False)
        _block_tokens_of(record)
        self._global += bool(requests) and record.get("hash_id_scope") == "global"
        self._without_end += sum(each.api_s is None for each in requests)
        if requests:
            self._longest.append(max(each.tokens_in + each.tokens_out for each in requests))
        return bool(requests)

    def context_tokens(self, i: int) -> int | None:
        return self._longest[i]

    def notes(self) -> Iterator[Finding]:
        if self._without_end:
            yield RECORDED_GAPS.finding(self._without_end)

    def row(self, i: int) -> DataRow:
        record = self._index[i]
        scope = "" if record.get("hash_id_scope") == "global" else f"row {i}"
        block_tokens = self._block_tokens or _block_tokens_of(record)
        characters = round(block_tokens * self.characters_per_token)
        requests = _requests_of(record)
        turns = []
        for number, each in enumerate(requests):
            before = None if each.continues is None else requests[each.continues]
            tokens, ids = each.tokens_in, each.ids
            if before is not None:
                tokens, ids = max(1, tokens - before.tokens_in - before.tokens_out), []
            length = round(tokens * self.characters_per_token)
            text = "".join(filler(characters, "block", scope, block) for block in ids)[:length]
            text += filler(length - len(text), "request", i, number)
            turn = asked(text, answer_tokens=max(1, each.tokens_out))
            turns.append(
                replace(
                    turn,
                    prompt_tokens=each.tokens_in if before is None else None,  # later ones hold replies, too
                    think_s=each.think_s,
                    place=Place(each.after, each.continues, each.agent),
                )
            )
        return DataRow(turns)


@dataclass(slots=True)
class _Request:
    """A request of a recording; times are seconds from its start."""

    begins_s: float
    api_s: float | None
    tokens_in: int
    tokens_out: int
    ids: list[int | str]
    agent: str
    pause_s: float | None
    """What its agent waited before it, where the recording says."""
    after: tuple[int, ...] = ()
    continues: int | None = None
    think_s: float = 0.0

    @property
    def end_s(self) -> float:
        return self.begins_s + (self.api_s or 0.0)


@dataclass(slots=True)
class _Reader:
    """Reads the requests of a recording, of one agent after the other."""

    lays_out: bool
    """Whether it also says who waits for whom: a check of a whole file has no need of that."""
    found: list[_Request] = field(default_factory=list)

    def read(
        self, entries: list[Any], agent: str, offset_s: float, start: tuple[int, ...], nested: int
    ) -> None:
        """The requests of an agent that begins after these. Raises ValueError."""
        if nested > NESTED_MOST:
            raise ValueError(f"sub-agents {nested} deep; no recording has so many")
        waits, unjoined, mine = start, list(start), list(start)
        for number, entry in enumerate(entries, start=1):
            where = f"request {number} of {agent}"
            if not isinstance(entry, dict):
                raise ValueError(f"{where} is {what_it_is(entry)}; write an object")
            inner = entry.get("requests")
            if entry.get("type") == "subagent" or inner:
                if not isinstance(inner, list):
                    raise ValueError(f"{where} is a sub-agent whose 'requests' is {what_it_is(inner)}")
                first = len(self.found)
                at_s = _number(entry, "t", where) or 0.0
                own = _first_t(inner)
                name = f"{agent}/{entry.get('agent_id') or entry.get('subagent_type') or number}"
                # Both conventions occur: seconds from the sub-agent's start, and from the recording's.
                inner_s = offset_s if own >= at_s > 0 else offset_s + at_s
                self.read(inner, name, inner_s, tuple(mine[-1:]), nested + 1)
                unjoined += range(first, len(self.found))
                continue
            request = self._request(entry, agent, offset_s, where)
            if not self.lays_out:
                self.found.append(request)
                continue
            ended = [n for n in unjoined if self.found[n].end_s <= request.begins_s + _ROUNDING_S]
            if ended:
                unjoined = [n for n in unjoined if n not in ended]
                waits = tuple(_last_only(ended, self.found))
            request.after = waits
            start_s = self.found[0].begins_s if self.found else request.begins_s
            latest_s = max((self.found[n].end_s for n in waits), default=start_s)
            request.think_s = max(0.0, request.begins_s - latest_s)
            if request.pause_s is not None and set(waits) <= set(mine[-1:]):
                request.think_s = request.pause_s
            known = [*(n for n in mine[-1:] if n in ended), *waits]
            going_on = [n for n in known if self._goes_on(n, request)]
            request.continues = max(going_on, key=lambda n: self._common(n, request), default=None)
            unjoined.append(len(self.found))
            mine.append(len(self.found))
            self.found.append(request)

    def _request(self, entry: Record, agent: str, offset_s: float, where: str) -> _Request:
        try:
            tokens_in = tokens_of(entry, "in", "input_tokens")
            tokens_out = tokens_of(entry, "out", "output_tokens")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if tokens_in is None or tokens_in < 1 or (tokens_out or 0) < 0:
            raise ValueError(
                f"{where} has {tokens_in} tokens in and {tokens_out} out; there must be one in at least"
            )
        ids = entry.get("hash_ids") or []
        if not isinstance(ids, list) or not set(map(type, ids)) <= _ID_TYPES:
            raise ValueError(f"{where}: 'hash_ids' must be a list of numbers")
        at_s = _number(entry, "t", where)
        if at_s is None:
            raise ValueError(f"{where} has no 't'; write its seconds from the start")
        api_s, pause_s = _number(entry, "api_time", where), _number(entry, "think_time", where)
        return _Request(offset_s + at_s, api_s, tokens_in, tokens_out or 0, ids, agent, pause_s)

    def _goes_on(self, before: int, request: _Request) -> bool:
        """Whether a request's blocks begin with those of an earlier one. Its last may not have been full."""
        ids = self.found[before].ids
        grown = request.tokens_in >= self.found[before].tokens_in
        return bool(ids) and grown and self._common(before, request) >= max(1, len(ids) - 1)

    def _common(self, before: int, request: _Request) -> int:
        """How many blocks both begin with."""
        pairs = zip(self.found[before].ids, request.ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _last_only(ended: list[int], found: Sequence[_Request]) -> list[int]:
    """Without those that another of them has waited for."""
    waited = {n for each in ended for n in found[each].after}
    return [n for n in ended if n not in waited]


def _first_t(entries: list[Any]) -> float:
    first = entries[0].get("t") if entries and isinstance(entries[0], dict) else None
    return float(first) if isinstance(first, int | float) else 0.0


def _number(entry: Record, key: str, where: str) -> float | None:
    """Raises ValueError."""
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{where} has {key} {shown(value)}; write seconds from 0 on")
    return float(value)


def _block_tokens_of(record: Record) -> int:
    """Raises ValueError."""
    tokens = tokens_of(record, "block_size")
    if tokens is not None and tokens < 1:
        raise ValueError(f"a block_size of {tokens} tokens; write 1 at least, or drop it")
    return tokens or _BLOCK_TOKENS


def _requests_of(record: Record, lays_out: bool = True) -> list[_Request]:
    """Raises ValueError."""
    entries = record.get("requests")
    if not isinstance(entries, list):
        raise ValueError(f"'requests' is {what_it_is(entries)}; write a list")
    reader = _Reader(lays_out)
    reader.read(entries, "main", 0.0, (), 0)
    return reader.found
