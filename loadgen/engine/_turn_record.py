"""From a finished exchange to its TurnRecord."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from loadgen._settings import Job
from loadgen.transport._exchange import Exchange
from loadgen.transport._read_log import ReadLog
from turnbench.cleaning import scrubbed, scrubbed_all
from turnbench.clock import KERNEL_STAMPS
from turnbench.formats import TurnRecord


@dataclass(frozen=True, slots=True)
class AttemptId:
    """Which attempt at which turn of which conversation."""

    conversation: int
    turn: int
    attempt: int
    task: str
    due_ns: int
    last: bool = False

    def request_id(self, run: str) -> str:
        return f"{run}/{self.conversation}/{self.turn}/{self.attempt}"


def record_of(job: Job, place: AttemptId, exchange: Exchange, end_ns: int, secrets: list[str]) -> TurnRecord:
    """The record of one attempt; secrets are scrubbed from what the server said."""
    log, reply = exchange.log, exchange.reply
    usage, text, sent_ns = reply.usage, reply.text, log.sent_ns
    unsent = _unsent(job, place)
    return structs.replace(
        unsent,
        clock="user" if log.unstamped else unsent.clock,
        sent_ns=sent_ns,
        write_ns=log.write_ns,
        sent_clock=None if sent_ns is None else "tx" if log.sent_by_kernel else "bound",
        head_ns=exchange.head_ns,
        end_ns=log.at_ns[-1] if log.at_ns and exchange.outcome == "ok" else end_ns,
        connect_us=log.connect_ns // 1000 if log.connection is not None else None,
        event_us=_since_us(log, sent_ns or 0, reply.event_reads),
        event_tokens=None if all(n == 1 for n in reply.event_tokens) else reply.event_tokens,
        event_words=reply.event_words,
        answer_event=reply.answer_event,
        lag_us_max=log.lag_ns_max // 1000,
        coalesced=len(reply.event_reads) - len(set(reply.event_reads)),
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=_detail(usage and usage.prompt_tokens_details, "cached_tokens"),
        output_tokens=reply.output_tokens if exchange.status == 200 else None,
        reasoning_tokens=_detail(usage and usage.completion_tokens_details, "reasoning_tokens"),
        token_source=reply.token_source,
        chars=len(text),
        words=sum(reply.event_words),
        finish_reason=reply.finish_reason,
        status=exchange.status,
        outcome=exchange.outcome,
        error=exchange.error and scrubbed(exchange.error, secrets),
        text=scrubbed_all(text, secrets) if job.settings.keep_text else None,
    )


def _since_us(log: ReadLog, sent_ns: int, reads: list[int]) -> list[int]:
    at_ns = log.at_ns
    return [(at_ns[read] - sent_ns) // 1000 for read in reads]


def dropped_record(job: Job, place: AttemptId) -> TurnRecord:
    """The record of a turn that became due and never began."""
    why = "the level ended before this turn could begin"
    return structs.replace(_unsent(job, place), outcome="dropped", error=why)


def _unsent(job: Job, place: AttemptId) -> TurnRecord:
    """What is known of a turn before anything was sent."""
    return TurnRecord(
        run=job.run,
        conversation=place.conversation,
        turn=place.turn,
        last=place.last,
        attempt=place.attempt,
        task=place.task,
        model=job.model,
        worker=job.worker,
        due_ns=place.due_ns,
        clock="kernel" if job.settings.clock == "kernel" and KERNEL_STAMPS else "user",
    )


def _detail(details: object, name: str) -> int | None:
    return getattr(details, name, None)
