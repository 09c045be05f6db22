"""Conversations with branches as people write them: sessions that name the sessions they fork and spawn."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scenarios.data._data_file import (
    DataRow,
    DataSource,
    Message,
    Place,
    RecordFile,
    RowTurn,
    shown,
    tokens_of,
    what_it_is,
)
from scenarios.data._dialogues import ANSWER_TOKENS, OWN_KEYS, stops_of
from scenarios.data._messages import (
    ROLE_KEYS,
    SeenInRows,
    listed_messages,
    message_of,
    needs_of,
    text_of,
    tools_of,
)
from scenarios.data._records import Record
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.problems import FOUND_MAX, FileProblems, Problem, listed

NESTED_MOST = 50
"""Agents below agents; more is a mistake, or a trap."""
_TURNS_MOST = 20_000
"""Of one conversation. Sessions that are spawned twice are played twice, so a small file can ask for more."""
_WHOLE = "message_array_with_responses"
_CONTEXT_MODES = ("deltas_without_responses", _WHOLE)
"""What a turn's messages are: added to the history with its real replies, or the whole request."""
_OWN_KEYS = {
    "messages", "texts", "image", "images", "audio", "audios", "video", "videos", "delay", "output_length",
    "forks", "spawns",
}  # fmt: skip
"""Keys that tell a turn of a session from a message of a chat, which has a role as well."""

# fmt: off
ONE_MODEL = note("one_model",
    "{} models are named ({}); one plays them all",
    "--model A=0.7,B=0.3 shares whole conversations out")
TURN_TIMES = note("turn_times",
    "{:,} turns have a 'timestamp', which is not played: each comes after the reply before, and its 'delay' "
    "where it has one",
    "write the milliseconds after that reply as 'delay'")
# fmt: on


class AgentFile(RecordFile):
    """A session a row, as AIPerf reads them: {"session_id": ..., "turns": [{"messages": [...], "delay": MS,
    "forks": [...], "spawns": [...]}]}, or turns with a `text` or `texts` and perhaps `images`.

    After a turn its `forks` go on with its history, and its `spawns` begin with none; the turn of `join_at`
    (the next, where a name stands alone) waits for what was spawned. Sessions that no other names are the
    conversations."""

    kind = "agents"
    sign = "'session_id' and 'turns'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        turns = source.first.get("turns")
        if "orchestrator" in source.first:
            return True
        if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
            return False
        keys = {key for turn in turns if isinstance(turn, dict) for key in turn}
        return bool(keys & _OWN_KEYS) or keys.isdisjoint(ROLE_KEYS)

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        self._seen = SeenInRows()
        self._models: set[str] = set()
        self._timed_turns = 0
        self._named: dict[str, int] = {}
        self._turns = array("L")
        self._below: dict[int, list[str]] = {}
        super().__init__(source)
        self.needs = frozenset(self._seen.needs)
        self._roots = self._playable_roots(source.path)

    def __len__(self) -> int:
        return len(self._roots)

    def row(self, i: int) -> DataRow:
        turns = _LaidOut(self._session).of(self._roots[i])
        assert turns[0].place is not None
        return DataRow(turns, turns[0].place.system)

    def notes(self) -> Iterator[Finding]:
        yield from self._seen.notes()
        if len(self._models) > 1:
            yield ONE_MODEL.finding(len(self._models), listed(sorted(self._models)))
        if self._timed_turns:
            yield TURN_TIMES.finding(self._timed_turns)

    def _keep(self, record: Record) -> bool:
        with self._seen.of_a_row():
            session = _session_of(record, self._seen)
        name = session.name or f"row {len(self._turns) + 1}"
        if name in self._named:
            raise ValueError(f"session {name!a} stands there twice; give one another session_id")
        for turn in session.turns:
            self._seen.needs |= needs_of(turn.messages, turn.tools or [])
            self._models |= {turn.model} - {""}
            self._timed_turns += turn.has_time
        number = self._named[name] = len(self._turns)
        self._turns.append(len(session.turns))
        if below := [*session.before, *(name for turn in session.turns for name in turn.below)]:
            self._below[number] = below
        return True

    def _session(self, number: int | str) -> _Session:
        number = self._named[number] if isinstance(number, str) else number
        return _session_of(self._index[number], SeenInRows())

    def _playable_roots(self, path: str) -> array[int]:
        """Sessions that no other names, without those that cannot be played for one below them."""
        problems: list[Problem] = []
        sizes: dict[int, tuple[int, int]] = {}
        """Of each session: its turns with all below it, and how deep that goes; (0, 0): not to be played."""
        wrong_roots = 0
        named = {name for names in self._below.values() for name in names}
        names = list(self._named)
        for start in range(len(names)):
            self._measure(start, names, sizes, path, problems)
        roots = array("L")
        for number, name in enumerate(names):
            if name not in named and sizes[number][0]:
                roots.append(number)
            wrong_roots += name not in named and not sizes[number][0]
        if problems:
            self.refused += max(wrong_roots, 1)
            self.problems = [*self.problems, *problems][:FOUND_MAX]
        if not roots:
            raise FileProblems(self.problems)
        return roots

    def _measure(
        self,
        start: int,
        names: list[str],
        sizes: dict[int, tuple[int, int]],
        path: str,
        problems: list[Problem],
    ) -> None:
        """Fill `sizes` for a session and all below it, without recursion: files may nest without end."""
        stack: list[tuple[int, Iterator[str]]] = []
        on_stack: set[int] = set()

        def wrong(number: int, what: str) -> None:
            sizes[number] = (0, 0)
            problems.append(Problem(path, self._index.lines[number], what))

        def enter(number: int) -> None:
            stack.append((number, iter(self._below.get(number, ()))))
            on_stack.add(number)

        if start not in sizes:
            enter(start)
        while stack:
            number, below = stack[-1]
            name = next(below, None)
            child = None if name is None else self._named.get(name)
            if name is not None and child is None:
                wrong(number, f"session {name!a}, which {names[number]!a} names, stands in no row; add it")
            elif child is not None and child in on_stack:
                wrong(
                    number,
                    f"session {names[number]!a} waits for {name!a}, which waits for it; cut the circle",
                )
            elif child is not None and child not in sizes:
                enter(child)
            elif name is None:
                stack.pop()
                on_stack.discard(number)
                children = [
                    sizes.get(self._named[each], (0, 0))
                    for each in self._below.get(number, ())
                    if each in self._named
                ]
                turns = self._turns[number] + sum(size for size, _ in children)
                nested = 1 + max((depth for _, depth in children), default=0)
                if number in sizes or any(not size for size, _ in children):
                    sizes[number] = (0, 0)
                elif turns > _TURNS_MOST or nested > NESTED_MOST:
                    much = f"{turns:,} turns" if turns > _TURNS_MOST else f"{nested} agents one below another"
                    wrong(number, f"session {names[number]!a} asks for {much}; name fewer sessions in it")
                else:
                    sizes[number] = (turns, nested)


@dataclass(slots=True)
class _SessionTurn:
    messages: list[Message]
    answer_tokens: int | None
    think_s: float
    model: str
    has_time: bool
    """A moment of its own, beside or in place of a pause."""
    tools: list[dict[str, Any]] | None
    body: dict[str, Any]
    stop: tuple[str, ...]
    forks: list[str]
    spawns: list[tuple[str, int | None]]
    """Names of sessions, and the place of the turn that waits for them."""

    @property
    def below(self) -> list[str]:
        return [*self.forks, *(name for name, _ in self.spawns)]


@dataclass(slots=True)
class _Session:
    name: str
    turns: list[_SessionTurn]
    before: list[str]
    """Sessions that begin together with it."""
    whole: bool
    """Each turn has all messages of its request, and goes on with no history."""


def _session_of(record: Record, seen: SeenInRows) -> _Session:
    """Raises ValueError."""
    if record.get("orchestrator"):
        raise ValueError("an orchestrator sends no request of its own; make its children rows of their own")
    name, turns = record.get("session_id"), record.get("turns")
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool)):
        raise ValueError(f"session_id {shown(name)} is {what_it_is(name)}; write a text")
    mode = record.get("context_mode") or _CONTEXT_MODES[0]
    if mode not in _CONTEXT_MODES:
        raise ValueError(f"context_mode {shown(mode)} is not known; write {' or '.join(_CONTEXT_MODES)}")
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"'turns' is {what_it_is(turns) if turns else 'empty'}; write a list of turns")
    found = [_turn_of(turn, number, len(turns), seen) for number, turn in enumerate(turns)]
    for number, turn in enumerate(found if mode == _WHOLE else found[:1], start=1):
        if all(message["role"] == "system" for message in turn.messages):
            raise ValueError(f"turn {number} has no message but the system's; add one of a user")
    before = _names(record.get("pre_session_spawns"), "pre_session_spawns")
    return _Session("" if name is None else str(name), found, before, mode == _WHOLE)


def _turn_of(turn: Any, number: int, count: int, seen: SeenInRows) -> _SessionTurn:
    """Turn `number`, from 0, of a session of so many. Raises ValueError."""
    where = f"turn {number + 1}"
    if not isinstance(turn, dict):
        raise ValueError(f"{where} is {what_it_is(turn)}; write an object with messages")
    extra = turn.get("extra") or {}
    if not isinstance(extra, dict):
        raise ValueError(f"{where} has 'extra' that is {what_it_is(extra)}; write an object")
    try:
        parts = listed_messages(_said(turn), "messages")
        messages = [message_of(part, n, seen, every_field=True) for n, part in enumerate(parts, start=1)]
        tokens = tokens_of(turn, *ANSWER_TOKENS)
        if tokens is None and extra:
            tokens = tokens_of(extra, *ANSWER_TOKENS)
        tools = tools_of(turn) if turn.get("tools") is not None else None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if all(message["content"] == [] for message in messages):
        raise ValueError(f"{where} has no messages that can be sent; write one of a user")
    if tokens is not None and tokens < 1:
        raise ValueError(f"{where} asks for {tokens} tokens; write 1 at least, or drop it")
    spawns = [
        (name, join)
        for entry in _listed(turn.get("spawns"), "spawns", where)
        for name, join in _spawned(entry, number, count, where)
    ]
    forks = [
        name
        for entry in _listed(turn.get("forks"), "forks", where)
        for name in _names(entry.get("child") if isinstance(entry, dict) else entry, "forks")
    ]
    return _SessionTurn(
        messages,
        answer_tokens=tokens,
        think_s=_seconds(turn.get("delay"), where),
        model=str(turn.get("model") or ""),
        has_time=turn.get("timestamp") is not None,
        tools=tools,
        body={key: value for key, value in extra.items() if key not in OWN_KEYS},
        stop=stops_of(extra) if extra else (),
        forks=forks,
        spawns=spawns,
    )


def _said(turn: dict[str, Any]) -> Any:
    """The messages of a turn, also where it has texts and pictures instead; None: nothing. Raises
    ValueError."""
    if turn.get("messages") is not None:
        return turn["messages"]
    parts = [{"type": "text", "text": text} for text in _contents(turn, "text")]
    for kind in ("image", "audio", "video"):
        parts += [{"type": kind, "url": address} for address in _contents(turn, kind)]
    content: Any = parts[0]["text"] if [part["type"] for part in parts] == ["text"] else parts
    return [{"role": turn.get("role") or "user", "content": content}] if parts else None


def _contents(turn: dict[str, Any], kind: str) -> list[str]:
    """The texts of a turn, or the addresses of its pictures and the like: one, a list, or a list of objects
    that hold some in `contents`. Raises ValueError."""
    held = turn.get(f"{kind}s") if turn.get(kind) is None else turn[kind]
    found: list[str] = []
    for each in held if isinstance(held, list) else [] if held is None else [held]:
        inner = each.get("contents") if isinstance(each, dict) else [each]
        if not isinstance(inner, list) or not all(isinstance(text, str) for text in inner):
            raise ValueError(f"{kind!a} is {what_it_is(each)}; write a text")
        found += inner
    return found


def _listed(value: Any, key: str, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{where} has {key!a} that is {what_it_is(value)}; write a list of sessions")
    return value


def _names(value: Any, key: str) -> list[str]:
    """Names of sessions: one, or a list. Raises ValueError."""
    names = value if isinstance(value, list) else [] if value is None else [value]
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise ValueError(f"{key!a} names {shown(name)}, which is {what_it_is(name)}; write a session_id")
    return [str(name) for name in names]


def _spawned(entry: Any, number: int, count: int, where: str) -> list[tuple[str, int | None]]:
    """Sessions that a turn spawns, each with the turn that waits for it. Raises ValueError."""
    join = number + 1 if number + 1 < count else None
    if not isinstance(entry, dict):
        return [(name, join) for name in _names(entry, "spawns")]
    if (given := entry.get("join_at")) is not None:
        if type(given) is not int or not number < given < count:
            raise ValueError(f"{where} has join_at {shown(given)}; write a later turn of the session, from 0")
        join = given
    return [(name, join) for name in _names(entry.get("children"), "children")]


def _seconds(delay_ms: Any, where: str) -> float:
    if delay_ms is None:
        return 0.0
    number = isinstance(delay_ms, int | float) and not isinstance(delay_ms, bool)
    if not number or not 0 <= delay_ms < math.inf:
        raise ValueError(f"{where} has a delay of {shown(delay_ms)}; write milliseconds from 0 on")
    return float(delay_ms) / 1000


class _LaidOut:
    """The turns of a session and of all below it, numbered so that each comes after those it waits for."""

    def __init__(self, session: Callable[[int | str], _Session]) -> None:
        self._session = session
        self._turns: list[RowTurn] = []

    def of(self, root: int) -> list[RowTurn]:
        self._lay(self._session(root), (), None)
        return self._turns

    def _lay(self, session: _Session, after: tuple[int, ...], continues: int | None) -> int:
        """Its last turn's number."""
        joins: dict[int, list[int]] = {}
        begins_with = after
        for number, turn in enumerate(session.turns):
            system, messages = None, turn.messages
            if continues is None:
                count = next(
                    n for n, each in enumerate([*messages, None]) if each is None or each["role"] != "system"
                )
                system = "\n\n".join(text_of(each) for each in messages[:count]) or None
                messages = messages[count:]
            place = Place((*after, *joins.pop(number, ())), continues, session.name, system)
            self._turns.append(
                RowTurn(
                    messages,
                    answer_tokens=turn.answer_tokens,
                    think_s=turn.think_s,
                    place=place,
                    tools=turn.tools,
                    body=turn.body,
                    stop=turn.stop,
                )
            )
            mine = len(self._turns) - 1
            if number == 0:
                for name in session.before:
                    self._lay(self._session(name), begins_with, None)
            for name in turn.forks:
                self._lay(self._session(name), (mine,), mine)
            for name, join in turn.spawns:
                last = self._lay(self._session(name), (mine,), None)
                if join is not None:
                    joins.setdefault(join, []).append(last)
            after, continues = (mine,), None if session.whole else mine
        return mine
