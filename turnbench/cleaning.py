"""Text that others wrote, made safe to keep and to show: one line, no control characters, not too long.

Whatever a server says passes through here, and through `turnbench.credentials`, before it reaches a screen or
a disk.
"""

from __future__ import annotations

import re

ERROR_CHARS = 500
"""The most that is kept of an error's text."""
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")  # and spaces, of which one is enough


def clean(raw: bytes) -> str:
    """Server text as one line without control characters, at most ERROR_CHARS long."""
    return _CONTROL.sub(" ", raw.decode("utf-8", "replace")).strip()[:ERROR_CHARS]


def printable(text: object) -> str:
    """Text from a server or a file for a screen or a page: a control character, which could steer a
    terminal, becomes �; new lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
