"""Times and shares as people type and read them.

TIME is a number with ms, s, m or h, several of them in a row, or a bare number of seconds.
"""

from __future__ import annotations

import re

_LONGEST_S = 1e9
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Seconds of a TIME such as `250ms`, `90`, `2m`, `1.5h` or `1m30s`; raises ValueError for all else."""
    total, position, unit = 0.0, 0, "s"
    for match in _TIME.finditer(text.strip()):
        if match.start() != position or unit is None:  # only the last number may be bare
            break
        unit = match.group(2)
        total += float(match.group(1)) * _SECONDS[unit]
        position = match.end()
    if position == 0 or position != len(text.strip()):
        raise ValueError(f"{text!r} is not a time; write a number with ms, s, m or h, such as 90s")
    if total > _LONGEST_S:
        raise ValueError(f"{text[:20]!r} is longer than anybody waits; write a time such as 90s")
    return total


def share(text: str) -> float:
    """A share such as `5%` or `0.05`, from 0.1 % to 50 %; raises ValueError for all else."""
    typed = text.strip()
    try:
        value = float(typed.removesuffix("%")) / (100 if typed.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 0.5:
        raise ValueError(f"{text[:20]!r} is not a share from 0.1% to 50%, such as 5%")
    return value


def duration(seconds_passed: float) -> str:
    """Seconds as a person says them: 45 s, 5 min 10 s, 2 h 5 min."""
    whole = round(seconds_passed)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
