"""Server-sent events, decoded from a whole body after the stream has ended.

Follows the HTML standard's event stream grammar: CRLF, LF or CR line ends, comments, a byte order mark,
`data:` over several lines and other fields ignored. What the standard discards is kept apart, because
servers put the reason of a failure there: an event that its blank line never closed, and lines that are no
fields. Where a server leaves the blank lines out, each line that is a whole JSON object is an event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")

MOST_LINES = 1 << 20
"""An answer of 300,000 tokens has fewer, whatever the dialect. 60 KiB of gzip can hold 60 million: a
minute and gigabytes to read."""
_STRAY_BYTES = 1 << 16
_WHOLE = re.compile(rb"\s*(\{.*\}|\[DONE\])\s*")
_FIELDS = (b"event", b"id", b"retry", b"data")


@dataclass(slots=True)
class EventStream:
    """The events of a body, and what it says beside them."""

    events: list[tuple[bytes, int]] = field(default_factory=list)
    """(data, body offset just after the event) of each event that has data, in order."""
    failed: int | None = None
    """The first event that the stream itself calls an error (`event: error`)."""
    unfinished: bytes = b""
    """The data of an event that its blank line has not closed."""
    unclosed_lines: bool = False
    """Whether lines of data that no blank line divides were read as an event each."""
    stray: bytes = b""
    """Lines that are no fields, such as JSON without `data:`; the start of them."""
    cut: bool = False
    """Whether there are more lines than are read."""


def event_stream(body: bytes) -> EventStream:
    """What a body, or the start of one, says."""
    found = EventStream()
    for mark in (b"\n", b"\r"):
        if body.count(mark) > MOST_LINES:
            body, found.cut = body[: -len(body.split(mark, MOST_LINES)[-1])], True
    plain = None if b"\r" in body else _plain(body)
    if plain is None:
        _by_line(found, body, len(_BOM) if body.startswith(_BOM) else 0)
    else:
        found.events = plain
        if len(body) > (end := plain[-1][1]):
            _by_line(found, body, end)
    return found


def _plain(body: bytes) -> list[tuple[bytes, int]] | None:
    """The common case, LF only and one `data: ` line an event, in a few calls; None where it is not that."""
    whole = body[: body.rfind(b"\n\n") + 2]  # what follows the last blank line is unfinished
    datas = whole[6:-2].split(b"\n\ndata: ")
    if not whole.startswith(b"data: ") or whole.count(b"\n") != 2 * len(datas):
        return None
    return list(zip(datas, accumulate(len(data) + 8 for data in datas), strict=True))


def _by_line(found: EventStream, body: bytes, position: int) -> None:
    data: list[tuple[bytes, int]] = []
    name, stray = b"", bytearray()
    while position < len(body):
        match = _LINE.match(body, position)
        line = match.group(1) if match else body[position:]  # the last one may lack its end
        position = match.end() if match else len(body)
        if not line:
            _close(found, data, name, position)
            data, name = [], b""
        elif line.startswith(b"data:") or line == b"data":
            value = line[5:]
            data.append((value[1:] if value.startswith(b" ") else value, position))
        elif line.startswith(b"event:"):
            name = line[6:].strip().lower()
        elif line.startswith(b"error:"):  # llama.cpp's, in place of `data:`
            name = b"error"
            data.append((line[6:].strip(), position))
        elif match is None and any(field.startswith(line) for field in _FIELDS):
            pass  # the connection broke inside a field's name
        elif not line.startswith(b":") and line.partition(b":")[0] not in _FIELDS:
            stray += line[: _STRAY_BYTES - len(stray)] + b"\n"
    found.stray = bytes(stray)
    whole = _whole_lines(data[:-1])
    found.unclosed_lines |= bool(whole)
    found.events += whole
    found.unfinished = b"\n".join(value for value, _ in data[len(whole) :])
    if name == b"error" and found.failed is None:
        found.failed = len(found.events)


def _close(found: EventStream, data: list[tuple[bytes, int]], name: bytes, end: int) -> None:
    """A blank line after these lines of data, each with its end."""
    if name == b"error" and found.failed is None:
        found.failed = len(found.events)
        data = data or [(b"", end)]
    if lines := _whole_lines(data):
        found.unclosed_lines = True
        found.events += lines[:-1]
        data = [(lines[-1][0], end)]
    if data:
        found.events.append((b"\n".join(value for value, _ in data), end))


def _whole_lines(data: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """These lines, if each is an event of its own, which no blank line ends: a line is a whole object, and no
    JSON text has two objects with nothing between them."""
    are_whole = all(_WHOLE.fullmatch(value) for value, _ in data)
    return data if len(data) > 1 and are_whole else []
