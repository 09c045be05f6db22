"""A recorded level played again through the emulator's own scheduler, in virtual time.

What people asked (tokens in, tokens out, what the prefix cache held, who spoke when) is as recorded; when
tokens come is the scheduler's. `replay_arrivals` keeps the recorded moments of sending too, which the fit
needs; `replay_people` lets everyone send when the answer before has come, as a prediction must.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from statistics import median
from typing import Protocol

from serve.calibrate.recorded import RecordedLevel, RecordedTurn
from serve.emulator.machines import EmulatedMachine
from serve.emulator.scheduler import BLOCK_TOKENS, BatchScheduler, ScheduledSequence


class ReplayedServer(EmulatedMachine, Protocol):
    """A machine with what stands around it."""

    @property
    def frontend_ns(self) -> int:
        """Nanoseconds before a request is queued."""
        ...

    @property
    def limits(self) -> tuple[int, int]:
        """Sequences, and new tokens, in one step at most."""
        ...


@dataclass(slots=True, eq=False)
class ReplayedTurn:
    """One turn on its way through the scheduler."""

    turn: RecordedTurn
    sent_ns: int
    event_ns: list[int] = field(default_factory=list)
    follow_ups: list[RecordedTurn] = field(default_factory=list)

    def as_turn(self) -> RecordedTurn:
        """The turn with the scheduler's times in place of the recorded ones."""
        made = len(self.event_ns)
        return replace(
            self.turn,
            sent_ns=self.sent_ns,
            event_ns=tuple(self.event_ns),
            tokens=tuple(range(1, made + 1)),
            end_ns=self.event_ns[-1] if made else self.sent_ns,
            ok=made == self.turn.output_tokens,
        )


AfterTurn = Callable[[ReplayedTurn], ReplayedTurn | None]
"""The turn that follows on one that has ended, if any does."""


class _Replayer:
    """The scheduler's steps and the requests that come between them, on one time line."""

    def __init__(self, server: ReplayedServer) -> None:
        self._frontend_ns = server.frontend_ns
        self._scheduler = BatchScheduler(server, *server.limits)
        self._queue: list[tuple[int, int, ReplayedTurn]] = []
        self._numbers = count()
        self._playing: dict[ScheduledSequence, ReplayedTurn] = {}

    def send(self, played: ReplayedTurn) -> None:
        heapq.heappush(self._queue, (played.sent_ns + self._frontend_ns, next(self._numbers), played))

    def play(self, after: AfterTurn) -> None:
        """Until nothing is left to do."""
        now_ns = 0
        while True:
            self._add_arrivals(now_ns)
            took_ns = self._scheduler.begin_step()
            if took_ns is None:
                if not self._queue:
                    return
                now_ns = self._queue[0][0]
                continue
            now_ns += took_ns
            for sequence in self._scheduler.end_step():
                played = self._playing[sequence]
                played.event_ns.append(now_ns)
                if sequence.made == sequence.output_tokens:
                    del self._playing[sequence]
                    if (following := after(played)) is not None:
                        self.send(following)

    def _add_arrivals(self, now_ns: int) -> None:
        while self._queue and self._queue[0][0] <= now_ns:
            _, number, played = heapq.heappop(self._queue)
            turn = played.turn
            # The server said how much it found in its cache: so much is in the scheduler's too.
            found = [hash((number, block)) for block in range(turn.cached_tokens // BLOCK_TOKENS)]
            self._scheduler.cache.insert(found)
            sequence = ScheduledSequence(turn.prompt_tokens, turn.output_tokens, blocks=found)
            self._playing[sequence] = played
            self._scheduler.add(sequence)


def replay_arrivals(level: RecordedLevel, server: ReplayedServer) -> list[RecordedTurn]:
    """Each turn sent when it was sent; in the level's order."""
    player = _Replayer(server)
    all_played = [ReplayedTurn(turn, turn.sent_ns) for turn in level.turns]
    for played in all_played:
        player.send(played)
    player.play(lambda _played: None)
    return [played.as_turn() for played in all_played]


def replay_people(level: RecordedLevel, server: ReplayedServer) -> RecordedLevel:
    """As many people as the level had, each sending after the answer before, until all measured ended.

    The measured turns are the recorded level's, so that both are judged by the same requests.
    """
    player = _Replayer(server)
    all_played: list[ReplayedTurn] = []
    conversations = _conversations(level)
    pause_ns = _pause_ns(level)

    def begin(turn: RecordedTurn, sent_ns: int, follow_ups: list[RecordedTurn]) -> ReplayedTurn:
        played = ReplayedTurn(turn, sent_ns, follow_ups=follow_ups)
        all_played.append(played)
        return played

    left = {(turn.conversation, turn.turn) for turn in level.measured()}

    def after(ended: ReplayedTurn) -> ReplayedTurn | None:
        end_ns = ended.event_ns[-1]
        left.discard((ended.turn.conversation, ended.turn.turn))
        if end_ns >= level.window_end_ns and not left:
            return None
        turn, *follow_ups = ended.follow_ups or next(conversations)
        return begin(turn, end_ns + pause_ns, follow_ups)

    for first in level.turns[: level.users]:
        turn, *follow_ups = next(conversations)
        player.send(begin(turn, first.sent_ns, follow_ups))
    player.play(after)
    return replace(level, turns=tuple(played.as_turn() for played in all_played))


def _conversations(level: RecordedLevel) -> Iterator[list[RecordedTurn]]:
    """Each conversation's turns, in the order in which they began; from the start again after the last."""
    found: dict[int, list[RecordedTurn]] = {}
    for turn in level.turns:
        found.setdefault(turn.conversation, []).append(turn)
    return cycle(found.values())


def _pause_ns(level: RecordedLevel) -> int:
    """Between an answer's end and the next turn of its conversation, the client's share and any thinking."""
    ends: dict[int, int] = {}
    pauses = []
    for turn in level.turns:
        if turn.conversation in ends:
            pauses.append(turn.sent_ns - ends[turn.conversation])
        ends[turn.conversation] = turn.end_ns
    return max(0, round(median(pauses))) if pauses else 0
