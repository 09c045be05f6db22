"""Rows that cannot be played are named or skipped; sets of the hub."""
# ruff: noqa: E501 - rows of files stand on one line, as they do there

import contextlib
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import ScenarioError, arrivals, dialogue, parse, plan
from tests.scenarios.rows import FROM_VALUE, WITH_ROLES, own, refusals, said
from tests.tries import tries

# --- bad rows ---


def test_bad_rows_can_be_skipped_and_are_counted(file):
    path = file("a.jsonl", [{"prompt": "One"}, {"prompt": [1]}, {"prompt": "Two"}, {"prompt": ""}])
    assert len(refusals(path)) == 2
    scenario = scenarios.load(path, skip_bad_rows=True)
    assert said(scenario) == [["One"], ["Two"]]
    (note,) = scenario.notes
    assert note.what.startswith("2 rows of a.jsonl cannot be played and were skipped: ")
    assert "a.jsonl:2: 'prompt' holds a list" in note.what
    again = parse(scenario.text)  # as an engine reads it
    assert (said(again), again.text) == (said(scenario), scenario.text)
    assert refusals(file("b.jsonl", [{"prompt": "", "n": 1}]), skip_bad_rows=True)


def test_a_broken_element_of_an_array_is_one_bad_row(file):
    rows = [json.dumps({"id": n, "conversations": FROM_VALUE}, indent=1) for n in range(4)]
    rows[1] = rows[1].replace('"value"', '"value" oops', 1)
    path = file("a.json", "[\n" + ",\n".join(rows) + "\n]\n")
    (problem,) = refusals(path)
    assert f"a.json:{2 + len(rows[0].splitlines())}: JSON is malformed" in problem
    assert scenarios.load(path, skip_bad_rows=True).size == 3


DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"prompt": "One"}\n{"prompt": ' + DEEP + "}\n", "a.jsonl:2: nested too deep to be read"),
        ("a.jsonl", '{"prompt": ' + DEEP + "}\n", "a.jsonl:1: nested too deep to be read"),
        ("a.json", '[{"prompt": "One"}, {"prompt": ' + DEEP + "}]", "a.json:1: "),
        ("a.jsonl", json.dumps({"messages": '[{"role": ' + DEEP + "}]"}), "a.jsonl:1: nested too deep"),
        ("a.csv", b"PK\x03\x04\x14\0\x06\0", "a.csv: a zip archive, or a spreadsheet in its own format"),
    ],
    ids=["lines", "first line", "array", "in a cell", "a spreadsheet by another name"],
)
def test_what_cannot_be_read_is_refused_in_a_line(file, name, content, words):
    (problem,) = refusals(file(name, content))
    assert words in problem


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet"])
def test_a_bad_row_in_the_middle_of_many_is_named(file, name):
    rows = [{"id": str(n), "prompt": f"Question {n}?"} for n in range(5000)]
    rows[2500]["prompt"] = ""
    content = rows
    if name == "a.csv":
        content = "id,prompt\n" + "".join(f"{row['id']},{row['prompt']}\n" for row in rows)
    (problem,) = refusals(file(name, content))
    place = {"a.json": 1, "a.jsonl": 2501, "a.csv": 2502, "a.parquet": 2501}[name]
    assert f"{name}:{place}: no text in prompt; mend or remove this row" in problem
    assert scenarios.load(file(name, content), skip_bad_rows=True).size == 4999


VALUES = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 3.5, 1.0, 10**30, 10**400, "", "x", "user", "assistant", "tool", "function_call", "text", "image", "message", "tool_use", "tool_result", '[{"a"',
         '[{"role": "user", "content": "x"}]', "2024-05-10T00:00:00Z"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"role": inner, "content": inner}, optional={"tool_calls": inner})
        | st.dictionaries(st.sampled_from(["from", "value", "type", "text", "id", "function", "messages", "spans"]), inner)
    ),
    max_leaves=12,
)  # fmt: skip
COLUMNS = [
    "prompt", "question", "instruction", "input", "messages", "conversations", "conversation", "turns", "chosen", "body",
    "custom_id", "tools", "system", "history", "choices", "answer", "timestamp", "input_length", "output_length",
    "hash_ids", "session_id", "delay", "text_input", "max_tokens", "attributes", "resourceSpans",
]  # fmt: skip


@tries(60)
@given(
    st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6), min_size=1, max_size=3),
    st.booleans(),
)
def test_any_rows_are_played_or_named(tmp_path_factory, rows, skip):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with contextlib.suppress(ScenarioError):
        scenario = scenarios.load(str(path), skip_bad_rows=skip)
        for k in range(scenario.size):
            conversation = plan(scenario, 0, k)
            for n in range(len(conversation.turns)):
                messages = dialogue(conversation, "salt", 1, ["reply"] * n)
                scenarios.characters_of(scenarios.without_system(messages))
        scenarios.rows_too_long(scenario, 10)
        assert not scenario.timed or len(list(arrivals(scenario))) == scenario.size


# --- sets of the hub ---


class FakeRows(list):
    features = None


@pytest.fixture
def hub(monkeypatch):
    asked = []

    def load_dataset(repo, config, split):
        asked.append((repo, config, split))
        if repo == "no/where":
            raise FileNotFoundError("no such repository")
        return FakeRows([{"conversation": WITH_ROLES, "turn": 2}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_set_of_the_hub_is_played_as_what_it_is(hub):
    scenario = scenarios.load("hf:lmsys/lmsys-chat-1m")
    assert (scenario.tasks, scenario.name) == (("chat-log",), "lmsys-lmsys-chat-1m")
    assert said(scenario) == [["Rhyme with tree.", "And sky?"]]
    assert parse(scenario.text).text == scenario.text
    own("hf:a/b/c:test[:5]")
    assert hub == [("lmsys/lmsys-chat-1m", None, "train")] * 2 + [("a/b", "c", "test[:5]")]


def test_a_set_that_is_not_to_be_had_is_one_line(hub):
    assert "no such repository" in refusals("hf:no/where")[0]
    assert "write hf:OWNER/NAME" in refusals("hf:")[0]


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusals("hf:a/b") == [
        "hf:a/b: this needs the library datasets, which is not installed; pip install 'turnbench[hub]'"
    ]
