"""What of a scenario a model can be asked at all, by the tokens of context that it has."""

from __future__ import annotations

import yaml

from scenarios._check import texts_of
from scenarios._errors import ScenarioError
from scenarios._load import parse
from scenarios._scenario import Scenario
from scenarios._trace import Trace
from turnbench.problems import Problem


def fitting(scenario: Scenario, context: int) -> tuple[Scenario, dict[str, int]]:
    """The scenario without the tasks that need more than `context` tokens, and what each of those needs.

    Raises ScenarioError where no task is left.
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


def rows_too_long(scenario: Scenario, context: int | None) -> frozenset[int]:
    """The rows of a trace that need more than `context` tokens, with their answer; None: it has no end."""
    rows = scenario.own.rows if scenario.own is not None else None
    if context is None or not isinstance(rows, Trace):
        return frozenset()
    lengths = zip(rows.inputs, rows.outputs, strict=True)
    return frozenset(row for row, (told, said) in enumerate(lengths) if told + said > context)
