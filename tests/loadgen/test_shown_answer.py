"""The answer that is shown to people who look on: one conversation's, as far as it came, without secrets."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from loadgen._messages import AnswerShown
from loadgen.dialects import DIALECTS
from loadgen.engine._run import OpenTurn
from loadgen.engine._shown_answer import ShownAnswer
from loadgen.transport._exchange import Exchange
from loadgen.transport._work import WorkScheduler
from turnbench.credentials import Secrets

KEY = "sk-live-0123456789abcdef"


class Looked:
    """A run with some turns under way, and what it has said of them."""

    def __init__(self) -> None:
        self.open: list[OpenTurn] = []
        self.said: list[Any] = []
        run: Any = SimpleNamespace(
            open=self.open, scheduler=WorkScheduler(), secrets=Secrets([KEY]), emit=self.said.append
        )
        self.shown = ShownAnswer(run)

    def turn(self, conversation: int, begun_ns: int, *texts: str, rest: bytes = b"") -> OpenTurn:
        person: Any = None
        exchange = Exchange(DIALECTS["chat"], status=200)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        events = [json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) for text in texts]
        body = "".join(f"data: {event}\n\n" for event in events).encode()
        exchange.log.add(head + body + rest, 1, 0)
        turn = OpenTurn(person, begun_ns, ("chat", conversation, 2), exchange=exchange)
        self.open.append(turn)
        return turn

    async def look(self) -> AnswerShown | None:
        before = len(self.said)
        await self.shown.show()
        return self.said[-1] if len(self.said) > before else None


async def test_a_stream_that_still_runs_shows_the_words_that_have_come() -> None:
    looked = Looked()
    assert await looked.look() is None
    looked.turn(7, 10, "Hello", " wor", rest=b'data: {"choices": [{"ind')
    assert await looked.look() == AnswerShown("chat", 7, 2, "Hello wor")


async def test_one_conversation_is_followed_while_it_lasts_and_then_the_oldest_other() -> None:
    looked = Looked()
    followed = looked.turn(7, 10, "a")
    assert (await looked.look()).conversation == 7  # type: ignore[union-attr]
    looked.turn(8, 5, "older")
    looked.turn(9, 6, "b")
    assert (await looked.look()).conversation == 7  # type: ignore[union-attr]
    looked.open.remove(followed)
    assert (await looked.look()).conversation == 8  # type: ignore[union-attr]


async def test_a_key_that_a_server_repeats_is_not_shown_nor_the_start_of_one_nor_an_escape() -> None:
    looked = Looked()
    looked.turn(1, 1, f"it is {KEY[:9]}", f"{KEY[9:]} \x1b[2J", f" and {KEY[:12]}")
    shown = await looked.look()
    assert shown is not None
    assert shown.text == "it is *** \ufffd[2J and ***"


async def test_of_a_long_answer_the_end_is_shown_and_no_key_across_its_start() -> None:
    for before in range(1400, 1560, 7):
        looked = Looked()
        looked.turn(1, 1, KEY, "x" * before)
        shown = await looked.look()
        assert shown is not None
        assert len(shown.text) <= 1500
        assert KEY[-8:] not in shown.text


async def test_a_turn_that_waits_for_its_response_shows_nothing_yet() -> None:
    looked = Looked()
    turn = looked.turn(1, 1)
    assert turn.exchange is not None
    turn.exchange.status = None
    assert await looked.look() == AnswerShown("chat", 1, 2, "")
