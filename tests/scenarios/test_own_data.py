"""Files of one's own as scenarios: their forms, their plans, and what they cost to start."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import ScenarioError, arrivals, dialogue, parse, plan
from scenarios.data import KINDS, DataFile, DataRow, RowTurn
from tests.tries import tries

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:01.2224670,91,16
"""
MOONCAKE = [
    {"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [7, 8, 9]},
    {"timestamp": 3500, "input_length": 1400, "output_length": 20, "hash_ids": [7, 8, 10]},
]
CHAT = [("human", "Hi"), ("gpt", "Hello!"), ("human", "How are you?"), ("gpt", "Well, thank you.")]


def only(scenario):
    assert scenario.size == 1
    return plan(scenario, 0, 0)


def test_sharegpt_gives_turns_with_the_replies_they_had(file):
    shared = {"conversations": [{"from": who, "value": text} for who, text in CHAT]}
    for name, text in [("a.json", json.dumps([shared], indent=1)), ("a.jsonl", json.dumps(shared))]:
        conversation = only(scenarios.load(file(name, text)))
        assert [turn.user for turn in conversation.turns] == ["Hi", "How are you?"]
        assert [turn.canned for turn in conversation.turns] == ["Hello!", "Well, thank you."]
        assert conversation.turns[1].max_tokens == round(len("Well, thank you.") / 4.5)


def test_a_conversation_in_which_no_person_speaks_is_passed_over_and_counted(file):
    rows = [{"conversations": [{"from": "gpt", "value": "x"}]}]
    rows += [{"conversations": [{"from": "human", "value": "Hi"}]}]
    scenario = scenarios.load(file("a.json", json.dumps(rows)))
    assert only(scenario).turns[0].user == "Hi"
    assert "1 passed over" in scenario.description


def test_messages_keep_their_system_message_and_join_what_a_person_says_in_a_row(file):
    messages = [
        ("system", "Be kind."),
        ("user", "One."),
        ("user", "Two."),
        ("assistant", "Yes."),
        ("user", "Three."),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in messages]}
    conversation = only(scenarios.load(file("a.jsonl", [row])))
    assert conversation.system == "Be kind."
    assert [turn.user for turn in conversation.turns] == ["One.\n\nTwo.", "Three."]


def test_columns_of_a_csv_file_fill_the_prompt_quotes_and_line_breaks_and_all(file):
    path = file("a.csv", 'My Text,lang\n"A ""B"",\nC",French\n')
    text = f"format: turnbench-scenario/1\nname: own\nsource: {{path: {json.dumps(path)}, "
    own = parse(text + 'prompt: "To {lang}: {my_text}", max_tokens: 9}\n')
    assert only(own).turns[0].user == 'To French: A "B",\nC'
    assert only(own).turns[0].max_tokens == 9


def test_columns_of_a_parquet_file_fill_the_prompt(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["Why?", "How?"], "n": [1, 2]}), path)
    scenario = scenarios.load(str(path))
    assert {plan(scenario, 0, k).turns[0].user for k in range(2)} == {"Why?", "How?"}


def test_mmlus_own_files_ask_for_the_letter(file):
    said = only(scenarios.load(file("a.csv", '"Is 2 + 2, in base ten,",3,4,5,6,B\n'))).turns[0].user
    assert said.endswith("Is 2 + 2, in base ten,\na) 3\nb) 4\nc) 5\nd) 6")


def test_an_azure_trace_gives_its_times_and_lengths_in_order(file):
    trace = scenarios.load(file("a.csv", AZURE))
    assert trace.timed
    assert list(arrivals(trace)) == pytest.approx([0, 4.314579, 14.541877], abs=1e-5)
    assert [plan(trace, 5, k).turns[0].max_tokens for k in range(3)] == [44, 109, 16]
    assert [round(len(plan(trace, 5, k).turns[0].user) / 4.5) for k in range(3)] == [374, 396, 91]


def test_a_mooncake_trace_shares_the_blocks_that_have_the_same_numbers(file):
    trace = scenarios.load(file("a.jsonl", MOONCAKE))
    assert list(arrivals(trace)) == [0, 3.5]
    one, other = (dialogue(plan(trace, 0, k), "s", 1, [])[0]["content"] for k in range(2))
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared == pytest.approx(1024 * 4.5, abs=60)
    assert plan(trace, 0, 1).needs_context == 1420


class HaikuFile(DataFile):
    """A toy: a line is a poem to be asked about, and must not be long."""

    kind, suffixes, sign = "haiku", (".haiku",), "a short line"

    @classmethod
    def recognises(cls, source):
        return source.suffix == ".haiku"

    def __init__(self, source):
        self.lines = Path(source.path).read_text().splitlines()
        if any(len(line) > 60 for line in self.lines):
            raise ValueError("a line has more than 60 characters")

    def __len__(self):
        return len(self.lines)

    def row(self, i):
        return DataRow([RowTurn([{"role": "user", "content": f"Whose is this? {self.lines[i]}"}])])


@pytest.fixture
def kinds():
    known = list(KINDS)
    yield KINDS
    KINDS[:] = known


def test_a_new_kind_of_file_is_one_class_and_its_entry(file, kinds):
    path = file("a.haiku", "an old pond\n")
    with pytest.raises(ScenarioError, match=r"a\.haiku"):
        scenarios.load(path)
    kinds.append(HaikuFile)
    scenario = scenarios.load(path)
    assert (scenario.tasks, only(scenario).turns[0].user) == (("haiku",), "Whose is this? an old pond")
    assert parse(scenario.text).text == scenario.text
    source = f"{{path: {path}, kind: haiku, max_tokens: 9}}"
    mine = parse(f"format: turnbench-scenario/1\nname: mine\nsource: {source}\n")
    assert only(mine).turns[0].max_tokens == 9
    with pytest.raises(ScenarioError, match="a line has more than 60 characters; look at the first row"):
        scenarios.load(file("b.haiku", "x" * 61))


def test_a_scenario_without_times_of_its_own_has_no_arrivals():
    with pytest.raises(ValueError, match="no times of its own"):
        arrivals(scenarios.load("chat"))


def test_the_text_of_such_a_scenario_opens_the_same_file_again_and_refuses_another(file):
    path = file("a.csv", AZURE)
    trace = scenarios.load(path)
    again = parse(trace.text)
    assert (again, again.size, again.text) == (trace, 3, trace.text)
    assert [plan(again, 1, k) for k in range(9)] == [plan(trace, 1, k) for k in range(9)]
    file("a.csv", AZURE.replace("374", "375"))
    with pytest.raises(ScenarioError, match="has changed"):
        parse(trace.text)


@tries(30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1))
def test_each_row_of_any_texts_is_played_once_as_it_was_written(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("own")
    rows = [{"conversations": [{"from": "human", "value": text}]} for text in texts]
    (folder / "a.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in texts]
    (folder / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("a.json", "b.jsonl"):
        scenario = scenarios.load(str(folder / name))
        said = [plan(scenario, 3, k).turns[0].user for k in range(scenario.size)]
        assert sorted(said) == sorted(texts)


START = """
import re, sys, time, scenarios
begun = time.process_time()
scenario = scenarios.load(sys.argv[1])
scenarios.plan(scenario, 0, 0)
spent = time.process_time() - begun
highest_kb = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(spent, highest_kb / 1024, scenario.size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from Linux")
def test_a_hundred_thousand_conversations_start_in_three_seconds_and_300_mb(file):
    row = json.dumps({"messages": [{"role": "user", "content": "word " * 120}]})
    path = file("large.jsonl", f"{row}\n" * 100_000)
    done = subprocess.run([sys.executable, "-c", START, path], capture_output=True, text=True, check=True)
    seconds, megabytes, size = map(float, done.stdout.split())
    assert size == 100_000
    assert seconds < 3
    assert megabytes < 300
