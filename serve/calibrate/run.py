"""Reads a run directory as the emulator's calibration needs it: who asked for what, and when tokens came.

Only files are read; their format is the public one of a run (`turnbench-run/1`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from serve.launch.command import Refusal

FORMAT = "turnbench-run/1"
BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and its answer; moments in nanoseconds on one clock."""

    conversation: int
    turn: int
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
class Level:
    """Everything that was asked at one number of people."""

    users: int
    start_ns: int
    window_start_ns: int
    window_end_ns: int
    turns: tuple[Turn, ...]

    def measured(self) -> list[Turn]:
        """The answered turns that were sent in the window."""
        return [t for t in self.turns if t.ok and self.window_start_ns <= t.sent_ns < self.window_end_ns]

    def the_same(self, turns: list[Turn]) -> list[Turn]:
        """This level's answers to the same requests, the first of each."""
        wanted = {(turn.conversation, turn.turn) for turn in turns}
        found = {(t.conversation, t.turn): t for t in reversed(self.turns) if t.ok}
        return [turn for key, turn in found.items() if key in wanted]


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run of levels against one server."""

    name: str
    model: str
    server: dict[str, Any]
    emulated: bool
    levels: dict[int, Level]
    """By people."""


def read_recorded(folder: Path) -> RecordedRun:
    """The run in this directory; raises Refusal for one that tells nothing of levels."""
    folder = folder.resolve()
    manifest = _manifest(folder)
    try:
        offsets_ns = {each["index"]: each["clock_offset_ns"] or 0 for each in manifest["workers"]}
        levels = [each for each in manifest["levels"] if _is_whole(each)]
        model, server = str(manifest["endpoint"]["model"]), dict(manifest["server"])
        emulated = bool(manifest["emulated"])
    except (KeyError, TypeError) as error:
        raise Refusal(f"{folder}/run.json lacks what every run has ({error}): is it one of ours?") from None
    if not levels:
        raise Refusal(f"{folder.name} has no whole level of so many people: play one with --levels 1,2,4,8")
    records = _records(folder, offsets_ns)
    found = {each["users"]: _level(each, records) for each in levels}
    return RecordedRun(folder.name, model, server, emulated, found)


def _is_whole(entry: dict[str, Any]) -> bool:
    """A level of people that was played to its end."""
    moments = ("start_ns", "window_start_ns", "window_end_ns", "end_ns")
    return bool(entry["users"]) and not entry["arrival_rate_per_s"] and all(entry[each] for each in moments)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{folder} is no run directory: run.json {error.strerror}") from None
    except ValueError:
        raise Refusal(f"{folder}/run.json is not JSON: the run was not written to its end") from None
    kind = manifest.get("format") if isinstance(manifest, dict) else None
    if kind != FORMAT:
        raise Refusal(f"{folder}/run.json has format {kind!r}, and {FORMAT!r} is read here")
    return dict(manifest)


def _records(folder: Path, offsets_ns: dict[int, int]) -> list[dict[str, Any]]:
    """The last attempt at each turn that was sent, by time; a torn line or another's is passed over."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for file in sorted(folder.glob("turns-*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                if record["sent_ns"] is None or record["prompt_tokens"] is None:
                    continue
                offset_ns = offsets_ns.get(record["worker"], 0)
                record["end_ns"] = (record["end_ns"] or record["sent_ns"]) - offset_ns
                record["sent_ns"] -= offset_ns
                found[(record["conversation"], record["turn"])] = record
            except (ValueError, KeyError, TypeError):
                continue
    return sorted(found.values(), key=lambda record: int(record["sent_ns"]))


def _level(entry: dict[str, Any], records: list[dict[str, Any]]) -> Level:
    own = [r for r in records if entry["start_ns"] <= r["sent_ns"] < entry["end_ns"]]
    before: dict[int, int] = {}
    turns = []
    for record in own:
        turns.append(_turn(record, before.get(record["conversation"], 0)))
        before[record["conversation"]] = record["prompt_tokens"]
    return Level(
        entry["users"], entry["start_ns"], entry["window_start_ns"], entry["window_end_ns"], tuple(turns)
    )


def _turn(record: dict[str, Any], before: int) -> Turn:
    """`before`: the prompt of the turn before, which a turn cut before its usage came will have found."""
    events = [record["sent_ns"] + 1000 * us for us in record["event_us"]]
    tokens = list(accumulate(record["event_tokens"] or [1] * len(events)))
    cached = record["cached_tokens"]
    if cached is None:
        cached = 0 if record["outcome"] == "ok" else before // BLOCK_TOKENS * BLOCK_TOKENS
    return Turn(
        record["conversation"],
        record["turn"],
        record["sent_ns"],
        tuple(events),
        tuple(tokens),
        record["prompt_tokens"],
        cached,
        max(1, record["output_tokens"] or 0, *tokens[-1:]),
        record["outcome"] == "ok" and bool(events),
        record["end_ns"],
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What a level came to: medians over some of its turns, and tokens that arrived in its window."""

    turns: int
    ttft_ms: float
    tpot_ms: float
    aggregate_tps: float


def figures_of(level: Level, turns: list[Turn]) -> Figures:
    """The same figures of a level, whether it was recorded or predicted."""
    spread = [t for t in turns if len(t.event_ns) > 1]
    window_s = (level.window_end_ns - level.window_start_ns) / 1e9
    return Figures(
        len(turns),
        median((t.event_ns[0] - t.sent_ns) / 1e6 for t in turns),
        median((t.event_ns[-1] - t.event_ns[0]) / 1e6 / (t.tokens[-1] - t.tokens[0]) for t in spread),
        sum(_arrived(t, level) for t in level.turns) / window_s,
    )


def _arrived(turn: Turn, level: Level) -> int:
    """Tokens of a turn that came inside the window."""
    before = [0, *turn.tokens]
    return sum(
        upto - before[index]
        for index, (at_ns, upto) in enumerate(zip(turn.event_ns, turn.tokens, strict=True))
        if level.window_start_ns <= at_ns < level.window_end_ns
    )
