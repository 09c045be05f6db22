"""The file of faults: what goes wrong, and in which requests. Read strictly, all mistakes told at once.

    format: turnbench-faults/1
    seed: 7                  # of the rates (default 0)
    close_idle: 5s           # close connections that were idle this long
    faults:                  # the first that applies to a request happens
      - {fault: reset, requests: [3, 10-12], after_events: 5}
      - {fault: status, status: 429, retry_after_s: 2, rate: 0.05}
      - {fault: freeze, every: 50, for: 2s}

Requests are numbered from 1 in the order in which they come; only completions count. `FIELDS` has every fault
and the settings that it takes.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve._strictyaml import Place, read_strict_yaml
from serve.emulator.options import time_ns

FORMAT = "turnbench-faults/1"
MOST_BYTES = 256 * 2**20

FIELDS: dict[str, tuple[str, ...]] = {
    # instead of an answer
    "status": ("status", "retry_after_s", "body_bytes"),
    "html": (),
    "redirect": ("status", "location"),
    "die": (),
    # the stream breaks off; after_events 0: before the first byte of the head
    "reset": ("after_events",),
    "eof": ("after_events", "end"),
    "hang": ("after_events",),
    "freeze": ("for",),
    "drip": ("after_events", "bytes", "gap"),
    "endless": ("gap",),
    # the grammar of the stream
    "crlf": (),
    "cr": (),
    "bom": (),
    "comments": (),
    "event_lines": (),
    "multi_line": (),
    "split": ("bytes", "gap"),
    "coalesce": ("events",),
    "gzip": (),
    # what the events say
    "bad_json": ("after_events",),
    "error_event": ("after_events",),
    "oversized": ("after_events", "bytes"),
    "empty": (),
    "reasoning_only": ("key",),
    "usage_absent": (),
    "usage_wrong": ("by",),
}
WHEN = ("requests", "every", "rate")


class BadFaults(Exception):
    """The file can't be used; the text is one line for each mistake, `file:line: what`."""


@dataclass(frozen=True)
class Fault:
    """One fault with its settings; what a kind has no use for keeps its default."""

    kind: str
    status: int = 503
    retry_after_s: int | None = None
    body_bytes: int = 0
    location: str = "https://example.com/v1/chat/completions"
    after_events: int = 3
    end: str = "chunk"
    """`chunk`: the body ends as it should, only too early; `connection`: the connection is closed in it."""
    for_ns: int = 1_000_000_000
    bytes: int = 0
    gap_ns: int = 0
    events: int = 8
    key: str = "reasoning"
    by: int = 5


@dataclass(frozen=True)
class Rule:
    """When a fault happens: request numbers (first, last), every so many, or this share of them."""

    fault: Fault
    requests: tuple[tuple[int, int], ...] = ()
    every: int = 0
    rate: float = 0.0

    def applies(self, number: int, chance: float) -> bool:
        if any(first <= number <= last for first, last in self.requests):
            return True
        return bool(self.every and number % self.every == 0) or chance < self.rate


@dataclass(frozen=True)
class FaultPlan:
    """All that shall go wrong; the same file gives the same faults for the same request numbers."""

    rules: tuple[Rule, ...] = ()
    close_idle_ns: int | None = None
    seed: int = 0

    def fault(self, number: int) -> Fault | None:
        """What happens to this request, if anything."""
        for index, rule in enumerate(self.rules):
            digest = hashlib.blake2b(f"{self.seed} {index} {number}".encode(), digest_size=6).digest()
            if rule.applies(number, int.from_bytes(digest, "big") / 2**48):
                return rule.fault
        return None


def read_faults(path: Path) -> FaultPlan:
    """The checked plan; raises BadFaults with every mistake."""
    data, lines, errors = read_strict_yaml(path)
    reader = _Reader(path, lines, errors)
    plan = reader.plan(data) if data is not None or not errors else FaultPlan()
    if reader.errors:
        raise BadFaults("\n".join(reader.errors))
    return plan


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= 1:
        raise ValueError("must be a share, more than 0 and at most 1")
    return float(value)


def _one_of(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(f"must be {' or '.join(known)}")
        return str(value)

    return read


def _time(value: Any) -> int:
    if type(value) in (str, int, float):
        try:
            return time_ns(str(value))
        except argparse.ArgumentTypeError:
            pass
    raise ValueError("must be a time such as 100ms or 2s")


def _address(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,2000}", value):
        raise ValueError("must be an address without spaces")
    return value


def _numbers(value: Any) -> tuple[tuple[int, int], ...]:
    """Request numbers: 3, 10-12, or a list of these."""
    spans = []
    for each in value if isinstance(value, list) else [value]:
        match = re.fullmatch(r"([1-9]\d{0,11})(?:-([1-9]\d{0,11}))?", str(each))
        if match is None or type(each) not in (int, str) or int(match[2] or match[1]) < int(match[1]):
            raise ValueError("must be request numbers from 1 on: 3, 10-12, or a list of these")
        spans.append((int(match[1]), int(match[2] or match[1])))
    if not spans:
        raise ValueError("names no request")
    return tuple(spans)


_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "requests": ("requests", _numbers),
    "every": ("every", _whole(1, 10**12)),
    "rate": ("rate", _share),
    "status": ("status", _whole(300, 599)),
    "retry_after_s": ("retry_after_s", _whole(0, 10**6)),
    "body_bytes": ("body_bytes", _whole(0, MOST_BYTES)),
    "location": ("location", _address),
    "after_events": ("after_events", _whole(0, 10**9)),
    "end": ("end", _one_of("chunk", "connection")),
    "for": ("for_ns", _time),
    "bytes": ("bytes", _whole(1, MOST_BYTES)),
    "gap": ("gap_ns", _time),
    "events": ("events", _whole(2, 10**6)),
    "key": ("key", _one_of("reasoning", "reasoning_content")),
    "by": ("by", _whole(-(10**6), 10**6)),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "redirect": {"status": 307},
    "drip": {"gap_ns": 1_000_000_000},
    "endless": {"gap_ns": 1_000_000},
    "split": {"bytes": 1, "gap_ns": 1_000_000},
    "oversized": {"bytes": 2 * 2**20},
}


@dataclass
class _Reader:
    path: Path
    lines: dict[Place, int]
    errors: list[str] = field(default_factory=list)

    def wrong(self, place: Place, what: str) -> None:
        line = next(
            (self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1
        )
        self.errors.append(f"{self.path}:{line}: {what}")

    def plan(self, data: Any) -> FaultPlan:
        if not isinstance(data, dict):
            self.wrong((), f"must begin with `format: {FORMAT}`")
            return FaultPlan()
        self._known(data, ("format", "seed", "close_idle", "faults"), ())
        if data.get("format") != FORMAT:
            self.wrong(("format",), f"format must be {FORMAT}")
        idle = self._value(data, "close_idle", _time, None)
        seed = self._value(data, "seed", _whole(0, 2**63), 0)
        entries = data.get("faults", [])
        if not isinstance(entries, list):
            self.wrong(("faults",), "faults must be a list")
            entries = []
        rules = [self._rule(entry, ("faults", index)) for index, entry in enumerate(entries)]
        return FaultPlan(tuple(rule for rule in rules if rule), idle, seed)

    def _value(self, data: dict[str, Any], key: str, read: Callable[[Any], Any], default: Any) -> Any:
        if key not in data:
            return default
        try:
            return read(data[key])
        except ValueError as error:
            self.wrong((key,), f"{key} {error}")
            return default

    def _rule(self, entry: Any, place: Place) -> Rule | None:
        kind = entry.get("fault") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or kind not in FIELDS:
            near = difflib.get_close_matches(str(kind), FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(FIELDS)}"
            self.wrong((*place, "fault"), f"unknown fault {str(kind)[:40]!r}: {hint}")
            return None
        self._known(entry, ("fault", *WHEN, *FIELDS[kind]), place)
        if sum(key in entry for key in WHEN) != 1:
            self.wrong(place, f"{kind}: say when, by one of {', '.join(WHEN)}")
        settings = dict(_DEFAULTS.get(kind, {}))
        for key, value in entry.items():
            if key in _READERS:
                name, read = _READERS[key]
                try:
                    settings[name] = read(value)
                except ValueError as error:
                    self.wrong((*place, key), f"{kind}: {key} {error}")
        when = {key: settings.pop(key) for key in WHEN if key in settings}
        return Rule(replace(Fault(kind), **{k: v for k, v in settings.items() if k in _NAMES}), **when)

    def _known(self, data: dict[str, Any], known: tuple[str, ...], place: Place) -> None:
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                self.wrong((*place, key), f"unknown key {key!r}: {hint}")


_NAMES = frozenset(Fault.__dataclass_fields__)
