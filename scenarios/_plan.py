"""The plan: conversation k of a scenario, as a pure function of (scenario, seed, k)."""

from __future__ import annotations

import re
from base64 import b32encode
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import islice

from scenarios._draw import geometric, log_normal, pick, shuffled, stream
from scenarios._scenario import Conversation, Scenario, Script, Turn
from scenarios._schema import Item, Spread, Task, TurnCount

PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}|\{([a-z][a-z0-9_]*)\}")
"""`{name}` in a prompt stands for a text of the item; `{{name}}` is the literal `{name}`."""


def plan(scenario: Scenario, seed: int, k: int) -> Conversation:
    """Conversation k, from 0. In a finite scenario k = 0 .. size-1 plays each item of each task once."""
    if k < 0:
        raise ValueError(f"conversation {k}: they are numbered from 0")
    script = scenario.script
    task_index, item_index = _which(script, scenario.size, seed, k)
    task, item = script.tasks[task_index], script.items[task_index][item_index]
    turns = tuple(_turns(task, item, seed, k))
    return Conversation(k, task.name, task.system, task.shared, turns, dict(script.sampling[task_index]))


def _which(script: Script, size: int | None, seed: int, k: int) -> tuple[int, int]:
    if size is not None:
        return _cycle(script, size, seed, k // size)[k % size]
    task_index = pick(next(stream(seed, k, "task")), script.weights)
    # Items go round by k, not at random, so that the same text does not come twice in a row.
    rounds, place = divmod(k, len(script.items[task_index]))
    order = shuffled(len(script.items[task_index]), seed, rounds, "items", script.tasks[task_index].name)
    return task_index, order[place]


@lru_cache(maxsize=64)
def _cycle(script: Script, size: int, seed: int, cycle: int) -> tuple[tuple[int, int], ...]:
    """Every (task, item) once: each task in an order of its own, and the tasks evenly interleaved.

    The i-th item of a task with n of them falls at a random place in [i/n, (i+1)/n), so tasks of one
    length alternate in blocks that hold each of them once.
    """
    entries: list[tuple[float, int, int]] = []
    for index, (task, items) in enumerate(zip(script.tasks, script.items, strict=True)):
        order = shuffled(len(items), seed, cycle, "items", task.name)
        jitter = stream(seed, cycle, "interleave", task.name)
        entries += [((i + next(jitter)) / len(items), index, item) for i, item in enumerate(order)]
    return tuple((index, item) for _, index, item in sorted(entries))


def _turns(task: Task, item: Item, seed: int, k: int) -> Iterator[Turn]:
    number = task.turns
    if isinstance(number, TurnCount):
        number = geometric(stream(seed, k, "turns"), number.mean, number.max)
    thinks, lengths = stream(seed, k, "think_s"), stream(seed, k, "max_tokens")
    yield Turn(fill(task.prompt, item.fields()), 0.0, _tokens(task, lengths), task.stop)
    for text in islice(_follow_ups(task, item, seed, k), number - 1):
        yield Turn(text, round(_value(task.think_s, thinks), 2), _tokens(task, lengths), task.stop)


def _follow_ups(task: Task, item: Item, seed: int, k: int) -> Iterator[str]:
    """The item's own follow-ups in random order, then the task's."""
    for texts, whose in ((item.then, "item"), (task.then, "task")):
        keyed = list(zip(stream(seed, k, "then", whose), texts, strict=False))
        yield from (text for _, text in sorted(keyed))


def _tokens(task: Task, draws: Iterator[float]) -> int:
    return max(1, round(_value(task.max_tokens, draws)))


def _value(source: float | Spread, draws: Iterator[float]) -> float:
    if not isinstance(source, Spread):
        return source
    drawn = max(source.min, log_normal(next(draws), source.median, source.p90))
    return drawn if source.max is None else min(source.max, drawn)


def fill(prompt: str, texts: dict[str, str]) -> str:
    """The prompt with `{name}` replaced; the texts put in are not looked at again."""

    def one(match: re.Match[str]) -> str:
        return texts[match[2]] if match[2] else "{" + match[1] + "}"

    return PLACEHOLDER.sub(one, prompt)


def opening(conversation: Conversation, salt: str, level: int) -> list[dict[str, str]]:
    """The messages of the first request: the system message, if there is one, and the first user message.

    The first of them starts with a tag of (salt, level, conversation), so that no server can answer it
    from the prefix cache of an earlier one. A shared system message has a tag of (salt, level) only: it
    is meant to be found in the cache, but not from an earlier run or level.
    """
    own = _tag(salt, level, conversation.index)
    user = {"role": "user", "content": conversation.turns[0].user}
    if conversation.system is None:
        return [user | {"content": own + user["content"]}]
    if not conversation.shared_system:
        return [{"role": "system", "content": own + conversation.system}, user]
    return [
        {"role": "system", "content": _tag(salt, level, "shared") + conversation.system},
        user | {"content": own + user["content"]},
    ]


def _tag(salt: str, level: int, which: int | str) -> str:
    """`[8 letters] `: 40 bits, so that a million conversations hardly ever share one."""
    digest = sha256(f"{level}/{which}/{salt}".encode()).digest()
    return f"[{b32encode(digest[:5]).decode().lower()}] "
