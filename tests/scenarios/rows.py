"""What tests of data files ask of the scenario that a file becomes."""

import json

import pytest

import scenarios
from scenarios import ScenarioError, dialogue, parse, plan

CHAT = [("user", "Rhyme with tree."), ("assistant", "Sea."), ("user", "And sky?"), ("assistant", "High.")]
WITH_ROLES = [{"role": role, "content": text} for role, text in CHAT]
FROM_VALUE = [{"from": {"user": "human"}.get(role, "gpt"), "value": text} for role, text in CHAT]


def own(path, **source):
    head = "format: turnbench-scenario/1\nname: own\nsource: "
    return parse(head + json.dumps({"path": path} | source) + "\n")


def said(scenario):
    """Everything that persons say, in the order of the file's rows."""
    return [[turn.user for turn in row_of(scenario, i).turns] for i in range(scenario.size)]


def row_of(scenario, i):
    """The conversation of row i."""
    rows = scenario.own.rows
    texts = [[message["content"] for message in turn.added] for turn in rows.row(i).turns]
    for k in range(scenario.size):
        conversation = plan(scenario, 0, k)
        found = [[m["content"] for m in turn.added] or [turn.user] for turn in conversation.turns]
        if found == texts:
            return conversation
    raise AssertionError(texts)


def refusals(path, **options):
    with pytest.raises(ScenarioError) as caught:
        scenarios.load(path, **options)
    return caught.value.problems


def wire(conversation, replies=()):
    """The messages without the first one's tag."""
    messages = dialogue(conversation, "salt", 1, list(replies))
    text = json.dumps(messages)
    tag = text[text.index("[", 2) :][:11] if "[" in text[2:] else ""
    return json.loads(text.replace(tag, "", 1))
