"""What holds between the parts of a scenario: tasks and their texts, prompts and the names they use.

These checks read the marked tree, not the validated document, so that they still find their mistakes in
a file that has others: a person sees all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scenarios._plan import PLACEHOLDER
from turnbench.problems import Problem, listed, nearest, quoted
from turnbench.strict_yaml import Map, Seq, Text, key_of

_OPTIONAL = {"then", "calls"}
_TRUE = ("true", "yes", "on", "1", "t", "y")
"""The words that pydantic takes for true."""


def check(root: Map, own_sets: Map) -> Iterator[Problem]:
    """Every mistake between parts. `root` has built-in tasks and sets merged in; `own_sets` are the
    sets that the file itself brought."""
    tasks = [task for task in _seq(root.get("tasks")) if isinstance(task, Map)]
    sets = root.get("sets")
    sets = sets if isinstance(sets, Map) else Map()
    yield from _same_names(tasks)
    yield from _idle_weights(tasks)
    yield from _unused(own_sets, tasks)
    for items in sets.values():
        yield from _uneven(_seq(items))
    for task in tasks:
        yield from _task(task, sets)


def _task(task: Map, sets: Map) -> Iterator[Problem]:
    if "shared" in task and "system" not in task:
        yield _at(
            key_of(task, "shared"), "'shared' is about the system message; add 'system: ...' or drop it"
        )
    yield from _incomplete(task)
    for name in texts_of(task):
        if name not in sets:
            yield _at(name, f"no set of texts is named {quoted(name)}; {nearest(name, sets, 'sets')}")
    texts = task.get("texts")
    if not isinstance(texts, Text) or texts not in sets:
        return
    items = [item for item in _seq(sets[texts]) if isinstance(item, Map)]
    if items:
        yield from _placeholders(task, items[0])
        yield from _too_few_follow_ups(task, items)


def texts_of(task: Any) -> list[Text]:
    """The names of all sets that a task draws on, as far as they are texts."""
    if not isinstance(task, Map):
        return []
    bundle = task.get("bundle")
    more = _seq(bundle.get("texts")) if isinstance(bundle, Map) else []
    return [name for name in [task.get("texts"), *more] if isinstance(name, Text)]


def _incomplete(task: Map) -> Iterator[Problem]:
    """Keys that mean nothing without another one."""
    if task.get("history") == "canned" and not _seq(task.get("replies")):
        yield _at(
            key_of(task, "history"), "'history: canned' needs the replies to tell; add 'replies: [...]'"
        )
    if task.get("history") != "canned" and "replies" in task:
        yield _at(
            key_of(task, "replies"), "'replies' are told with 'history: canned' only; add it or drop them"
        )
    if "remember" in task and str(task.get("fresh")).lower() not in _TRUE:
        yield _at(key_of(task, "remember"), "'remember' is about fresh prompts; add 'fresh: true' or drop it")


def _placeholders(task: Map, item: Map) -> Iterator[Problem]:
    prompt = task.get("prompt")
    known = {key for key in item if key not in _OPTIONAL} | ({"answer_text"} if "choices" in item else set())
    known |= {"bundle"} if "bundle" in task else set()
    for match in PLACEHOLDER.finditer(prompt if isinstance(prompt, Text) else ""):
        if match[2] and match[2] not in known:
            use = nearest(match[2], known, "its texts have")
            text = f"the prompt asks for {quoted('{' + match[2] + '}')}, which the texts have not; {use}"
            yield _at(_near(task, "prompt"), text)


def _too_few_follow_ups(task: Map, items: list[Map]) -> Iterator[Problem]:
    if not isinstance(task.get("then", Seq()), Seq) or str(task.get("fresh")).lower() in _TRUE:
        return
    turns = task.get("turns")
    highest = _whole(turns.get("max") if isinstance(turns, Map) else turns)
    fewest = min(len(_seq(item.get("then"))) for item in items) + len(_seq(task.get("then")))
    if highest - 1 > fewest:
        text = f"{highest} turns need {highest - 1} follow-ups, but there are {fewest}; "
        yield _at(_near(task, "turns"), text + "add some to 'then' or lower the turns")


def _whole(node: Any) -> int:
    """The whole number a scalar stands for, or 0; numbers out of range are told elsewhere."""
    try:
        number = float(node) if isinstance(node, Text) else 0.0
    except ValueError:
        return 0
    return int(number) if 0 <= number <= 100 else 0


def _same_names(tasks: list[Map]) -> Iterator[Problem]:
    seen: dict[str, Text] = {}
    for task in tasks:
        name = task.get("name")
        if isinstance(name, Text) and seen.setdefault(name, name) is not name:
            first = seen[name]
            yield _at(
                task, f"two tasks are named {quoted(name)} (line {first.line}); give one another 'name'"
            )


def _idle_weights(tasks: list[Map]) -> Iterator[Problem]:
    """Where every task is played once, a weight would change nothing: say so instead of ignoring it."""
    if len(tasks) < 2 or not all(str(task.get("once")).lower() in _TRUE for task in tasks):
        return
    for task in tasks:
        if "weight" in task and task["weight"] not in ("1", "1.0"):
            text = (
                "a weight has no effect where all tasks play their texts once; drop it, or set 'once: false'"
            )
            yield _at(key_of(task, "weight"), text)


def _unused(own_sets: Map, tasks: list[Map]) -> Iterator[Problem]:
    used = {name for task in tasks for name in texts_of(task)}
    told = listed(used)
    for name in own_sets:
        if name not in used:
            yield _at(key_of(own_sets, name), f"no task uses the texts {quoted(name)}; tasks use {told}")


def _uneven(items: Seq) -> Iterator[Problem]:
    """Items of one set must have the same keys: that is how a mistyped one shows."""
    maps = [item for item in items if isinstance(item, Map)]
    wanted = set(maps[0]) - _OPTIONAL if maps else set()
    for item in maps[1:]:
        for key in item:
            if key not in wanted | _OPTIONAL:
                use = nearest(key, wanted, "keys")
                yield _at(key_of(item, key), f"key {quoted(key)} is not in the set's first item; {use}")
        for key in sorted(wanted - set(item)):
            yield _at(item, f"no {quoted(key)} here, which the set's first item has; add it")


def _near(task: Map, name: str) -> Text | Map:
    """Where to point for a key: at the task, if the key came with the built-in one it starts from."""
    key = key_of(task, name)
    return key if key.source == task.source else task


def _at(mark: Any, text: str) -> Problem:
    return Problem(mark.source, mark.line, text)


def _seq(node: Any) -> Seq:
    return node if isinstance(node, Seq) else Seq()
