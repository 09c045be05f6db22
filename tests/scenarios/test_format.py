"""What a file of one's own may say."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import scenarios
from scenarios import parse, plan

OWN = """
format: turnbench-scenario/1
name: translate
description: My own task.
tasks:
  - name: to-german
    texts: phrases
    once: true
    prompt: |
      Translate "{phrase}" into German. Answer as {{json}}: {"german": "..."}
    max_tokens: 40
    stop: ["\\n\\n"]
    system: You are a translator.
    shared: yes
    slo: {ttg_ms: 3000, share: 0.9}
sets:
  phrases:
    - phrase: no
    - phrase: 12:30:45
    - phrase: "{phrase}"
"""


def test_a_task_of_ones_own_needs_nothing_built_in():
    own = parse(OWN)
    assert (own.name, own.size, own.tasks) == ("translate", 3, ("to-german",))
    assert own.slo == {"to-german": {"ttg_ms": 3000, "share": 0.9}}
    conversation = plan(own, 0, 0)
    assert conversation.system == "You are a translator."
    assert conversation.shared_system
    assert conversation.turns[0].stop == ("\n\n",)


def test_texts_stay_as_they_were_typed():
    said = {plan(parse(OWN), 0, k).turns[0].user for k in range(3)}
    tail = 'into German. Answer as {json}: {"german": "..."}'
    assert said == {f'Translate "{phrase}" {tail}' for phrase in ("no", "12:30:45", "{phrase}")}


def test_a_built_in_task_can_be_taken_and_changed_in_part():
    text = (
        "format: turnbench-scenario/1\nname: mine\n"
        "tasks: [{from: chat, name: quick-chat, think_s: 1, turns: 3, slo: {ttft_ms: 1}}]"
    )
    mine = parse(text)
    conversation = plan(mine, 0, 0)
    assert conversation.task == "quick-chat"
    assert [turn.think_s for turn in conversation.turns] == [0, 1, 1]
    assert mine.slo == {"quick-chat": {"ttft_ms": 1}}


def test_a_set_of_ones_own_takes_the_place_of_the_built_in_one():
    text = (
        "format: turnbench-scenario/1\nname: mine\ntasks: [{from: choose}]\n"
        'sets: {questions: [{question: Is it?, choices: {a: "Yes", b: "No"}, answer: b}]}'
    )
    mine = parse(text)
    assert mine.size == 1
    assert plan(mine, 0, 0).turns[0].user.endswith("Is it?\na) Yes\nb) No")


def test_weights_decide_how_often_a_task_comes():
    text = (
        "format: turnbench-scenario/1\nname: mine\n"
        "tasks: [{from: chat, weight: 9}, {from: extract, weight: 1}]"
    )
    mine = parse(text)
    tasks = [plan(mine, 0, k).task for k in range(1_000)]
    assert tasks.count("chat") / len(tasks) == pytest.approx(0.9, abs=0.03)


def test_a_scenario_can_be_given_by_its_path(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN, encoding="utf-8")
    assert scenarios.load(str(path)) == parse(OWN)


_words = st.text(
    alphabet=st.characters(exclude_categories=["Cs"])
    | st.sampled_from("\n\t {}:#'\"\\-|>&*%@`\x85\u2028\ufeff"),
    min_size=1,
    max_size=60,
)


@example(["one\ntwo\x85three", "one\n\u2028two"])
@given(st.lists(_words.filter(str.strip), min_size=1, max_size=4))
def test_any_text_survives_the_way_through_the_one_yaml_text(texts):
    tree = {
        "format": "turnbench-scenario/1",
        "name": "echo",
        "tasks": [{"name": "echo", "texts": "mine", "once": "true", "prompt": "{say}", "max_tokens": 5}],
        "sets": {"mine": [{"say": text} for text in texts]},
    }
    first = parse(yaml.safe_dump(tree))
    again = parse(first.text)
    assert again.text == first.text
    read = [item.fields()["say"] for item in again.script.items[0]]
    assert read == [item.fields()["say"] for item in first.script.items[0]]
    assert [text.split() for text in read] == [text.split() for text in texts]
