"""What the text of one option may be: each function here gives its value or raises a ValueError that says
what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from turnbench.units import seconds

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_PEOPLE = 1_000_000
SLO_KEYS = ("ttft_ms", "response_delay_ms", "ttg_ms", "tpot_ms", "share")


def sound(text: str) -> str:
    """The text; ValueError if it was not UTF-8, which no message or file could carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not valid text; write it in UTF-8") from None
    return text


def levels(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 1,4,16") from None
    if max(found) > _MOST_PEOPLE:
        raise ValueError(f"{max(found)} people are more than {_MOST_PEOPLE}, the most of a level")
    if min(found) < 1:
        raise ValueError(f"{min(found)} people make no load; every level is at least 1")
    return found


class ArrivalRates(NamedTuple):
    """What --arrival-rate says, by the names of Settings."""

    arrival_rate_per_s: float | None = None
    arrival_steps_per_s: list[float] | None = None
    arrival_ramp_to_per_s: float | None = None


def arrival_rates(text: str) -> ArrivalRates:
    """R, a ramp A..B, or steps A,B,C."""
    rate = number(1e-6, 1e5)
    if ".." in text:
        start, _, end = text.partition("..")
        return ArrivalRates(rate(start), None, rate(end))
    steps = [rate(part) for part in text.split(",")]
    return ArrivalRates(steps[0], steps if len(steps) > 1 else None)


def positive_time(text: str) -> float:
    value = seconds(text)
    if value <= 0:
        raise ValueError(f"{text!r} must be longer than zero")
    return value


def think_time(text: str) -> str:
    if text in ("none", "scenario"):
        return text
    if text.startswith("scenario*"):
        factor = number(0, 1e6)(text.partition("*")[2])
        return f"scenario*{factor:g}"
    return f"{seconds(text):g}"


def whole(text: str) -> int:
    if not re.fullmatch(r"\+?[0-9]{1,18}", text):
        raise ValueError(f"{text[:40]!r} is not a whole number from 0 up, of at most 18 digits")
    return int(text)


def positive_int(text: str) -> int:
    if whole(text) == 0:
        raise ValueError(f"{text}: must be at least 1")
    return int(text)


def number(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return convert


def json_object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
        msgspec.msgpack.encode(value)  # as it goes to the engine: no number may be too big for that
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not JSON that can be sent ({error})") from None
    if not isinstance(value, dict):
        raise ValueError('not a JSON object such as {"top_k": 20}')
    return value


def limits(text: str) -> dict[str, float]:
    found = {}
    for part in text.split(","):
        key, separator, value = part.strip().partition("=")
        if not separator or key not in SLO_KEYS:
            raise ValueError(f"{part.strip()!r}: write KEY=LIMIT with KEY one of {', '.join(SLO_KEYS)}")
        found[key] = number(0, 1 if key == "share" else 1e9)(value)
    return found


def clock(text: str) -> str:
    if text not in ("kernel", "user"):
        raise ValueError(f"{text!r} is not a clock; kernel or user")
    return text


def hexadecimal(text: str) -> str:
    if not text or set(text.lower()) - set("0123456789abcdef"):
        raise ValueError(f"{text!r} is not hexadecimal")
    return text.lower()


def variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):  # perhaps the key itself: not shown
        raise ValueError("not the name of an environment variable; the key itself goes into that variable")
    return text


def pairs(given: list[str] | None, separator: str, flag: str, problems: list[str]) -> dict[str, str]:
    """NAME to VALUE; a mistake is told by its number, since what is typed wrong may be a key."""
    found = {}
    for number, text in enumerate(given or [], start=1):
        key, found_separator, value = text.partition(separator)
        if not found_separator or not key.strip():
            problems.append(f"{flag} number {number}: write NAME{separator}VALUE")
            continue
        try:
            found[sound(key.strip())] = sound(value.strip())
        except ValueError:
            problems.append(f"{flag} number {number}: not valid text; write it in UTF-8")
    return found
