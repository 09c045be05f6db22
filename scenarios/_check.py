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

_OPTIONAL = {"then", "calls", "key"}
"""Keys of an item that another item of its set may lack."""
_TRUE = ("true", "yes", "on", "1", "t", "y")
"""The words that pydantic takes for true."""


def check(root: Map, own_sets: Map) -> Iterator[Problem]:
    """Every mistake between parts. `root` has built-in tasks and sets merged in; `own_sets` are the
    sets that the file itself has."""
    tasks = [task for task in _seq(root.get("tasks")) if isinstance(task, Map)]
    sets = root.get("sets")
    sets = sets if isinstance(sets, Map) else Map()
    yield from _same_names(tasks)
    yield from _idle_weights(tasks)
    used = {name for task in tasks for name in texts_of(task)}
    for name in own_sets:
        if name not in used:
            what = f"no task uses the texts {quoted(name)}; tasks use {listed(used)}"
            yield _at(key_of(own_sets, name), what)
    for items in sets.values():
        yield from _uneven(_seq(items))
    for task in tasks:
        yield from _lonely_keys(task)
        for name in texts_of(task):
            if name not in sets:
                yield _at(name, f"no set of texts is named {quoted(name)}; {nearest(name, sets, 'sets')}")
        texts = task.get("texts")
        items = _seq(sets.get(texts)) if isinstance(texts, Text) else Seq()
        if maps := [item for item in items if isinstance(item, Map)]:
            yield from _placeholders(task, maps[0])
            yield from _too_few_follow_ups(task, maps)
            yield from _without_keys(task, maps)


def texts_of(task: Any) -> list[Any]:
    """The names of all sets that a task draws on, as far as they are texts; `task` of a tree or of JSON."""
    if not isinstance(task, dict):
        return []
    bundle = task.get("bundle")
    more = bundle.get("texts") if isinstance(bundle, dict) else []
    found = [task.get("texts"), *(more if isinstance(more, list) else [])]
    return [name for name in found if isinstance(name, str)]


def _lonely_keys(task: Map) -> Iterator[Problem]:
    """Keys that mean nothing without another one."""
    if "shared" in task and "system" not in task:
        what = "'shared' is about the system message; add 'system: ...' or drop it"
        yield _at(key_of(task, "shared"), what)
    canned = task.get("history") == "canned"
    if canned and not _seq(task.get("replies")):
        yield _at(key_of(task, "history"), "'history: canned' needs replies; add 'replies: [...]'")
    if not canned and "replies" in task:
        what = "'replies' are used with 'history: canned' only; add it or drop them"
        yield _at(key_of(task, "replies"), what)
    if "remember" in task and not _is_true(task.get("fresh")):
        yield _at(key_of(task, "remember"), "'remember' is about fresh prompts; add 'fresh: true' or drop it")


def _placeholders(task: Map, item: Map) -> Iterator[Problem]:
    """Names in the prompt that the texts do not have."""
    prompt = task.get("prompt")
    known = {key for key in item if key not in _OPTIONAL} | ({"answer_text"} if "choices" in item else set())
    known |= {"bundle"} if "bundle" in task else set()
    for match in PLACEHOLDER.finditer(prompt if isinstance(prompt, Text) else ""):
        if match[2] and match[2] not in known:
            use = nearest(match[2], known, "its texts have")
            what = f"the prompt uses {quoted('{' + match[2] + '}')}, which its texts do not have; {use}"
            yield _at(_near(task, "prompt"), what)


def _too_few_follow_ups(task: Map, items: list[Map]) -> Iterator[Problem]:
    if not isinstance(task.get("then", Seq()), Seq) or _is_true(task.get("fresh")):
        return
    turns = task.get("turns")
    turns = turns.get("max") if isinstance(turns, Map) else turns
    try:
        number = float(turns) if isinstance(turns, Text) else 0.0
    except ValueError:
        return  # no number: reported elsewhere, as are those out of range
    highest = int(number) if 0 <= number <= 100 else 0
    fewest = min(len(_seq(item.get("then"))) for item in items) + len(_seq(task.get("then")))
    if highest - 1 > fewest:
        what = f"{highest} turns need {highest - 1} follow-ups, but there are {fewest}; "
        yield _at(_near(task, "turns"), what + "add some to 'then' or lower the turns")


def _without_keys(task: Map, items: list[Map]) -> Iterator[Problem]:
    """A task whose answers are to be scored, but no item says what is right."""
    needed = {"choice": "choices", "key": "key"}.get(str(task.get("score")))
    if needed is not None and not any(needed in item for item in items):
        what = f"'score: {task['score']}' needs texts with {quoted(needed)}; add it to them or drop 'score'"
        yield _at(_near(task, "score"), what)


def _same_names(tasks: list[Map]) -> Iterator[Problem]:
    seen: dict[str, Text] = {}
    for task in tasks:
        name = task.get("name")
        if isinstance(name, Text) and seen.setdefault(name, name) is not name:
            what = f"two tasks are named {quoted(name)} (line {seen[name].line}); give one another 'name'"
            yield _at(task, what)


def _idle_weights(tasks: list[Map]) -> Iterator[Problem]:
    """Where every task is played once, a weight would change nothing: say so instead of ignoring it."""
    if len(tasks) < 2 or not all(_is_true(task.get("once")) for task in tasks):
        return
    what = "a weight has no effect where all tasks play their texts once; drop it, or set 'once: false'"
    for task in tasks:
        if "weight" in task and task["weight"] not in ("1", "1.0"):
            yield _at(key_of(task, "weight"), what)


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


def _is_true(node: Any) -> bool:
    return str(node).lower() in _TRUE
