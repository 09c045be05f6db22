"""From a name or a file to a checked Scenario, and from a Scenario to its one text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from scenarios._check import check, texts_of
from scenarios._scenario import OwnData, Scenario, ScenarioError, Script
from scenarios._schema import FORMAT, DataDocument, Document, Item, Source, Task
from scenarios._texts import built_in, names, texts, tree
from scenarios.data import HUB, DataFile, DataSource, is_data, open_data
from turnbench.checked_yaml import shown, validated
from turnbench.draws import shuffled
from turnbench.files import open_file
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.problems import FOUND_MAX, FileProblems, Problem, nearest, quoted
from turnbench.strict_yaml import BYTES_MAX, Map, Seq, Text, marked, read, too_large

BAD_ROWS_SKIPPED = note("bad_rows_skipped",
    "{:,} row{} of {} cannot be played and {were} skipped: {}{}",
    "mend them; scenarios check names each",
    {"were": ["were", "was"]})  # fmt: skip
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(name_or_path: str, *, skip_bad_rows: bool = False) -> Scenario:
    """A built-in scenario by name, or one from a YAML file, a file of data or a set of the hub (`hf:REPO`).
    Raises ScenarioError with every mistake; with `skip_bad_rows`, rows that cannot be played are notes.

    `paper:24` is the built-in `paper` with `limit: 24` in each of its tasks.
    """
    name, _, limit = name_or_path.partition(":")
    found = (built_in("mixes") | built_in("tasks")).get(name)
    if found is not None and (limit.isdecimal() or name == name_or_path):
        text = found.read_text(encoding="utf-8")
        if not limit:
            return parse(text, found.name)
        content = yaml.safe_load(text)
        content["tasks"] = [task | {"limit": limit} for task in content["tasks"]]
        return parse(yaml.safe_dump(content, sort_keys=False), name_or_path)
    if name_or_path.startswith(HUB) or (is_data(name_or_path) and os.path.isfile(name_or_path)):
        source = Source(path=name_or_path, skip_bad_rows=skip_bad_rows)
        stem = name_or_path.removeprefix(HUB) if name_or_path.startswith(HUB) else Path(name_or_path).stem
        title = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem.lower())
        document = DataDocument(format=FORMAT, name=title.strip("-")[:40] or "own", source=source)
        return _of_data(document, name_or_path, folder="")
    return parse(_text_of(name_or_path), name_or_path, skip_bad_rows=skip_bad_rows)


def parse(text: str, source: str = "scenario.yaml", *, skip_bad_rows: bool = False) -> Scenario:
    """A scenario from its YAML text; `source` names it in messages. Raises ScenarioError."""
    root, problems = read(text, source, "scenario", start=f"format: {FORMAT}")
    if root is None:
        raise ScenarioError(problems)
    if not isinstance(root, Map):
        what = f"a scenario is a mapping; start it with 'format: {FORMAT}'"
        raise ScenarioError([*problems, Problem(source, root.line, what)])
    if "source" in root and "tasks" not in root:
        about, mistakes = validated(DataDocument, root, root, "scenario", _explain)
        if about is None or problems:
            raise ScenarioError([*problems, *mistakes])
        if skip_bad_rows:
            about = about.model_copy(
                update={"source": about.source.model_copy(update={"skip_bad_rows": True})}
            )
        return _of_data(about, source, folder=str(Path(source).parent))
    own_sets = root["sets"] if isinstance(root.get("sets"), Map) else marked(Map(), root)
    whole = _expanded(root, own_sets, problems)
    problems += islice(check(whole, own_sets), FOUND_MAX)
    document, mistakes = validated(Document, whole, whole, "scenario", _explain)
    if document is None or problems:
        raise ScenarioError([*problems, *mistakes])
    return _scenario(document)


def fitting(scenario: Scenario, context: int) -> tuple[Scenario, dict[str, int]]:
    """The scenario without the tasks that need more than `context` tokens, and what each of those needs.

    Raises ScenarioError where no task remains.
    """
    skipped = {task: needed for task, needed in scenario.needs_context.items() if needed > context}
    if not skipped:
        return scenario, {}
    if set(skipped) == set(scenario.tasks):
        least = min(skipped.values())
        what = f"every task needs a context of {least} tokens at least, the model has {context}"
        raise ScenarioError([Problem(scenario.name, 0, f"{what}; serve one with more, or other tasks")])
    content = yaml.safe_load(scenario.text)
    content["tasks"] = [task for task in content["tasks"] if task["name"] not in skipped]
    used = {name for task in content["tasks"] for name in texts_of(task)}
    content["sets"] = {name: items for name, items in content["sets"].items() if name in used}
    return parse(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), scenario.name), skipped


def _explain(detail: Any, node: Any, key: str) -> str | None:
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


def _text_of(path: str) -> str:
    """The text of a scenario file, or the advice that a mistyped name needs. Raises ScenarioError."""
    try:
        with open_file(path) as file:
            content = file.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            raise ScenarioError([too_large(path, "scenario", Path(path).stat().st_size)])
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScenarioError([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable name"
        if os.path.lexists(path):
            what = f"not readable ({reason}); name a file, or a built-in scenario"
        else:
            what = f"no such built-in scenario, nor a readable file ({reason}); "
            what += nearest(path, names(), "built in")
        raise ScenarioError([Problem(quoted(path), 0, what)]) from None


def _expanded(root: Map, own_sets: Map, problems: list[Problem]) -> Map:
    """A copy of the tree with the built-in parts in it: the keys of the task that a `from: NAME` names, and
    the sets of texts that tasks name and the file itself lacks."""
    whole = marked(Map(root), root)
    if isinstance(root.get("tasks"), Seq):
        whole["tasks"] = marked(Seq(_with_base(task, problems) for task in root["tasks"]), root["tasks"])
    if "sets" in root and not isinstance(root["sets"], Map):
        return whole
    sets = marked(Map(own_sets), own_sets)
    for task in whole["tasks"] if isinstance(root.get("tasks"), Seq) else ():
        for name in texts_of(task):
            if name not in sets and name in built_in("texts"):
                sets[name] = texts(name)
    whole[marked(Text("sets"), root)] = sets
    return whole


def _with_base(task: Any, problems: list[Problem]) -> Any:
    """A task with the keys of the built-in one that it starts from; without `from` it stays as it is."""
    if not isinstance(task, Map) or not isinstance(task.get("from"), Text):
        return task
    known = built_in("tasks")
    base = known.get(task["from"])
    if base is None:
        base = next(iter(known.values()))  # any will do: its keys are not what is missing here
        what = f"no built-in task {quoted(task['from'])}; {nearest(task['from'], known, 'built-in tasks')}"
        problems.append(Problem(task["from"].source, task["from"].line, what))
    merged = marked(Map(tree(base)["tasks"][0]), task)
    for key, value in task.items():
        merged.pop(key, None)  # so that the key, too, is the one of this file and marks its line
        if key != "from":
            merged[key] = value
    return merged


def _of_data(document: DataDocument, source: str, folder: str) -> Scenario:
    """The scenario of a document about a file; a relative path starts at `folder`. Raises ScenarioError."""
    about, path = document.source, document.source.path
    if not path.startswith(HUB):
        path = str(Path(folder, path))
    asked = DataSource(path, about.prompt, about.time_unit, about.block_tokens)
    try:
        rows = open_data(asked, about.kind, skip_bad_rows=about.skip_bad_rows)
        sha256 = rows.sha256(path)
    except FileProblems as error:
        raise ScenarioError(error.found) from None
    if about.sha256 not in (None, sha256):
        what = f"{path!a} has changed since this scenario was written; restore it, or drop 'sha256'"
        raise ScenarioError([Problem(source, 0, what)])
    whole_path = path if path.startswith(HUB) else str(Path(path).resolve())
    found = {"path": whole_path, "kind": rows.kind, "sha256": sha256}
    about = about.model_copy(update=found)
    document = document.model_copy(update={"source": about})
    content = document.model_dump(mode="json", exclude_defaults=True)
    passed_over = f", {rows.passed_over:,} passed over" if rows.passed_over else ""
    passed_over += f", {rows.refused:,} skipped" if rows.refused else ""
    return Scenario(
        name=document.name,
        text=str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
        size=len(rows),
        tasks=(rows.kind,),
        slo={rows.kind: about.slo.model_dump(exclude_none=True)},
        description=document.description or f"{len(rows):,} rows of {Path(path).name}{passed_over}.",
        script=Script((), (), (), ()),
        own=OwnData(about, rows),
        needs=rows.needs,
        notes=(*_skipped(rows, path), *rows.notes()),
    )


def _skipped(rows: DataFile, path: str) -> Iterator[Finding]:
    """What was skipped of a file, with the first of its bad rows."""
    if rows.refused:
        first = "; ".join(str(problem) for problem in rows.problems[:3])
        more = f"; and {rows.refused - 3:,} more" if rows.refused > 3 else ""
        s, were = ("s", "were") if rows.refused > 1 else ("", "was")
        yield BAD_ROWS_SKIPPED.finding(rows.refused, s, Path(path).name, first, more, were=were)


def _scenario(document: Document) -> Scenario:
    script = Script(
        tasks=document.tasks,
        items=tuple(_kept(task, document.sets[task.texts]) for task in document.tasks),
        weights=tuple(task.weight for task in document.tasks),
        bundles=tuple(
            tuple(item for name in task.bundle.texts for item in document.sets[name]) if task.bundle else ()
            for task in document.tasks
        ),
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


def _kept(task: Task, items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items within the task's `limit`, in their own order. Those of a lower limit are among those of a
    higher one."""
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
    special = {"choices", "answer", "then", "calls", "key"}
    content["sets"] = {
        name: [
            {
                **(item.__pydantic_extra__ or {}),
                **item.model_dump(mode="json", include=special, exclude_defaults=True),
            }
            for item in items
        ]
        for name, items in document.sets.items()
    }
    return str(yaml.dump(content, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100))
