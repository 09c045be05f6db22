"""Server-sent events, decoded from a whole body after the stream has ended.

Follows the HTML standard's event stream grammar: CRLF, LF or CR line ends, comments, a byte order mark,
`data:` over several lines, other fields ignored, and an event that its blank line never closed discarded.
"""

from __future__ import annotations

import re
from itertools import accumulate

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")


def events(body: bytes) -> list[tuple[bytes, int]]:
    """(data, body offset just after the event) of each event that has data, in order."""
    found = None if b"\r" in body else _plain(body)
    return _by_line(body, len(_BOM) if body.startswith(_BOM) else 0) if found is None else found


def _plain(body: bytes) -> list[tuple[bytes, int]] | None:
    """The common case, LF only and one `data: ` line an event, in a few calls; None where it is not that."""
    whole = body[: body.rfind(b"\n\n") + 2]  # what follows the last blank line is unfinished
    datas = whole[6:-2].split(b"\n\ndata: ")
    if not whole.startswith(b"data: ") or whole.count(b"\n") != 2 * len(datas):
        return None
    return list(zip(datas, accumulate(len(data) + 8 for data in datas), strict=True))


def _by_line(body: bytes, position: int) -> list[tuple[bytes, int]]:
    found: list[tuple[bytes, int]] = []
    data: list[bytes] = []
    while match := _LINE.match(body, position):
        position = match.end()
        line = match.group(1)
        if not line:
            if data:
                found.append((b"\n".join(data), position))
            data = []
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            data.append(value[1:] if value.startswith(b" ") else value)
    return found
