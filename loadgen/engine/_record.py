"""From a finished exchange to its TurnRecord."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from loadgen._messages import Job
from loadgen.transport._exchange import Exchange
from loadgen.transport._read_log import ReadLog
from scenarios import Place
from turnbench.answers import AnswerKey, read_answer
from turnbench.clock import KERNEL_STAMPS
from turnbench.credentials import Secrets
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
    """Whether the plan ends the conversation with this turn."""
    max_tokens: int | None = None
    """Tokens of the longest answer that was asked for."""
    asked_prompt_tokens: int | None = None
    """Tokens that the prompt should have, where a trace says."""
    key: AnswerKey | None = None
    """What a right answer says, where that is known."""
    place: Place | None = None
    """In a conversation with branches."""
    depth: int = 1
    """Its place in the line of turns that its prompt holds, from 1."""

    def request_id(self, run: str) -> str:
        """What the request's X-Request-Id says."""
        return f"{run}/{self.conversation}/{self.turn}/{self.attempt}"


def record_of(job: Job, attempt: AttemptId, exchange: Exchange, end_ns: int, secrets: Secrets) -> TurnRecord:
    """The record of one attempt; secrets are scrubbed from what the server said."""
    exchange.settle()
    log, reply = exchange.log, exchange.reply
    event_words = reply.event_words()
    text, sent_ns, at_ns = reply.text, log.sent_ns, log.at_ns
    begin_ns = sent_ns or 0
    unsent, answered, right = _unsent(job, attempt), None, None
    if attempt.key is not None and exchange.outcome == "ok":
        answered, right = read_answer(attempt.key, "".join(reply.answer))
    return structs.replace(
        unsent,
        clock="wire" if log.on_wire else "user" if log.unstamped else unsent.clock,
        sent_ns=sent_ns,
        write_ns=log.write_ns,
        read_after_us=_first_read_after_us(log, reply.event_reads),
        sent_clock=None if sent_ns is None else "tx" if log.sent_by_kernel else "bound",
        head_ns=exchange.head_ns,
        end_ns=at_ns[-1] if at_ns and exchange.outcome == "ok" else end_ns,
        connect_us=log.connect_ns // 1000 if log.connection is not None else None,
        event_us=_microseconds_after(begin_ns, at_ns, reply.event_reads),
        event_tokens=None if reply.event_tokens.count(1) == len(reply.event_tokens) else reply.event_tokens,
        event_words=event_words,
        answer_event=reply.answer_event,
        lag_us_max=log.lag_ns_max // 1000,
        coalesced=len(reply.event_reads) - len(set(reply.event_reads)),
        prompt_tokens=reply.prompt_tokens,
        cached_tokens=reply.cached_tokens,
        output_tokens=reply.output_tokens if exchange.is_stream else None,
        reasoning_tokens=reply.reasoning_tokens,
        token_source=reply.token_source,
        chars=len(text),
        words=sum(event_words),
        finish_reason=reply.finish_reason and secrets.scrubbed(reply.finish_reason),
        status=exchange.status,
        outcome=exchange.outcome,
        answered=answered and secrets.scrubbed(answered),
        right=right,
        error=exchange.error and secrets.scrubbed(exchange.error),
        text=secrets.scrubbed_json(text) if job.settings.keep_text else None,
        model=secrets.scrubbed(unsent.model),
    )


def _microseconds_after(begin_ns: int, at_ns: array[int], reads: list[int]) -> list[int]:
    """When each of these reads came, whose places rise; nearly always they lie in a row."""
    if not reads:
        return []
    first, last = reads[0], reads[-1]
    in_a_row = last - first == len(reads) - 1 == len(set(reads)) - 1
    came_ns = np.frombuffer(at_ns, dtype=np.int64)[slice(first, last + 1) if in_a_row else reads]
    found: list[int] = ((came_ns - begin_ns) // 1000).tolist()
    return found


def _first_read_after_us(log: ReadLog, reads: list[int]) -> int | None:
    after_ns = log.read_after_ns(reads[0]) if reads else None
    return None if after_ns is None else after_ns // 1000


def dropped_record(job: Job, attempt: AttemptId) -> TurnRecord:
    """The record of a turn that became due and never began."""
    why = "the level ended before this turn could begin"
    return structs.replace(_unsent(job, attempt), outcome="dropped", error=why)


def _unsent(job: Job, attempt: AttemptId) -> TurnRecord:
    """What is known of a turn before anything was sent."""
    place = attempt.place
    return TurnRecord(
        run=job.run,
        conversation=attempt.conversation,
        turn=attempt.turn,
        depth=None if place is None else attempt.depth,
        continues=None if place is None else 0 if place.continues is None else place.continues + 1,
        after=None if place is None else [number + 1 for number in place.after],
        branch=None if place is None else place.branch,
        last=attempt.last,
        attempt=attempt.attempt,
        task=attempt.task,
        model=job.model_of(attempt.conversation),
        worker=job.worker,
        due_ns=attempt.due_ns,
        max_tokens=attempt.max_tokens,
        asked_prompt_tokens=attempt.asked_prompt_tokens,
        expected=None if attempt.key is None else attempt.key.expected,
        clock="kernel" if job.settings.clock != "user" and KERNEL_STAMPS else "user",
    )
