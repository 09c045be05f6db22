"""Server-sent events, decoded from a whole body after the stream has ended.

Follows the HTML standard's event stream grammar: CRLF, LF or CR line ends, comments, a byte order mark,
`data:` over several lines, other fields ignored, and an event that its blank line never closed discarded.
"""

from __future__ import annotations

import re

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")


def events(body: bytes) -> list[tuple[bytes, int]]:
    """(data, body offset just after the event) of each event that has data, in order."""
    if b"\r" in body or body.startswith(_BOM):
        return _by_line(body, len(_BOM) if body.startswith(_BOM) else 0)
    return _by_block(body)


def _by_block(body: bytes) -> list[tuple[bytes, int]]:
    """The common case, LF only and one `data: ` line an event, without looking at every line."""
    found: list[tuple[bytes, int]] = []
    blocks = body.split(b"\n\n")
    blocks.pop()  # what follows the last blank line is unfinished
    end = 0
    for block in blocks:
        start, end = end, end + len(block) + 2
        if block.startswith(b"data: ") and b"\n" not in block:
            found.append((block[6:], end))
        else:
            found.extend(_by_line(body[start:end], 0, start))
    return found


def _by_line(body: bytes, position: int, shift: int = 0) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    data: list[bytes] = []
    while match := _LINE.match(body, position):
        position = match.end()
        line = match.group(1)
        if not line:
            if data:
                found.append((b"\n".join(data), position + shift))
            data = []
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            data.append(value[1:] if value.startswith(b" ") else value)
    return found
