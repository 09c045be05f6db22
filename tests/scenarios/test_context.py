"""Tasks and rows that do not fit into a model's context are skipped and reported."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import ScenarioError, fitting, parse, plan, rows_too_long


def test_tasks_that_need_more_context_are_skipped_and_reported():
    whole = scenarios.load("assistants")
    assert whole.needs_context == {"rag": 8192}
    playable, skipped = fitting(whole, 4096)
    assert skipped == {"rag": 8192}
    assert set(playable.tasks) == set(whole.tasks) - {"rag"}
    assert "rag" not in playable.slo
    assert {plan(playable, 1, k).task for k in range(300)} == set(playable.tasks)
    assert plan(parse(playable.text), 1, 7) == plan(playable, 1, 7)


def test_texts_of_ones_own_stay_with_the_tasks_that_fit():
    mixed = parse(
        "format: turnbench-scenario/1\nname: mixed\ntasks:\n  - from: rag\n"
        "  - {name: mine, texts: says, prompt: '{say}', max_tokens: 5}\nsets: {says: [{say: one}]}\n"
    )
    playable, skipped = fitting(mixed, 4096)
    assert (playable.tasks, skipped) == (("mine",), {"rag": 8192})
    assert plan(playable, 0, 0).turns[0].user == "one"


@pytest.mark.parametrize("name", scenarios.names())
def test_with_context_enough_a_scenario_stays_as_it_is(name):
    whole = scenarios.load(name)
    assert fitting(whole, 15_000) == (whole, {})


def test_where_no_task_remains_the_least_context_is_reported():
    with pytest.raises(ScenarioError, match="a context of 15000 tokens at least, the model has 4096"):
        fitting(scenarios.load("document-qa"), 4096)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=20), st.integers(1, 100)
)
def test_rows_of_a_trace_count_with_their_answers(tmp_path_factory, lengths, context):
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    rows = [{"timestamp": 0, "input_length": asked, "output_length": answered} for asked, answered in lengths]
    path.write_text("\n".join(map(json.dumps, rows)))
    scenario = scenarios.load(str(path))
    expected = {row for row, (asked, answered) in enumerate(lengths) if asked + answered > context}
    assert rows_too_long(scenario, context) == expected
    assert rows_too_long(scenario, None) == frozenset()


def test_other_scenarios_have_no_rows_that_are_too_long():
    assert rows_too_long(scenarios.load("chat"), 1) == frozenset()
