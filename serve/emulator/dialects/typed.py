"""What the streams of responses and messages have in common: each event's type stands before its data.

Shapes are those of the two APIs' official clients, as vLLM serves them. `tests/conformance` asks with both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.answers import Answer
from serve.emulator.dialects.chat import ChatMessage
from serve.emulator.dialects.choices import framed
from serve.emulator.request import EmulatedModel, GenerationRequest

_MARK = "\x00piece\x00"
_PLACE = 2**53 - 1
"""Stands for a number that each event has of its own."""
_encode = msgspec.json.encode
END = b"0\r\n\r\n"


def typed_event(kind: str, **fields: Any) -> bytes:
    """One event of a stream."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


class DeltaTemplate:
    """Makes events that differ in a piece of text, and perhaps in one number, without encoding each."""

    def __init__(self, kind: str, **fields: Any) -> None:
        """`TEXT` and `NUMBER` below stand in `fields` for what differs."""
        whole = typed_event(kind, **fields).replace(str(_PLACE).encode(), b"%d")
        self._numbered = b"%d" in whole
        mark = _encode(_MARK)[1:-1]
        self._parts = whole.split(mark) if not self._numbered else [whole.replace(mark, b"%b")]
        self._text_first = whole.index(mark) < whole.find(b"%d") if self._numbered else True

    def framed(self, text: str, number: int) -> bytes:
        """The event with this text, in a chunk of its own. No text here needs escaping in JSON."""
        piece = text.encode()
        if not self._numbered:
            return framed(piece.join(self._parts))
        pair = (piece, number) if self._text_first else (number, piece)
        return framed(self._parts[0] % pair)


TEXT, NUMBER = _MARK, _PLACE


class TypedEvents:
    """Makes the events of one reply."""

    def __init__(self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int) -> None:
        self._request = request
        self._answer = answer
        self._model = model
        self._number = number

    @property
    def _text(self) -> str:
        return "".join(self._answer.pieces)


def text_of_content(content: Any) -> str:
    """The text of a message's content, in one piece or in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") or part.get("content") or "" for part in parts if isinstance(part, dict))
    return "".join(text if isinstance(text, str) else text_of_content(text) for text in texts)


def conversation_of(system: str, messages: list[ChatMessage]) -> list[ChatMessage]:
    """The messages with the system's text before them."""
    return [ChatMessage("system", system), *messages] if system else messages
