"""A dialect is one class: here is a toy one, and a conversation in it through the engine as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadgen.dialects import DIALECTS, Prompt, Refused, StreamedReply, TurnRequest
from scenarios import Conversation


class Telegraph:
    """Asks with one text at /telegraph; each event is `+` and a word, the last one `STOP` with a count."""

    path = "/telegraph"
    required = ("to", "text")
    carries = ()
    substitutes: dict[str, str] = {}  # noqa: RUF012
    ahead = None

    def headers(self, key: str) -> dict[str, str]:
        return {"X-Operator": key or "nobody"}

    def prompt(
        self,
        conversation: Conversation,
        replies: Sequence[str],
        *,
        salt: str,
        level: int,
        turns_dropped: int,
        system_role: bool,
    ) -> Prompt:
        said = [turn.user for turn in conversation.turns[: len(replies) + 1]]
        text = " / ".join(word for pair in zip(said, [*replies, ""], strict=True) for word in pair if word)
        return Prompt(text, len(text), len(said))

    def body(self, request: TurnRequest) -> dict[str, Any]:
        return {"to": request.model, "text": request.prompt.content, "words": request.max_tokens}

    def read(self, events: list[bytes]) -> StreamedReply:
        reply = StreamedReply()
        done = False
        for place, data in enumerate(events):
            word = data.decode("utf-8", "replace")
            if word.startswith("STOP"):
                done, reply.completion_tokens = True, int(word[5:])
                reply.finish_reason = "stop"
            else:
                reply.add(place, word.removeprefix("+"), "", None)
        reply.end(done, None)
        return reply

    def is_complete(self, tail: bytes) -> bool:
        return b"data: STOP" in tail

    def refusal(self, status: int, text: str) -> Refused | None:
        return "context_full" if status == 413 else None


@pytest.fixture(autouse=True)
def telegraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIALECTS, "telegraph", Telegraph())


async def test_a_conversation_is_played_in_a_dialect_that_nothing_else_knows(play: Any) -> None:
    async def script(peer: Any) -> None:
        for word in ("HELLO", "BYE"):
            await peer.request()
            await peer.head()
            for data in ("+" + word, "+ AGAIN", "STOP 3"):
                await peer.chunk(peer.event(data))
            await peer.finish(b"")

    played = await play(script, dialect="telegraph", turns=2, keep_text=True)
    assert [(r.outcome, r.text, r.output_tokens, r.words) for r in played.records] == [
        ("ok", "HELLO AGAIN", 3, 2),
        ("ok", "BYE AGAIN", 3, 2),
    ]
    assert all(len(record.event_us) == 2 for record in played.records)
    first, second = played.server.requests
    assert first.startswith(b"POST /v1/telegraph ")
    assert b"X-Operator: nobody\r\n" in first
    assert json.loads(first.partition(b"\r\n\r\n")[2]) == {"to": "m", "text": "Hello", "words": 16}
    assert json.loads(second.partition(b"\r\n\r\n")[2])["text"] == "Hello / HELLO AGAIN / And then?"


async def test_a_reply_that_the_dialect_calls_complete_does_not_wait_for_its_framing(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.event("+HI") + peer.event("STOP 1"))
        await peer.until_closed()

    record = (await play(script, dialect="telegraph", idle_timeout_s=5.0)).record
    assert (record.outcome, record.output_tokens) == ("ok", 1)


async def test_what_a_refusal_means_is_the_dialects(play: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("413 Too Long", "Content-Length: 0")

    assert (await play(script, dialect="telegraph")).record.outcome == "context_full"


@pytest.mark.parametrize("folder", ["engine", "transport"])
def test_engine_and_transport_hold_no_word_of_a_dialect(folder: str) -> None:
    words = ("[DONE]", "/completions", "choices", "delta", '"role"', '"messages"')
    for path in (Path(__file__).parents[2] / "loadgen" / folder).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert [word for word in words if word in text] == [], path
