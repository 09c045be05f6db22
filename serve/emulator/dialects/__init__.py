"""The dialects in which the emulator can be asked to generate text: one module each, listed here.

A dialect is a path, how a request's body is read and checked, and the events of its replies. To add one,
write a module beside `chat.py` with a class like `ChatDialect` and put an instance of it into DIALECTS.
"""

from __future__ import annotations

from typing import Any, Protocol

from serve.emulator.answers import Answer
from serve.emulator.dialects.chat import ChatDialect
from serve.emulator.dialects.completions import CompletionsDialect
from serve.emulator.dialects.messages import MessagesDialect
from serve.emulator.dialects.responses import ResponsesDialect
from serve.emulator.request import EmulatedModel, GenerationRequest


class ReplyEvents(Protocol):
    """Makes the bytes of one reply. A streamed event stands in an HTTP chunk of its own."""

    def opening(self) -> bytes:
        """What a stream begins with before its first token; may be empty."""
        ...

    def contents(self, pieces: list[str], number: int) -> list[bytes]:
        """One event for each of these tokens in the middle of the answer, the first with this number."""
        ...

    def last(self, piece: str, tokens: int) -> bytes:
        """The event of the last token, with the finish reason and the last piece of text or none."""
        ...

    def tail(self, cached_tokens: int | None) -> bytes:
        """All that follows the last token, with the end of the body."""
        ...

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        ...


class EmulatedDialect(Protocol):
    """How one API asks for text and gets it. `event` is always a parsed event of this dialect."""

    path: str
    """Where requests are sent, from the server's root."""

    def read(self, body: bytes, model: EmulatedModel) -> GenerationRequest:
        """The request in this body; raises RequestRefused."""
        ...

    def events(
        self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int
    ) -> ReplyEvents:
        """The events of the reply with this number, counted from 1."""
        ...

    # What faults need to know of a dialect to bend it.

    def text_of(self, event: Any) -> str:
        """The generated text that an event carries; empty if none."""
        ...

    def text_event(self, text: str) -> Any:
        """An event with this text that no model made."""
        ...

    def error_event(self, error: dict[str, Any]) -> Any:
        """An event that reports this error, given with message, type and code."""
        ...

    def without_text(self, event: Any) -> Any | None:
        """The event with its text taken out, or None if nothing is left of it."""
        ...

    def as_reasoning(self, event: Any, key: str) -> Any:
        """The event with its text under a key of reasoning; the same where the dialect has no such thing."""
        ...

    def counts_of(self, event: Any) -> tuple[dict[str, Any], str] | None:
        """The counts of the whole answer in an event, and the name of that of its output; None without."""
        ...

    def is_end(self, event: Any) -> bool:
        """Whether the stream is over with this event, where the dialect has no end mark."""
        ...


DIALECTS: list[EmulatedDialect] = [
    ChatDialect(),
    CompletionsDialect(),
    ResponsesDialect(),
    MessagesDialect(),
]
