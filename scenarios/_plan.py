"""The plan: conversation k of a scenario, as a pure function of (scenario, seed, k)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from scenarios._bundle import as_tool, bundle
from scenarios._replay import conversation_of
from scenarios._scenario import Conversation, Scenario, Script, Turn
from scenarios._schema import Item, Task, TurnCount
from scenarios._turns import turn_pause, value
from turnbench.draws import geometric, pick, shuffled, stream

PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}|\{([a-z][a-z0-9_]*)\}")
"""`{name}` in a prompt stands for a text of the item; `{{name}}` is the literal `{name}`."""


def plan(scenario: Scenario, seed: int, k: int) -> Conversation:
    """Conversation k, from 0. In a finite scenario k = 0 .. size-1 plays each item of each task once."""
    if k < 0:
        raise ValueError(f"conversation {k}: they are numbered from 0")
    if scenario.own is not None:
        return conversation_of(scenario, scenario.own, seed, k)
    script = scenario.script
    task_index, item_index = _which(script, scenario.size, seed, k)
    task, item = script.tasks[task_index], script.items[task_index][item_index]
    drawn = partial(_prompt, script, task_index, item_index, seed, k)
    return Conversation(
        index=k,
        task=task.name,
        system=task.system,
        shared_system=task.shared,
        turns=tuple(_turns(task, item, drawn, seed, k)),
        sampling=dict(script.sampling[task_index]),
        tools=tuple(as_tool(tool) for tool in task.tools),
        history=task.history,
        at_context_end=task.at_context_end,
        needs_context=task.needs_context,
    )


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


Prompt = Callable[[int], tuple[str, str | None]]
"""The filled prompt of turn n, from 0, and what is remembered of it."""
Said = tuple[str, str | None, dict[str, Any] | None]
"""What is said, what is remembered of it, and the tool call that it answers."""


def _prompt(
    script: Script, task_index: int, item_index: int, seed: int, k: int, n: int
) -> tuple[str, str | None]:
    task, items = script.tasks[task_index], script.items[task_index]
    texts = items[(item_index + n) % len(items)].fields()
    remembered = fill(task.remember, texts) if task.remember else None
    if task.bundle is not None:
        tokens = value(task.bundle.tokens, stream(seed, k, "bundle_tokens", n))
        texts["bundle"] = bundle(script.bundles[task_index], texts, tokens, (seed, k, "bundle", n))
    return fill(task.prompt, texts), remembered


def _turns(task: Task, item: Item, prompt: Prompt, seed: int, k: int) -> Iterator[Turn]:
    thinks, lengths, leaves = (stream(seed, k, what) for what in ("think_s", "max_tokens", "leave"))
    words = 0.0
    for n, (text, remembered, call) in enumerate(_said(task, item, prompt, seed, k)):
        at_once = n == 0 or call is not None
        think_s, read_wpm, type_wpm = turn_pause(task.think_s, thinks, words, text, first=at_once)
        tokens = max(1, round(value(task.max_tokens, lengths)))
        words = 0.75 * tokens
        yield Turn(
            user=text,
            think_s=think_s,
            max_tokens=tokens,
            stop=task.stop,
            read_wpm=read_wpm,
            type_wpm=type_wpm,
            patience_s=task.patience.first_s,
            leave_after_s=task.patience.after_s if next(leaves) < task.patience.share else None,
            remembered=remembered,
            canned=task.replies[n % len(task.replies)] if task.replies else None,
            call=call,
        )


def _said(task: Task, item: Item, prompt: Prompt, seed: int, k: int) -> Iterator[Said]:
    """The messages: the prompt, the results of the item's tool calls, then follow-ups or fresh prompts."""
    number = task.turns
    if isinstance(number, TurnCount):
        number = geometric(stream(seed, k, "turns"), number.mean, number.max)
    yield (*prompt(0), None)
    for n, call in enumerate(item.calls, start=1):
        yield call.result, None, {"id": f"call_{k}_{n}", "name": call.tool, "arguments": call.arguments}
    if task.fresh:
        yield from ((*prompt(n), None) for n in range(1, number))
    else:
        yield from ((text, None, None) for text in islice(_follow_ups(task, item, seed, k), number - 1))


def _follow_ups(task: Task, item: Item, seed: int, k: int) -> Iterator[str]:
    """The item's own follow-ups in random order, then the task's."""
    for texts, whose in ((item.then, "item"), (task.then, "task")):
        keyed = list(zip(stream(seed, k, "then", whose), texts, strict=False))
        yield from (text for _, text in sorted(keyed))


def fill(prompt: str, texts: dict[str, str]) -> str:
    """The prompt with `{name}` replaced; the texts put in are not looked at again."""

    def one(match: re.Match[str]) -> str:
        return texts[match[2]] if match[2] else "{" + match[1] + "}"

    return PLACEHOLDER.sub(one, prompt)
