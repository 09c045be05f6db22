"""Single events, bent: other line ends, other grammar, other contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from serve.emulator.fault_file import Fault

BOM = b"\xef\xbb\xbf"


def event(data: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def parsed(each: bytes) -> dict[str, Any] | None:
    """What an event carries; None for the end mark."""
    text = each.removeprefix(b"data: ").strip()
    return None if text == b"[DONE]" else dict(json.loads(text))


def content_of(each: bytes) -> str:
    """The text of an event, or nothing."""
    data = parsed(each)
    if not data or not data.get("choices"):
        return ""
    choice = data["choices"][0]
    return str(choice.get("text") or choice.get("delta", {}).get("content") or "")


def _comments(_fault: Fault, each: bytes, _first: bool) -> bytes:
    return b": still here\n\n:\n" + each


def _event_lines(_fault: Fault, each: bytes, _first: bool) -> bytes:
    return b"event: message\nid: 7\nretry: 1000\nnonsense\n" + each


def _multi_line(_fault: Fault, each: bytes, _first: bool) -> bytes:
    data = parsed(each)
    if data is None:
        return each
    lines = json.dumps(data, indent=1).encode().split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


def _empty(_fault: Fault, each: bytes, _first: bool) -> bytes:
    data = parsed(each)
    if not data or not content_of(each):
        return each
    choice = data["choices"][0]
    if choice["finish_reason"] is None:
        return b""
    choice.update({"text": ""} if "text" in choice else {"delta": {"content": ""}})
    return event(data)


def _reasoning_only(fault: Fault, each: bytes, _first: bool) -> bytes:
    data = parsed(each)
    if not data or not content_of(each) or "delta" not in data["choices"][0]:
        return each
    delta = data["choices"][0]["delta"]
    delta[fault.key] = delta.pop("content")
    return event(data)


def _usage_absent(_fault: Fault, each: bytes, _first: bool) -> bytes:
    data = parsed(each)
    if data is None or "usage" not in data:
        return each
    del data["usage"]
    return event(data) if data["choices"] else b""


def _usage_wrong(fault: Fault, each: bytes, _first: bool) -> bytes:
    data = parsed(each)
    if data is None or "usage" not in data or data["choices"]:
        return each
    data["usage"]["completion_tokens"] += fault.by
    data["usage"]["total_tokens"] += fault.by
    return event(data)


Edit = Callable[[Fault, bytes, bool], bytes]
EDITS: dict[str, Edit] = {
    "crlf": lambda _fault, each, _first: each.replace(b"\n", b"\r\n"),
    "cr": lambda _fault, each, _first: each.replace(b"\n", b"\r"),
    "bom": lambda _fault, each, first: BOM + each if first else each,
    "comments": _comments,
    "event_lines": _event_lines,
    "multi_line": _multi_line,
    "empty": _empty,
    "reasoning_only": _reasoning_only,
    "usage_absent": _usage_absent,
    "usage_wrong": _usage_wrong,
}
"""What becomes of an event, by the kind of fault; an empty result leaves it out."""
