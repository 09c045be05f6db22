"""Text that others wrote, made safe to keep and to show: control characters out, secrets out.

Whatever a server says passes through here before it reaches a screen or a disk.
"""

from __future__ import annotations

import re
from typing import Any

ERROR_CHARS = 500
"""The most that is kept of an error's text."""
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")  # and spaces, of which one is enough
_SHORTEST_START = 2


def clean(raw: bytes) -> str:
    """Server text as one line without control characters, at most ERROR_CHARS long."""
    return _CONTROL.sub(" ", raw.decode("utf-8", "replace")).strip()[:ERROR_CHARS]


def printable(text: object) -> str:
    """Text from a server or a file for a screen or a page: a control character, which could steer a
    terminal, becomes �; new lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def scrubbed(text: str, secrets: list[str]) -> str:
    """The text with `***` for each secret, also for the start of one at its end: it was cut off there."""
    for secret in secrets:
        text = text.replace(secret, "***")
    for secret in secrets:
        text = _without_start(text, secret)
    return text


def scrubbed_all(value: Any, secrets: list[str]) -> Any:
    """A JSON value with no secret in any of its texts and names."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {scrubbed_all(k, secrets): scrubbed_all(v, secrets) for k, v in value.items()}
    return [scrubbed_all(item, secrets) for item in value] if isinstance(value, list) else value


def _without_start(text: str, secret: str) -> str:
    for length in range(len(secret) - 1, _SHORTEST_START, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + "***"
    return text
