"""How one conversation goes: its turns one after the other, and the attempts at each."""

from __future__ import annotations

from loadgen._person import Person, pause_until
from loadgen._records import TurnRecord
from loadgen._request import body_of_turn, encode_body, think_s
from loadgen._turn_record import Place, dropped_record, record_of
from loadgen._wire import OpenTurn, Wire
from scenarios import Conversation, Turn, opening

_RETRIED = ("connect", "connect_timeout", "http_429", "http_5xx", "disconnected", "dns")
"""What --retry covers: another attempt can mend it."""


async def converse(wire: Wire, person: Person, conversation: Conversation, due_ns: int) -> bool:
    """Play a conversation, its follow-ups answering the server's real replies; False if a turn failed."""
    messages = opening(conversation, wire.job.salt, wire.level)
    for index, turn in enumerate(conversation.turns):
        if index:
            due_ns += int(think_s(wire.job.settings, turn) * 1e9)
            await pause_until(person, wire.timeline, due_ns)
            if person.leaving.is_set():
                break
            messages.append({"role": "user", "content": turn.user})
        played = await _turn(wire, person, conversation, index, turn, messages, due_ns)
        if played is None:
            break
        record, answer = played
        if record.outcome != "ok":
            return record.outcome in ("cut", "unfinished", "dropped")
        messages.append({"role": "assistant", "content": answer})
        due_ns = record.end_ns or due_ns
        if person.leaving.is_set():
            break
    return True


def place_of(conversation: Conversation, index: int, due_ns: int, attempt: int = 1) -> Place:
    """Where in the plan turn `index`, from 0, of a conversation stands."""
    last = index + 1 == len(conversation.turns)
    return Place(conversation.index, index + 1, attempt, conversation.task, due_ns, last)


def drop(wire: Wire, place: Place) -> TurnRecord:
    """A turn that became due and could not begin before the level's end: counted, never made up."""
    wire.ledger.planned += 1
    wire.ledger.dropped += 1
    record = dropped_record(wire.job, place)
    wire.tell(record)
    return record


async def _turn(
    wire: Wire,
    person: Person,
    conversation: Conversation,
    index: int,
    turn: Turn,
    messages: list[dict[str, str]],
    due_ns: int,
) -> tuple[TurnRecord, str] | None:
    """One turn; None in closed loop where the person left before it could begin."""
    async with wire.turnstile:
        if person.leaving.is_set():  # while this turn waited here
            open_loop = wire.job.settings.arrival_rate_per_s is not None
            return (drop(wire, place_of(conversation, index, due_ns)), "") if open_loop else None
        body = encode_body(body_of_turn(wire.job, conversation, turn, messages))
    wire.ledger.planned += 1
    wire.ledger.begun += 1
    opened = OpenTurn(wire.timeline.now_ns())
    wire.open.add(opened)
    played = await _attempts(wire, person, opened, conversation, index, body, due_ns)
    wire.open.discard(opened)
    wire.ledger.finished += 1
    return played


async def _attempts(
    wire: Wire,
    person: Person,
    opened: OpenTurn,
    conversation: Conversation,
    index: int,
    body: bytes,
    due_ns: int,
) -> tuple[TurnRecord, str]:
    """The attempts at a turn: a stale connection once more at once, others as --retry asks."""
    retries, was_stale, attempt = wire.job.settings.retry, False, 0
    while True:
        attempt += 1
        place = place_of(conversation, index, due_ns, attempt)
        exchange = await wire.attempt(opened, place, body)
        record = record_of(wire.job, place, exchange, wire.timeline.now_ns(), wire.secrets)
        stale = exchange.outcome == "stale_connection" and not was_stale
        again = not person.leaving.is_set() and (stale or (exchange.outcome in _RETRIED and retries > 0))
        wire.tell(record)
        if not again:
            return record, "".join(exchange.reply.answer)
        if stale:
            was_stale = True
            continue
        retries -= 1
        wait_s = exchange.retry_after_s if exchange.retry_after_s is not None else wire.failure_pause_s
        await pause_until(person, wire.timeline, wire.timeline.now_ns() + int(wait_s * 1e9))
        if person.leaving.is_set():
            return record, ""
