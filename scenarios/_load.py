"""From a name or a file to a checked Scenario, and from a Scenario to its one text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, cast

import yaml

from scenarios._builtin import built_in, names, texts, tree
from scenarios._check import check, texts_of
from scenarios._errors import ScenarioError
from scenarios._replay import FORMS, open_file, open_own
from scenarios._scenario import Scenario, Script
from scenarios._schema import FORMAT, Document, Item, OwnDocument, Task
from turnbench.draws import shuffled
from turnbench.problems import FOUND_MAX, Problem, nearest, quoted
from turnbench.strict_yaml import BYTES_MAX, Map, Seq, Text, read, shown, validated

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(name_or_path: str) -> Scenario:
    """A built-in scenario by name, or one from a YAML file. Raises ScenarioError with every mistake.

    `paper:24` is the built-in `paper` with `limit: 24` in each of its tasks.
    """
    name, _, limit = name_or_path.partition(":")
    found = (built_in("mixes") | built_in("tasks")).get(name)
    if found is not None and (limit.isdecimal() or name == name_or_path):
        return _limited(found, limit) if limit else parse(found.read_text(encoding="utf-8"), found.name)
    if name_or_path.endswith(FORMS) and Path(name_or_path).is_file():
        return open_file(name_or_path)
    return parse(_read_file(name_or_path), name_or_path)


def parse(text: str, source: str = "scenario.yaml") -> Scenario:
    """A scenario from its YAML text; `source` names it in messages. Raises ScenarioError."""
    root, problems = read(text, source, "scenario", start=f"format: {FORMAT}")
    if root is None:
        raise ScenarioError(problems)
    if not isinstance(root, Map):
        what = f"a scenario is a mapping; start it with 'format: {FORMAT}'"
        raise ScenarioError([*problems, Problem(source, root.line, what)])
    if "source" in root and "tasks" not in root:
        return _own(root, problems, source)
    own_sets = root["sets"] if isinstance(root.get("sets"), Map) else Map()
    whole = _with_sets(_with_tasks(root, problems), own_sets)
    problems += islice(check(whole, own_sets), FOUND_MAX)
    document, mistakes = validated(Document, whole, whole, "scenario", _own_words)
    if document is None or problems:
        raise ScenarioError([*problems, *mistakes])
    return _scenario(document)


def _own(root: Map, problems: list[Problem], source: str) -> Scenario:
    document, mistakes = validated(OwnDocument, root, root, "scenario", _own_words)
    if document is None or problems:
        raise ScenarioError([*problems, *mistakes])
    return open_own(document, source, str(Path(source).parent))


def _own_words(detail: Any, node: Any, key: str) -> str | None:
    """What only a scenario's author needs to know about a mistake."""
    kind, place = detail["type"], detail["loc"]
    if isinstance(node, Text) and not node.strip():
        return None
    if kind == "model_type" and place[:-1] == ("tasks",):
        return f"{quoted(key)} is {shown(node)}; write 'from: ' and a built-in task's name, or a task's keys"
    if kind == "extra_forbidden" and place[0] == "tasks" and len(place) == 3:
        use = nearest(place[2], [*Task.model_fields, "from"], "known keys")
        return f"unknown key {quoted(place[2])}; {use}"
    if kind == "string_pattern_mismatch":
        if key == "sha256":
            return f"'sha256' is {shown(node)}; write the 64 digits that sha256sum gives, or leave it out"
        what = "small letters, digits, '-' and '_' only, 40 at most, a letter or digit first"
        return f"{quoted(key)} is {shown(node)}; write {what}"
    return None


def _limited(path: Path, limit: str) -> Scenario:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["tasks"] = [task | {"limit": limit} for task in content["tasks"]]
    return parse(yaml.safe_dump(content, sort_keys=False), f"{path.stem}:{limit}")


def _read_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(BYTES_MAX + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScenarioError([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable name"
        what = f"no such built-in scenario, nor a readable file ({reason}); "
        what += nearest(path, names(), "built in")
        raise ScenarioError([Problem(quoted(path), 0, what)]) from None


def _with_tasks(root: Map, problems: list[Problem]) -> Map:
    """A copy of the tree in which each `from: NAME` is replaced by that built-in task's keys."""
    whole = _copy(root)
    if isinstance(root.get("tasks"), Seq):
        tasks = _marked(Seq(), root["tasks"])
        tasks.extend(_with_base(task, problems) for task in root["tasks"])
        whole["tasks"] = tasks
    return whole


def _with_base(task: Any, problems: list[Problem]) -> Any:
    if not isinstance(task, Map) or not isinstance(task.get("from"), Text):
        return task
    known = built_in("tasks")
    base = known.get(task["from"])
    if base is None:
        base = next(iter(known.values()))  # any will do: its keys are not what is missing here
        what = f"no built-in task {quoted(task['from'])}; "
        what += nearest(task["from"], known, "built-in tasks")
        problems.append(Problem(task["from"].source, task["from"].line, what))
    merged = _marked(Map(tree(base)["tasks"][0]), task)
    for key, value in task.items():
        merged.pop(key, None)  # so that the key, too, is the one of this file and marks its line
        if key != "from":
            merged[key] = value
    return merged


def _with_sets(root: Map, own: Map) -> Map:
    """The built-in sets of texts that tasks name and the file itself does not bring."""
    sets = _copy(own) if own else _marked(Map(), root)
    for task in root["tasks"] if isinstance(root.get("tasks"), Seq) else ():
        for name in texts_of(task):
            if name not in sets and name in built_in("texts"):
                sets[name] = texts(name)
    if "sets" not in root or isinstance(root["sets"], Map):
        root[_marked(Text("sets"), root)] = sets
    return root


def _marked(node: Any, like: Any) -> Any:
    node.source, node.line = like.source, like.line
    return node


def _copy(node: Map) -> Map:
    return cast(Map, _marked(Map(node), node))


def _scenario(document: Document) -> Scenario:
    script = Script(
        tasks=document.tasks,
        items=tuple(_kept(task, document.sets[task.texts]) for task in document.tasks),
        weights=tuple(task.weight for task in document.tasks),
        bundles=tuple(_documents(task, document.sets) for task in document.tasks),
        sampling=tuple(task.sampling.model_dump(exclude_none=True) for task in document.tasks),
    )
    finite = all(task.once for task in document.tasks)
    return Scenario(
        name=document.name,
        text=_text(document),
        size=sum(map(len, script.items)) if finite else None,
        tasks=tuple(task.name for task in document.tasks),
        slo={task.name: task.slo.model_dump(exclude_none=True) for task in document.tasks},
        description=document.description or "",
        script=script,
        needs_context={task.name: task.needs_context for task in document.tasks if task.needs_context},
    )


def _documents(task: Task, sets: dict[str, tuple[Item, ...]]) -> tuple[Item, ...]:
    return tuple(item for name in task.bundle.texts for item in sets[name]) if task.bundle else ()


def _kept(task: Task, items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items that the task's `limit` leaves, in their own order: of 24 and of 48 the 24 are a part."""
    if task.limit is None:
        return items
    return tuple(items[i] for i in sorted(shuffled(len(items), "limit", task.texts)[: task.limit]))


class _Writer(_DUMPER):  # type: ignore[misc]
    """YAML for people: texts of several lines as blocks."""


def _write_text(writer: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    if not text.replace("\n", " ").isprintable():
        style = '"'  # the only one in which rare line breaks and control characters come back unchanged
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(str, _write_text)


def _text(document: Document) -> str:
    """The whole document, sets last, as YAML that parse() reads back to the same document."""
    content = document.model_dump(mode="json", exclude={"sets"}, exclude_defaults=True)
    content["sets"] = {name: [_item(item) for item in items] for name, items in document.sets.items()}
    return str(yaml.dump(content, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100))


def _item(item: Item) -> dict[str, Any]:
    special = item.model_dump(
        mode="json", include={"choices", "answer", "then", "calls"}, exclude_defaults=True
    )
    return {**(item.__pydantic_extra__ or {}), **special}
