"""How one conversation goes: its turns, the attempts at each, and the person's pauses between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Literal

from msgspec import structs

from loadgen._messages import Job
from loadgen.engine._history import History, max_tokens_of
from loadgen.engine._person import SimulatedPerson, patience_of, think_s
from loadgen.engine._record import AttemptId, dropped_record, record_of
from loadgen.engine._run import EngineRun, OpenTurn
from loadgen.transport._exchange import Exchange
from loadgen.transport._work import WorkStage
from turnbench.formats import TurnRecord
from turnbench.outcomes import UNANSWERED, Outcome

_RETRIED = ("connect", "connect_timeout", "http_429", "http_5xx", "disconnected", "dns")
"""What --retry covers: another attempt may succeed."""
_NEXT_ATTEMPT_S = 0.001
"""The least pause between two attempts: a server that refuses often closes the connection just after."""


async def converse(
    run: EngineRun, person: SimulatedPerson, history: History, due_ns: int, body: bytes | None = None
) -> int | None:
    """Play a conversation, its follow-ups answering the server's real replies; when it ended, on the run's
    time line, None if a turn failed.

    `body`: the first request, if it is made already.
    """
    if history.plan.branches:
        return await _converse_in_branches(run, person, history, due_ns, body)
    while not person.leaving.is_set() or history.index == 0:
        ended = await play_turn(run, person, history, due_ns, body)
        if ended is None:
            return due_ns
        if ended.outcome != "ok":
            return None if _is_failure(ended) else ended.at_ns
        if history.over:
            return ended.at_ns
        due_ns = ended.at_ns
        due_ns += int(think_s(run.job.settings, history.turn, history.words) * 1e9)
        await person.pause_until(due_ns, run.timeline)
        body = None
    return due_ns


def _is_failure(ended: TurnEnd) -> bool:
    """A person who left says nothing against the server: their next conversation may begin at once."""
    return ended.outcome != "abandoned" and ended.outcome in UNANSWERED


async def _converse_in_branches(
    run: EngineRun, person: SimulatedPerson, history: History, due_ns: int, body: bytes | None
) -> int | None:
    """As `converse`, where several turns may be open: each begins once all that it waits for ended well, and
    its time is up. What waits for a turn that failed is not played; other branches go on."""
    turns = history.plan.turns
    lines: dict[int, History] = {}
    """Of the turns that were played, what was said up to the end of each."""
    to_go_on = Counter(turn.place.continues for turn in turns if turn.place is not None)
    playing: list[asyncio.Task[TurnEnd | None]] = []

    def line_of(number: int, continues: int | None) -> History:
        if number == 0:
            return history
        if continues is None:
            return history.line_to(number, begins=True)
        to_go_on[continues] -= 1
        return (lines[continues] if to_go_on[continues] else lines.pop(continues)).line_to(
            number, begins=False
        )

    async def play(number: int) -> TurnEnd | None:
        place = turns[number].place
        assert place is not None
        before = [await playing[n] for n in place.after]
        ended = [each for each in before if each is not None and each.outcome == "ok"]
        if len(ended) < len(before):
            return None
        mine_ns = max((each.at_ns for each in ended), default=due_ns)
        line = lines[number] = line_of(number, place.continues)
        if line.stopped:
            return None
        if number and (pause_s := think_s(run.job.settings, turns[number], 0)):
            mine_ns += int(pause_s * 1e9)
            async with run.scheduler.turn_for(WorkStage.REQUEST):  # its moment does not have the time
                line.system_role = run.system_role
                line.prepare()
            await person.pause_until(mine_ns, run.timeline)
        if number and person.leaving.is_set():
            return None
        return await play_turn(run, person, line, mine_ns, None if number else body)

    async with asyncio.TaskGroup() as group:
        playing += (group.create_task(play(number)) for number in range(len(turns)))
    ends = [end for task in playing if (end := task.result()) is not None]
    return None if any(map(_is_failure, ends)) else max((end.at_ns for end in ends), default=due_ns)


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended, and when: with its last byte, or when that was seen."""

    outcome: Outcome
    at_ns: int


async def play_turn(
    run: EngineRun, person: SimulatedPerson, history: History, due_ns: int, body: bytes | None = None
) -> TurnEnd | None:
    """Play the turn at hand (`body`: its request, if it is made already); the end of its last attempt.

    None in closed loop where the person left before it could begin.
    """
    if body is None:
        async with run.scheduler.turn_for(WorkStage.REQUEST):
            if person.leaving.is_set():  # while this turn waited here
                if not run.job.load.open_loop:
                    return None
                return drop_turn(run, history, due_ns)
            history.system_role = run.system_role
            body = history.body()
    place = (history.conversation.task, history.conversation.index, history.number + 1)
    patience = patience_of(history.turn, run.job.settings)
    turn = OpenTurn(person, run.timeline.now_ns(), place, patience)
    run.begin(turn)
    ended = await _attempts(run, turn, history, due_ns, body)
    run.end(turn)
    return ended


def drop_turn(run: EngineRun, history: History, due_ns: int) -> TurnEnd:
    """Record a turn that became due and could not begin before the level's end: it is never made up for."""
    run.ledger.planned += 1
    run.ledger.dropped += 1
    record = dropped_record(run.job, _attempt_id(run.job, history, 1, due_ns))
    run.report(record, done=True)
    return TurnEnd("dropped", due_ns)


def _attempt_id(job: Job, history: History, attempt: int, due_ns: int) -> AttemptId:
    turn, number = history.turn, history.number
    return AttemptId(
        history.plan.index,
        number + 1,
        attempt,
        history.plan.task,
        due_ns,
        last=number + 1 == len(history.plan.turns),
        max_tokens=max_tokens_of(job, turn),
        asked_prompt_tokens=turn.prompt_tokens,
        key=turn.key,
        place=turn.place,
        depth=history.index + 1,
    )


async def _attempts(run: EngineRun, turn: OpenTurn, history: History, due_ns: int, body: bytes) -> TurnEnd:
    allowed = _AllowedAttempts(run.job.settings.retry, run.failure_pause_s)
    attempt = 0
    while True:
        attempt += 1
        attempt_id = _attempt_id(run.job, history, attempt, due_ns)
        shortened = history.shortened
        exchange = await run.attempt(turn, attempt_id, body)
        if exchange.refused == "system_role":
            run.system_role = False
        pause_s = None if turn.person.leaving.is_set() else allowed.pause_s(exchange, history)
        if pause_s is not None and pause_s > run.job.settings.deadline_s:
            pause_s = run.job.settings.deadline_s
            run.note("Retry-After asks for more time than --deadline: the next attempt came after that")
        ended = TurnEnd(exchange.outcome, exchange.end_ns(run.timeline.now_ns()))
        if exchange.outcome == "ok":
            history.add_reply(exchange.reply)
        stopped = exchange.outcome == "ok" and history.stopped
        at_context_end: AtContextEnd = "stop" if stopped else "drop_oldest" if shortened else None
        made = partial(_record, run, attempt_id, exchange, ended.at_ns, at_context_end)
        run.report_later(made, done=pause_s is None)
        if pause_s is None:
            return ended
        await turn.person.pause_until(run.timeline.now_ns() + int(pause_s * 1e9), run.timeline)
        if turn.person.leaving.is_set():
            return ended
        if exchange.refused is not None or exchange.asks_again:  # what it was about is asked otherwise now
            body = history.body()


def _record(
    run: EngineRun, attempt: AttemptId, exchange: Exchange, end_ns: int, at_context_end: AtContextEnd
) -> TurnRecord:
    record = record_of(run.job, attempt, exchange, end_ns, run.secrets)
    if at_context_end is None:
        return record
    return structs.replace(
        record, at_context_end=at_context_end, last=record.last or at_context_end == "stop"
    )


AtContextEnd = Literal["stop", "drop_oldest"] | None


@dataclass(slots=True)
class _AllowedAttempts:
    """The further attempts at one turn: some of their own kind, others as --retry asks."""

    retries: int
    failure_pause_s: float
    was_stale: bool = False

    def pause_s(self, exchange: Exchange, history: History) -> float | None:
        """Seconds until the attempt after this one; None: it was the last."""
        outcome = exchange.outcome
        if outcome == "stale_connection" and not self.was_stale:
            self.was_stale = True
            return _NEXT_ATTEMPT_S
        if exchange.asks_again:
            return _NEXT_ATTEMPT_S
        has_system = history.conversation.system is not None
        if exchange.refused == "system_role" and has_system and history.system_role:
            history.system_role = False
            return _NEXT_ATTEMPT_S
        if outcome == "context_full" and history.conversation.at_context_end == "drop_oldest":
            return _NEXT_ATTEMPT_S if history.drop_oldest() else None
        if outcome in _RETRIED and self.retries > 0:
            self.retries -= 1
            asked_s = exchange.retry_after_s
            return self.failure_pause_s if asked_s is None else max(asked_s, _NEXT_ATTEMPT_S)
        return None
