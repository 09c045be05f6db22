"""How one conversation goes: its turns, one after the other, with the person's pauses between them."""

from __future__ import annotations

from loadgen.engine._history import History
from loadgen.engine._person import SimulatedPerson, pause_until
from loadgen.engine._request import think_s
from loadgen.engine._run import EngineRun
from loadgen.engine._turn import play_turn

_NO_FAILURE = ("cut", "unfinished", "dropped", "abandoned")
"""Ends of a conversation that say nothing against the server: the next may begin at once."""


async def converse(
    run: EngineRun, person: SimulatedPerson, history: History, due_ns: int, body: bytes | None = None
) -> bool:
    """Play a conversation, its follow-ups answering the server's real replies; False if a turn failed.

    `body`: the first request, if it is made already.
    """
    while not person.leaving.is_set() or history.index == 0:
        record = await play_turn(run, person, history, due_ns, body)
        if record is None or record.outcome != "ok":
            return record is None or record.outcome in _NO_FAILURE
        if history.over:
            return True
        due_ns = record.end_ns or due_ns
        due_ns += int(think_s(run.job.settings, history.turn, history.words) * 1e9)
        await pause_until(person, run.timeline, due_ns)
        body = None
    return True
