"""From a finished exchange to its record."""

from __future__ import annotations

from loadgen._messages import Job
from loadgen.dialects import DIALECTS
from loadgen.engine._record import AttemptId, record_of
from loadgen.options._settings import Settings
from loadgen.transport._exchange import Exchange
from turnbench.credentials import Secrets

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
