"""From a finished exchange to its record."""

from __future__ import annotations

import pytest

from loadgen._messages import Job
from loadgen.dialects import DIALECTS
from loadgen.engine._record import AttemptId, record_of
from loadgen.options._settings import Settings
from loadgen.transport._exchange import Exchange
from turnbench.answers import AnswerKey
from turnbench.credentials import Secrets
from turnbench.outcomes import Outcome

JOB = Job(
    run="r",
    worker=0,
    workers=1,
    settings=Settings(host="http://127.0.0.1:8000"),
    scenario="",
    salt="",
    model="m",
    usage_in_events=False,
)


def test_an_arrival_before_the_request_was_sent_is_recorded_as_it_is_and_never_clipped() -> None:
    exchange = Exchange(DIALECTS["chat"])
    exchange.log.add(b"HTTP/1.1 200 OK\r\n\r\n", 5_000, 0)
    exchange.log.add(b"data", 6_500_000, 0)
    exchange.log.sent_ns, exchange.status = 40_000, 200
    exchange.reply.events = exchange.reply.event_reads = [0, 1]
    exchange.reply.event_tokens = [1, 1]
    record = record_of(JOB, AttemptId(0, 1, 1, "chat", 0), exchange, 7_000_000, Secrets())
    assert (record.head_ns, record.sent_ns, record.sent_clock) == (5_000, 40_000, "bound")
    assert record.event_us == [-35, 6_460]


@pytest.mark.parametrize(
    ("outcome", "said", "answered", "right"),
    [
        ("ok", ["The answer is", " b."], "b", True),
        ("ok", ["c"], "c", False),
        ("ok", ["No idea"], None, False),
        ("truncated", ["b"], None, None),
        ("http_5xx", [], None, None),
    ],
)
def test_an_answer_with_a_key_is_scored_though_its_text_is_not_kept(
    outcome: Outcome, said: list[str], answered: str | None, right: bool | None
) -> None:
    exchange = Exchange(DIALECTS["chat"])
    exchange.outcome, exchange.status = outcome, 200
    exchange.reply.answer = said
    key = AnswerKey(letter="b", choices={"a": "one", "b": "two", "c": "three"})
    record = record_of(JOB, AttemptId(0, 1, 1, "choose", 0, key=key), exchange, 1, Secrets())
    assert (record.expected, record.answered, record.right, record.text) == ("b", answered, right, None)


def test_a_turn_without_a_key_is_not_scored() -> None:
    exchange = Exchange(DIALECTS["chat"])
    exchange.outcome, exchange.reply.answer = "ok", ["b"]
    record = record_of(JOB, AttemptId(0, 1, 1, "chat", 0), exchange, 1, Secrets())
    assert (record.expected, record.answered, record.right) == (None, None, None)
