"""A run directory as the emulator's calibration needs it: who asked for what, and when tokens came."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median

from serve.emulator.scheduler import BLOCK_TOKENS
from turnbench.formats import LevelEntry, RecordedServer, ServerSample, TurnRecord
from turnbench.run_directory import RunDirectory, RunError, read_run


class CannotCalibrate(Exception):
    """Nothing can be fitted to this run; the text is one line and says what to do instead."""


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """One request and its answer; moments in nanoseconds on one clock."""

    conversation: int
    turn: int
    task: str
    sent_ns: int
    event_ns: tuple[int, ...]
    """When each event with text came."""
    tokens: tuple[int, ...]
    """Tokens up to and including each event."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ok: bool
    end_ns: int


@dataclass(frozen=True, slots=True)
class RecordedLevel:
    """Everything that was asked at one number of people."""

    users: int
    start_ns: int
    window_start_ns: int
    window_end_ns: int
    turns: tuple[RecordedTurn, ...]

    def measured(self) -> list[RecordedTurn]:
        """The answered turns that were sent in the window."""
        return [t for t in self.turns if t.ok and self.window_start_ns <= t.sent_ns < self.window_end_ns]

    def the_same(self, turns: list[RecordedTurn]) -> list[RecordedTurn]:
        """This level's answers to the same requests, the first of each."""
        wanted = {(turn.conversation, turn.turn) for turn in turns}
        found = {(t.conversation, t.turn): t for t in reversed(self.turns) if t.ok}
        return [turn for key, turn in found.items() if key in wanted]


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run of levels against one server."""

    name: str
    model: str
    server: RecordedServer
    emulated: bool
    levels: dict[int, RecordedLevel]
    """By people."""
    metrics: tuple[ServerSample, ...]
    """The server's own metrics, a sample a second."""


def read_recorded(folder: Path) -> RecordedRun:
    """The run in this directory; raises CannotCalibrate for one that says nothing of levels."""
    folder = folder.resolve()
    try:
        run = read_run(folder)
    except RunError as error:
        raise CannotCalibrate(str(error)) from None
    if run.notes:
        raise CannotCalibrate(
            f"{folder}/run.json lacks what every run has ({run.notes[0]}): was it written by turnbench?"
        )
    manifest = run.manifest
    offsets_ns = {worker.index: worker.clock_offset_ns or 0 for worker in manifest.workers}
    records = _records(run, offsets_ns)
    levels = {level.users: level for entry in manifest.levels if (level := _level(entry, records))}
    if not levels:
        raise CannotCalibrate(
            f"{folder.name} has no whole level of so many people: play one with --levels 1,2,4,8"
        )
    return RecordedRun(
        folder.name, manifest.endpoint.model, manifest.server, manifest.emulated, levels, tuple(run.server())
    )


def _records(run: RunDirectory, offsets_ns: dict[int, int]) -> list[TurnRecord]:
    """The last attempt at each turn that was sent, by time, on the clock of the run's writer."""
    found: dict[tuple[int, int], TurnRecord] = {}
    for record in run.turns():
        if record.sent_ns is None or record.prompt_tokens is None:
            continue
        offset_ns = offsets_ns.get(record.worker, 0)
        record.end_ns = (record.end_ns or record.sent_ns) - offset_ns
        record.sent_ns -= offset_ns
        found[record.conversation, record.turn] = record
    return sorted(found.values(), key=lambda record: record.sent_ns or 0)


def _level(entry: LevelEntry, records: list[TurnRecord]) -> RecordedLevel | None:
    """The level with its turns; None if it was no level of people that was played to its end."""
    if not entry.users or entry.arrival_rate_per_s:
        return None
    start_ns, end_ns = entry.start_ns, entry.end_ns
    window_start_ns, window_end_ns = entry.window_start_ns, entry.window_end_ns
    if not (start_ns and end_ns and window_start_ns and window_end_ns):
        return None
    before: dict[int, int] = {}
    turns = []
    for record in records:
        if record.sent_ns is not None and start_ns <= record.sent_ns < end_ns:
            turns.append(_turn(record, record.sent_ns, before.get(record.conversation, 0)))
            before[record.conversation] = record.prompt_tokens or 0
    return RecordedLevel(entry.users, start_ns, window_start_ns, window_end_ns, tuple(turns))


def _turn(record: TurnRecord, sent_ns: int, before: int) -> RecordedTurn:
    """`before`: the prompt of the turn before, which a turn cut before its usage came will have found."""
    events = [sent_ns + 1000 * us for us in record.event_us]
    tokens = list(accumulate(record.event_tokens or [1] * len(events)))
    cached = record.cached_tokens
    if cached is None:
        cached = 0 if record.outcome == "ok" else before // BLOCK_TOKENS * BLOCK_TOKENS
    return RecordedTurn(
        record.conversation,
        record.turn,
        record.task,
        sent_ns,
        tuple(events),
        tuple(tokens),
        record.prompt_tokens or 0,
        cached,
        max(1, record.output_tokens or 0, *tokens[-1:]),
        record.outcome == "ok" and bool(events),
        record.end_ns or sent_ns,
    )


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """What a level came to: medians over some of its turns, and tokens that arrived in its window."""

    turns: int
    ttft_ms: float
    tpot_ms: float
    aggregate_tps: float


def figures_of(level: RecordedLevel, turns: list[RecordedTurn]) -> LevelFigures:
    """The same figures of a level, whether it was recorded or predicted."""
    spread = [t for t in turns if len(t.event_ns) > 1]
    window_s = (level.window_end_ns - level.window_start_ns) / 1e9
    arrived = sum(
        upto - before
        for turn in level.turns
        for at_ns, before, upto in zip(turn.event_ns, (0, *turn.tokens), turn.tokens, strict=False)
        if level.window_start_ns <= at_ns < level.window_end_ns
    )
    return LevelFigures(
        len(turns),
        median((t.event_ns[0] - t.sent_ns) / 1e6 for t in turns),
        median((t.event_ns[-1] - t.event_ns[0]) / 1e6 / (t.tokens[-1] - t.tokens[0]) for t in spread),
        arrived / window_s,
    )
