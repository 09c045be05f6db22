"""How one turn goes: its attempts, until one of them counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from loadgen.engine._history import History
from loadgen.engine._patience import patience_of
from loadgen.engine._person import SimulatedPerson, pause_until
from loadgen.engine._run import EngineRun, OpenTurn
from loadgen.engine._turn_record import AttemptId, dropped_record, record_of
from loadgen.transport._exchange import Exchange
from scenarios import Conversation
from turnbench.formats import TurnRecord

_RETRIED = ("connect", "connect_timeout", "http_429", "http_5xx", "disconnected", "dns")
"""What --retry covers: another attempt can mend it."""


async def play_turn(
    run: EngineRun, person: SimulatedPerson, history: History, due_ns: int, body: bytes | None = None
) -> TurnRecord | None:
    """Play the turn at hand (`body`: its request, if it is made already); its record.

    None in closed loop where the person left before it could begin.
    """
    if body is None:
        async with run.scheduler:
            if person.leaving.is_set():  # while this turn waited here
                open_loop = run.job.settings.arrival_rate_per_s is not None
                return drop(run, history.conversation, history.index, due_ns) if open_loop else None
            history.system_role = run.system_role
            body = history.body()
    opened = OpenTurn(person, run.timeline.now_ns(), patience_of(history.turn, run.job.settings))
    run.begin(opened)
    record = await _attempts(run, opened, history, due_ns, body)
    run.end(opened)
    return record


def drop(run: EngineRun, conversation: Conversation, index: int, due_ns: int) -> TurnRecord:
    """A turn that became due and could not begin before the level's end: counted, never made up."""
    run.ledger.planned += 1
    run.ledger.dropped += 1
    record = dropped_record(run.job, _place(conversation, index, 1, due_ns))
    run.tell(record, done=True)
    return record


def _place(conversation: Conversation, index: int, attempt: int, due_ns: int) -> AttemptId:
    last = index + 1 == len(conversation.turns)
    return AttemptId(conversation.index, index + 1, attempt, conversation.task, due_ns, last)


async def _attempts(
    run: EngineRun, opened: OpenTurn, history: History, due_ns: int, body: bytes
) -> TurnRecord:
    allowed = _Allowed(run.job.settings.retry, run.failure_pause_s)
    attempt = 0
    while True:
        attempt += 1
        place = _place(history.conversation, history.index, attempt, due_ns)
        shortened = history.shortened
        exchange = await run.attempt(opened, place, body)
        if exchange.refuses_system:
            run.system_role = False
        pause_s = None if opened.person.leaving.is_set() else allowed.pause_s(exchange, history)
        record = record_of(run.job, place, exchange, run.timeline.now_ns(), run.secrets)
        if exchange.outcome == "ok":
            history.took(exchange.reply)
        record = _with_context(record, shortened, history)
        run.tell(record, done=pause_s is None)
        if pause_s is None:
            return record
        if pause_s:
            await pause_until(opened.person, run.timeline, run.timeline.now_ns() + int(pause_s * 1e9))
            if opened.person.leaving.is_set():
                return record
        if exchange.outcome == "context_full" or exchange.refuses_system:
            body = history.body()


def _with_context(record: TurnRecord, shortened: bool, history: History) -> TurnRecord:
    """The record, with what the end of the model's context did to this turn."""
    what: Literal["stop", "drop_oldest"] | None = "drop_oldest" if shortened else None
    if record.outcome == "ok" and history.stopped:
        return structs.replace(record, at_context_end="stop", last=True)
    return record if what is None else structs.replace(record, at_context_end=what)


@dataclass(slots=True)
class _Allowed:
    """The further attempts at one turn: some of their own kind, others as --retry asks."""

    retries: int
    failure_pause_s: float
    was_stale: bool = False

    def pause_s(self, exchange: Exchange, history: History) -> float | None:
        """Seconds until the attempt after this one; None: it was the last."""
        outcome = exchange.outcome
        if outcome == "stale_connection" and not self.was_stale:
            self.was_stale = True
            return 0.0
        if exchange.refuses_system and history.conversation.system is not None and history.system_role:
            history.system_role = False
            return 0.0
        if outcome == "context_full" and history.conversation.at_context_end == "drop_oldest":
            return 0.0 if history.leave_out() else None
        if outcome in _RETRIED and self.retries > 0:
            self.retries -= 1
            return self.failure_pause_s if exchange.retry_after_s is None else exchange.retry_after_s
        return None
