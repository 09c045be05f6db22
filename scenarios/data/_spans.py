"""Spans of OpenTelemetry's conventions for generative AI, as requests at the times at which they began.

A row is one span with its attributes as an object, or a whole export of OTLP with the spans inside. Only
spans of a model's answer count: those of agents and tools have others below them and no tokens of their own.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from scenarios._texts import CHARACTERS_PER_TOKEN
from scenarios.data._data_file import DataRow, DataSource, Message, RecordFile, RowTurn, shown, tokens_of
from scenarios.data._messages import SeenInRows, message_of, needs_of, text_of
from scenarios.data._prompts import asked
from scenarios.data._records import Record
from scenarios.data._traces import filler, time_of

_IN = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_NO_ANSWER = (
    "invoke_agent", "create_agent", "execute_tool", "embeddings", "invoke_workflow", "plan", "retrieval",
    "fetch_response",
)  # fmt: skip
"""Operations that hold others of which each has its own span, or that no model answers."""
_PER_S = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Times since 1970 as large as the first are nanoseconds, microseconds, milliseconds; so many are a
second."""
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "start_timestamp")


class GenAiSpans(RecordFile):
    """OpenTelemetry's GenAI spans: `attributes` with gen_ai.usage.input_tokens and output_tokens, a line each
    or as OTLP exports them (`resourceSpans`). Times are those at which spans began, in whatever order they
    stand; the texts are the spans' own where they were recorded, else made to their lengths."""

    kind = "otel"
    sign = "'gen_ai.usage.input_tokens' or 'resourceSpans'"
    timed = True

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        first = source.first
        if "resourceSpans" in first or "resource_spans" in first:
            return True
        return "attributes" in first and any(str(name).startswith("gen_ai.") for name in _attributes(first))

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        self._at_s, self._rows, self._places = array("d"), array("Q"), array("L")
        self._inputs, self._outputs = array("L"), array("q")
        self._kept = 0
        super().__init__(source)
        self._order = sorted(range(len(self._at_s)), key=self._at_s.__getitem__)

    def __len__(self) -> int:
        return len(self._order)

    def _keep(self, record: Record) -> bool:
        found = []
        for place, span in enumerate(_spans_of(record)):
            has = _attributes(span)
            tokens_in, tokens_out = tokens_of(has, *_IN), tokens_of(has, *_OUT)
            if has.get("gen_ai.operation.name") in _NO_ANSWER or (tokens_in is None and not _texts(has)):
                continue
            name = next((name for name in _STARTS if span.get(name) is not None), None)
            if name is None:
                raise ValueError(f"a span without a start; write one of {', '.join(_STARTS[:3])}")
            if tokens_in is None:
                tokens_in = max(1, round(len(_texts(has)) / CHARACTERS_PER_TOKEN))
            if tokens_in < 1 or (tokens_out is not None and tokens_out < 0):
                raise ValueError(f"{tokens_in} tokens in and {tokens_out} out; there must be one in at least")
            at_s = _start_s(span[name], "nano" in name.lower())
            found.append((at_s, place, tokens_in, -1 if tokens_out is None else tokens_out))
        for at_s, place, tokens_in, tokens_out in found:
            self._at_s.append(at_s)
            self._rows.append(self._kept)
            self._places.append(place)
            self._inputs.append(tokens_in)
            self._outputs.append(tokens_out)
        self._kept += bool(found)
        return bool(found)

    def row(self, i: int) -> DataRow:
        n = self._order[i]
        has = _attributes(list(_spans_of(self._index[self._rows[n]]))[self._places[n]])
        tokens = max(1, self._outputs[n]) if self._outputs[n] >= 0 else None
        messages = _messages(has)
        if messages:
            return DataRow([RowTurn(messages, answer_tokens=tokens)])
        length = round(self._inputs[n] * self.characters_per_token)
        turn = asked(filler(length, "row", i), answer_tokens=tokens)
        return DataRow([replace(turn, prompt_tokens=self._inputs[n])])

    def context_tokens(self, i: int) -> int | None:
        n = self._order[i]
        return self._inputs[n] + max(0, self._outputs[n])

    def arrival_s(self, i: int) -> float:
        return self._at_s[self._order[i]] - self._at_s[self._order[0]]


def _spans_of(record: Record) -> Iterator[Record]:
    groups = record.get("resourceSpans") or record.get("resource_spans")
    if not isinstance(groups, list):
        yield record
        return
    for group in _objects(groups):
        for scope in _objects(group.get("scopeSpans") or group.get("scope_spans")):
            yield from _objects(scope.get("spans"))


def _objects(value: Any) -> list[Record]:
    """The objects of a list; whatever else stands there is none of ours."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _attributes(span: Record) -> Record:
    """A span's attributes by name; OTLP lists them with typed values."""
    has = span.get("attributes")
    if isinstance(has, dict):
        return has
    if not isinstance(has, list):
        return {}
    found: Record = {}
    for each in has:
        if isinstance(each, dict) and isinstance(value := each.get("value"), dict) and value:
            kind, inner = next(iter(value.items()))
            if kind == "intValue" and isinstance(inner, str) and inner.isdecimal():
                inner = int(inner)
            found[str(each.get("key"))] = inner
    return found


def _start_s(start: Any, is_ns: bool) -> float:
    """Seconds of a start: a number in nanoseconds, or in the unit that its size tells, or a date."""
    if isinstance(start, str) and start.isdecimal():
        start = int(start)
    if isinstance(start, int | float) and not isinstance(start, bool):
        return start / (1e9 if is_ns else next((per_s for least, per_s in _PER_S if start >= least), 1.0))
    try:
        return time_of(start)
    except ValueError:
        raise ValueError(f"{shown(start)} is no time; write nanoseconds or a date") from None


def _messages(has: Record) -> list[Message]:
    """The messages that a span recorded, where each of them is a text of a known role; else none.
    Instructions that the API takes beside the messages are recorded beside them, too."""
    said = has.get("gen_ai.input.messages") or has.get("gen_ai.prompt")
    system = has.get("gen_ai.system_instructions")
    found: list[Message] = []
    seen = SeenInRows()
    try:
        said = msgspec.json.decode(said) if isinstance(said, str) else said
        if isinstance(system, str) and system.lstrip().startswith("["):
            system = msgspec.json.decode(system)
        if system:
            text = _joined(system) if isinstance(system, list) else system
            found.append(message_of({"role": "system", "content": text}, 0, seen, every_field=False))
        for number, each in enumerate(said if isinstance(said, list) else (), start=1):
            if isinstance(parts := each.get("parts"), list):
                each = {"role": each["role"], "content": _joined(parts)}
            found.append(message_of(each, number, seen, every_field=False))
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError):
        return []  # its length is played
    is_text = not seen.parts and not seen.needs | needs_of(found, [])
    return found if is_text and any(message["role"] == "user" for message in found) else []


def _joined(parts: list[Any]) -> str:
    """The texts of parts. Raises ValueError where one is anything else, such as a call of a tool."""
    if any(part.get("type") != "text" for part in parts):
        raise ValueError("a part is no text")
    return "\n".join(part["content"] for part in parts)


def _texts(has: Record) -> str:
    return "".join(text_of(message) for message in _messages(has))
