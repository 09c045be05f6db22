"""The plan: conversation k of a scenario, as a pure function of (scenario, seed, k).

Every draw comes from a stream that is named after the seed, k and what is drawn, so no conversation depends
on the ones planned before it. A scenario of tasks plays their items; one of a data file plays its rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

from scenarios._scenario import Conversation, OwnData, Scenario, Script, Turn
from scenarios._schema import Item, Pace, Spread, Task, TurnCount
from scenarios._texts import CHARACTERS_PER_TOKEN
from scenarios.data import is_plain, text_of
from turnbench.answers import AnswerKey
from turnbench.draws import geometric, log_normal, pick, shuffled, stream

PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}|\{([a-z][a-z0-9_]*)\}")
"""`{name}` in a prompt stands for a text of the item; `{{name}}` is the literal `{name}`."""
_WORDS_PER_TOKEN = 0.75


def plan(scenario: Scenario, seed: int, k: int) -> Conversation:
    """Conversation k, from 0. In a finite scenario k = 0 .. size-1 plays each item of each task once."""
    if k < 0:
        raise ValueError(f"conversation {k}: they are numbered from 0")
    if scenario.own is not None:
        return _of_row(scenario.own, scenario.tasks[0], seed, k)
    script = scenario.script
    task_index, item_index = _which(script, scenario.size, seed, k)
    task = script.tasks[task_index]
    return Conversation(
        index=k,
        task=task.name,
        system=task.system,
        shared_system=task.shared,
        turns=tuple(_turns(script, task_index, item_index, seed, k)),
        sampling=dict(script.sampling[task_index]),
        tools=tuple(tool.as_function() for tool in task.tools),
        history=task.history,
        at_context_end=task.at_context_end,
        needs_context=task.needs_context,
    )


def think_after(turn: Turn, reply_words: int) -> float:
    """Seconds that a person waits before this turn, after a reply of so many words.

    Where the turn has a pace: reading at `read_wpm`, then typing the turn at `type_wpm`; else `think_s`.
    """
    if turn.read_wpm is None or turn.type_wpm is None:
        return turn.think_s
    return _pace_s(turn.read_wpm, turn.type_wpm, reply_words, turn.user)


def arrivals(scenario: Scenario) -> Iterator[float]:
    """When each conversation of a trace starts, in seconds from the first. Raises ValueError for a scenario
    that has no times of its own."""
    if scenario.own is None or not scenario.timed:
        raise ValueError(f"scenario {scenario.name} has no times of its own; use a trace or an arrival rate")
    rows = scenario.own.rows
    return (rows.arrival_s(i) for i in range(len(rows)))


def rows_too_long(scenario: Scenario, context: int | None) -> frozenset[int]:
    """The rows of a data file that say they need more than `context` tokens, with their answer; None: the
    model's context has no end."""
    if context is None or scenario.own is None:
        return frozenset()
    rows = scenario.own.rows
    return frozenset(row for row in range(len(rows)) if (rows.context_tokens(row) or 0) > context)


def _which(script: Script, size: int | None, seed: int, k: int) -> tuple[int, int]:
    """The task of conversation k, and the item that opens it."""
    if size is not None:
        return _cycle(script, size, seed, k // size)[k % size]
    task_index = 0 if len(script.weights) == 1 else pick(next(stream(seed, k, "task")), script.weights)
    # Items go round by k, not at random, so that the same text does not come twice in a row.
    rounds, place = divmod(k, len(script.items[task_index]))
    order = shuffled(len(script.items[task_index]), seed, rounds, "items", script.tasks[task_index].name)
    return task_index, order[place]


@lru_cache(maxsize=4)
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


def _turns(script: Script, task_index: int, item_index: int, seed: int, k: int) -> Iterator[Turn]:
    task, items = script.tasks[task_index], script.items[task_index]
    thinks, lengths, leaves = (stream(seed, k, what) for what in ("think_s", "max_tokens", "leave"))

    def prompt(n: int) -> tuple[str, str | None]:
        """The filled prompt of turn n, from 0, and what is remembered of it."""
        texts = items[(item_index + n) % len(items)].fields()
        remembered = _filled(task.remember, texts) if task.remember else None
        if task.bundle is not None:
            tokens = _drawn(task.bundle.tokens, stream(seed, k, "bundle_tokens", n))
            texts["bundle"] = _bundle(script.bundles[task_index], texts, tokens, (seed, k, "bundle", n))
        return _filled(task.prompt, texts), remembered

    words, patience = 0.0, task.patience

    def key(n: int) -> AnswerKey | None:
        """What is right of turn n, which only prompts have, not the follow-ups to them."""
        if task.score is None or (n > 0 and not task.fresh) or items[item_index].calls:
            return None
        return items[(item_index + n) % len(items)].answer_key(task.score)

    for n, (text, remembered, call) in enumerate(_said(task, items[item_index], prompt, seed, k)):
        think = 0.0 if n == 0 or call is not None else task.think_s
        think_s, read_wpm, type_wpm = _pause(think, thinks, words, text)
        tokens = max(1, round(_drawn(task.max_tokens, lengths)))
        words = _WORDS_PER_TOKEN * tokens
        yield Turn(
            user=text,
            think_s=think_s,
            max_tokens=tokens,
            stop=task.stop,
            read_wpm=read_wpm,
            type_wpm=type_wpm,
            patience_s=task.patience.first_s,
            leave_after_s=patience.after_s if patience.share and next(leaves) < patience.share else None,
            remembered=remembered,
            canned=task.replies[n % len(task.replies)] if task.replies else None,
            call=call,
            key=key(n),
        )


Said = tuple[str, str | None, dict[str, Any] | None]
"""What is said, what is remembered of it, and the tool call that it answers."""


def _said(
    task: Task, item: Item, prompt: Callable[[int], tuple[str, str | None]], seed: int, k: int
) -> Iterator[Said]:
    """The messages: the prompt, the results of the item's tool calls, then fresh prompts or follow-ups: the
    item's own in random order, then the task's."""
    number = task.turns
    if isinstance(number, TurnCount):
        number = geometric(stream(seed, k, "turns"), number.mean, number.max)
    yield (*prompt(0), None)
    for n, call in enumerate(item.calls, start=1):
        yield call.result, None, {"id": f"call_{k}_{n}", "name": call.tool, "arguments": call.arguments}
    if task.fresh:
        yield from ((*prompt(n), None) for n in range(1, number))
        return
    keyed = (
        sorted(zip(stream(seed, k, "then", whose), texts, strict=False))
        for texts, whose in ((item.then, "item"), (task.then, "task"))
    )
    follow_ups = (text for each in keyed for _, text in each)
    yield from ((text, None, None) for text in islice(follow_ups, number - 1))


def _of_row(own: OwnData, task: str, seed: int, k: int) -> Conversation:
    """Conversation k of a data file: a trace in its own order, other files in a seeded one."""
    rounds, place = divmod(k, len(own.rows))
    row = place if own.rows.timed else shuffled(len(own.rows), seed, rounds, "rows")[place]
    content = own.rows.row(row)
    thinks, words = stream(seed, k, "think_s"), 0
    turns = []
    for n, each in enumerate(content.turns):
        reply, user = each.reply, "\n\n".join(text_of(message) for message in each.added)
        tokens = each.answer_tokens
        if tokens is None:
            tokens = max(1, round(len(reply) / CHARACTERS_PER_TOKEN)) if reply else own.source.max_tokens
        think = own.source.think_s if n > 0 else 0.0
        think_s, read_wpm, type_wpm = _pause(think, thinks, words, user)
        if each.think_s is not None:
            think_s, read_wpm, type_wpm = each.think_s, None, None
        words = len(reply.split())
        turns.append(
            Turn(
                user,
                think_s,
                tokens,
                stop=each.stop or content.stop,
                prompt_tokens=each.prompt_tokens,
                read_wpm=read_wpm,
                type_wpm=type_wpm,
                canned=reply or None,
                key=each.key,
                added=() if len(each.added) == 1 and is_plain(each.added[0]) else tuple(each.added),
                given=tuple(each.given),
                place=each.place and replace(each.place, system=each.place.system or own.source.system),
                tools=None if each.tools is None else tuple(each.tools),
                body=each.body,
            )
        )
    return Conversation(
        index=k,
        task=task,
        system=content.system or own.source.system,
        shared_system=False,
        turns=tuple(turns),
        sampling=content.body | own.source.sampling.model_dump(exclude_none=True),
        tools=tuple(content.tools),
        history=own.source.history,
        at_context_end=own.source.at_context_end,
        needs_context=own.rows.context_tokens(row),
        shared_start=own.rows.shares_prefixes,
    )


def _pause(
    think: float | Spread | Pace, draws: Iterator[float], words: float, text: str
) -> tuple[float, float | None, float | None]:
    """think_s, read_wpm and type_wpm of a turn with this text, after a reply of about so many words."""
    if isinstance(think, Pace):
        pace_s = _pace_s(think.read_wpm, think.type_wpm, words, text)
        return round(pace_s, 2), think.read_wpm, think.type_wpm
    return round(_drawn(think, draws), 2), None, None


def _pace_s(read_wpm: float, type_wpm: float, words: float, text: str) -> float:
    """Seconds to read so many words and then to type the text."""
    return 60.0 * (words / read_wpm + len(text.split()) / type_wpm)


def _drawn(value: float | Spread, draws: Iterator[float]) -> float:
    """A fixed value as it is, a spread drawn."""
    if not isinstance(value, Spread):
        return value
    drawn = max(value.min, log_normal(next(draws), value.median, value.p90))
    return drawn if value.max is None else min(value.max, drawn)


def _filled(prompt: str, texts: dict[str, str]) -> str:
    """The prompt with `{name}` replaced; the texts put in are not looked at again."""
    return PLACEHOLDER.sub(lambda match: texts[match[2]] if match[2] else "{" + match[1] + "}", prompt)


def _bundle(
    documents: tuple[Item, ...], own: Mapping[str, str], tokens: float, name: tuple[int | str, ...]
) -> str:
    """Documents in an order decided by `name`, until there are about so many tokens; `own` is one of them."""

    def page(texts: Mapping[str, str]) -> str:
        return f"## {texts['title']}\n\n{texts['text']}" if "title" in texts else texts.get("text", "")

    mine = page(own) if "text" in own else ""
    pages, left = [mine] * bool(mine), tokens * CHARACTERS_PER_TOKEN - len(mine)
    for index in shuffled(len(documents), *name):
        other = page(documents[index].fields())
        if other != mine and len(other) < left:
            pages.append(other)
            left -= len(other)
    return "\n\n".join(pages[i] for i in shuffled(len(pages), *name, "order"))
