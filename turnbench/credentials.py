"""Keys, passwords and tokens: one type that knows them, never shows them, and takes them out of foreign text.

A server repeats what it was sent in many ways: plain, percent-encoded in a Location, escaped in JSON or HTML,
inside the base64 of an Authorization header, in small letters, or cut off in the middle. Whatever a server
says goes through `Secrets` before it reaches a screen or a disk.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import quote

MASK = "***"
_SHORTEST = 4
"""A value of fewer characters is no secret, and hiding it would garble every message."""
_SHORTEST_START = 3
"""So much of the start of a secret, at a text's end, counts as one that was cut off there."""
_SHORTEST_ENCODED_START = 8
"""As before, of an encoded one, whose start may be that of many a word, or in the middle of a text."""
_BASE64 = "[a-z0-9+/_-]"
"""The characters beside an encoded secret hold bits of it as well."""
_SMALL_TEXT = 256


class Secrets:
    """The credentials of one run. Printed, formatted and in a traceback it is `***`."""

    __slots__ = ("_pattern", "_scrub_small", "_signs", "_starts")

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {word for value in values for word in (value, value.rpartition(" ")[2])}
        words = sorted((word for word in found if len(word) >= _SHORTEST), key=len, reverse=True)
        parts = [part for word in words for part in _patterns(word)]
        self._pattern = re.compile("|".join(parts), re.IGNORECASE) if parts else None
        self._starts = [(start.lower(), least) for word in words for start, least in _starts(word)]
        # Without one of these a text has no secret; the pattern takes 1 ms for 1,000 characters.
        self._signs = {start[:_SHORTEST_START] for start, _ in self._starts} | {"%", "\\", "&"}
        self._signs |= {word.encode("utf-8", "surrogateescape").hex()[:_SHORTEST_START] for word in words}
        self._scrub_small = lru_cache(maxsize=1024)(self._scrub)

    def __repr__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return self._pattern is not None

    def scrubbed(self, text: str) -> str:
        """The text with `***` for each secret in any of its forms, also for the start of one at its end."""
        if self._pattern is None or not text:
            return text
        return self._scrub_small(text) if len(text) <= _SMALL_TEXT else self._scrub(text)

    def scrubbed_json(self, value: Any) -> Any:
        """A JSON value with no secret in any of its texts and names."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._replaced(value)
        if isinstance(value, dict):
            return {self.scrubbed_json(key): self.scrubbed_json(each) for key, each in value.items()}
        return [self.scrubbed_json(each) for each in value] if isinstance(value, list | tuple) else value

    def _replaced(self, text: str) -> str:
        small = text.lower()
        if self._pattern is None or not any(sign in small for sign in self._signs):
            return text
        return self._pattern.sub(MASK, text)

    def _scrub(self, text: str) -> str:
        text = self._replaced(text)
        small = text.lower()
        for start, shortest in self._starts:
            for length in range(min(len(start) - 1, len(text)), shortest - 1, -1):
                if small.endswith(start[:length]):
                    return text[:-length] + MASK
        return text


def _patterns(word: str) -> list[str]:
    """Regular expressions of the forms of one secret, and of the start of each that was cut off."""
    found = ["".join(map(_character, word))]
    if len(word) > _SHORTEST_ENCODED_START:
        found.append("".join(map(_character, word[:_SHORTEST_ENCODED_START])) + r"[^\s\"'<>,;]*")
    raw = word.encode("utf-8", "surrogateescape")
    found.append(raw.hex()[: 2 * _SHORTEST_ENCODED_START] + "[0-9a-f]*")
    for core in _base64_cores(raw):
        start = "".join(map(_character, core[:_SHORTEST_ENCODED_START]))
        found.append(f"{_BASE64}{{0,2}}{start}(?:{_BASE64}|%2b|%2f)*(?:=|%3d){{0,2}}")
    return found


@lru_cache(maxsize=512)
def _character(each: str) -> str:
    """One character, as itself or as URLs, JSON and HTML write it."""
    raw = each.encode("utf-8", "surrogateescape")
    forms = [re.escape(each), f"(?:{''.join(f'%{byte:02x}' for byte in raw)})"]
    units = each.encode("utf-16-be", "surrogatepass")
    escapes = "".join(r"\\u" + units[at : at + 2].hex() for at in range(0, len(units), 2))
    forms.append(f"(?:{escapes})")
    forms.append(f"(?:&#0*{ord(each)};|&#x0*{ord(each):x};)")
    if (html := escape(each)) != each:
        forms.append(re.escape(html))
    if each in '"\\/':
        forms.insert(0, re.escape("\\" + each))
    if each == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(forms)})"


def _base64_cores(raw: bytes) -> list[str]:
    """What of the secret's base64 is the same whatever stands before and after it, in both alphabets.

    It depends on where in a group of three bytes the secret begins.
    """
    found: set[str] = set()
    for before in range(3):
        text = b64encode(b"\0" * before + raw).decode().rstrip("=")
        whole = (before + len(raw)) * 8 // 6  # characters of which all bits are known
        core = text[-(-before * 8 // 6) : whole]
        found |= {core, core.replace("+", "-").replace("/", "_")}
    return sorted(found, key=len, reverse=True)


def _starts(word: str) -> list[tuple[str, int]]:
    """Forms of a secret that may be cut off at a text's end, and how much of one is taken for it."""
    encoded = {quote(word, safe=""), quote(word)} - {word}
    encoded |= set(_base64_cores(word.encode("utf-8", "surrogateescape")))
    return [(word, _SHORTEST_START), *((each, _SHORTEST_ENCODED_START) for each in sorted(encoded))]
