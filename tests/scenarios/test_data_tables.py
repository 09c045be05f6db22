"""Tables of prompts, tasks and questions, as spreadsheets and exports write them."""
# ruff: noqa: E501 - rows of files stand on one line, as they do there

import gzip
import json

import pytest

import scenarios
from scenarios import ScenarioError, plan
from tests.scenarios.rows import own, refusals, row_of, said
from turnbench.answers import AnswerKey

# --- tables as spreadsheets and exports write them ---

TABLES = {
    "commas": ("a.csv", "prompt,answer\nName a bird,Heron\nName a tree,Oak\n"),
    "semicolons": ("a.csv", "prompt;answer\nName a bird;Heron\nName a tree;Oak\n"),
    "semicolons, with commas in texts": ("a.csv", "id;prompt\n1;Name a bird\n2;Name a tree\n"),
    "tabs in a .csv": ("a.csv", "prompt\tanswer\nName a bird\tHeron\nName a tree\tOak\n"),
    "tabs in a .tsv": ("a.tsv", "prompt\tanswer\nName a bird\tHeron, or so\nName a tree\tOak\n"),
    "bars": ("a.csv", "prompt|answer\nName a bird|Heron\nName a tree|Oak\n"),
    "Windows": ("a.csv", b"\xef\xbb\xbfprompt;answer\r\nName a bird;Heron\r\nName a tree;Oak\r\n"),
    "Unicode text": ("a.csv", "prompt\tanswer\r\nName a bird\tHeron\r\nName a tree\tOak\r\n".encode("utf-16")),
    "a hint for spreadsheets": ("a.csv", "sep=;\r\nprompt;answer\r\nName a bird;1,5\r\nName a tree;Oak"),
    "empty rows": ("a.csv", "prompt;answer\n\nName a bird;Heron\n;\n   ;  \nName a tree;Oak\n\n\n"),
    "names in capitals": ("a.csv", "ID,Prompt\n1,Name a bird\n2,Name a tree\n"),
    "a column of its own": ("a.csv", "prompt\nName a bird\nName a tree\n"),
    "no names, one column": ("a.csv", "Name a bird\nName a tree\n"),
    "quoted names": ("a.csv", '"prompt";"answer"\n"Name a bird";"Heron"\n"Name a tree";"Oak; ash"\n'),
    "an inch in a field": ("a.tsv", 'prompt\tanswer\nName a bird\t5" long\nName a tree\tOak\n'),
    "lines": ("a.txt", "Name a bird\n\nName a tree\n"),
    "lines of Windows": ("a.txt", b"\xef\xbb\xbfName a bird\r\n  \r\nName a tree\r\n"),
    "packed": ("a.csv.gz", gzip.compress(b"prompt,answer\nName a bird,Heron\nName a tree,Oak\n")),
    "lines of JSON": ("a.jsonl", b'\xef\xbb\xbf{"prompt": "Name a bird"}\r\n\r\n{"prompt": "Name a tree"}\r\n'),
    "texts of JSON": ("a.jsonl", '"Name a bird"\n"Name a tree"\n'),
    "an array of texts": ("a.json", '["Name a bird", null, "Name a tree", {}]'),
    "objects over lines": ("a.json", '{\n "prompt": "Name a bird"\n}\n{\n "prompt": "Name a tree"\n}\n'),
    "ndjson": ("a.ndjson", '{"text": "Name a bird"}\n{"text": "Name a tree"}\n'),
    "UTF-16 JSON": ("a.json", json.dumps([{"question": q} for q in ("Name a bird", "Name a tree")]).encode("utf-16")),
}  # fmt: skip


@pytest.mark.parametrize("form", TABLES)
def test_prompts_are_read_whatever_the_form_of_their_table(file, form):
    assert said(scenarios.load(file(*TABLES[form]))) == [["Name a bird"], ["Name a tree"]]


def test_quotes_keep_delimiters_line_breaks_and_quotes(file):
    text = 'prompt;answer\n"Quote; inside";ok\n"Two\nlines, ""quoted""";ok\nplain "middle" quotes;ok\n'
    found = said(scenarios.load(file("a.csv", text)))
    assert found == [["Quote; inside"], ['Two\nlines, "quoted"'], ['plain "middle" quotes']]


def test_rows_with_another_number_of_fields_are_named_with_what_to_do(file):
    (problem,) = refusals(file("a.csv", "prompt;n\nOne;1\nTwo; three;2\n"))
    assert "a.csv:3: 3 fields where 2 belong (a field with a semicolon in it needs quotes" in problem
    (problem,) = refusals(file("a.csv", "prompt,n,prompt\nOne,1,Two\n"))
    assert "two columns are named prompt" in problem


def test_a_row_of_another_encoding_is_named(file):
    (problem,) = refusals(file("a.csv", "prompt;n\nOne;1\nÄrger;2\n".encode("cp1252")))
    assert problem.endswith("a.csv:3: not UTF-8 text; save the file as UTF-8; mend or remove this row")


def test_a_template_fills_numbers_and_no_list(file):
    zero = own(file("a.parquet", [{"prompt": "{n} apples", "n": 0}]), prompt="Count {n}")
    assert said(zero) == [["Count 0"]]
    half = own(file("b.jsonl", [{"share": 0.5, "note": None}]), prompt="A share of {share}{note}")
    assert said(half) == [["A share of 0.5"]]
    row = {"conversation": [{"role": "user", "content": "Hi"}], "model": "m"}
    for name in ("c.jsonl", "c.parquet"):
        with pytest.raises(
            ScenarioError, match="'conversation', which holds a list and no text; drop 'prompt'"
        ):
            own(file(name, [row]), prompt="{conversation}")
    with pytest.raises(
        ScenarioError, match=r"'tags', which holds an object and no text; columns of text: text"
    ):
        own(file("d.jsonl", [{"tags": {"a": 1}, "text": "x"}]), prompt="{tags}")
    with pytest.raises(ScenarioError, match=r"e.jsonl:2: 'text' holds a list where the prompt needs a text"):
        own(file("e.jsonl", [{"text": "x"}, {"text": ["x"]}]), prompt="{text}")
    with pytest.raises(ScenarioError, match="kind mooncake is played as it is and fills no 'prompt'"):
        own(file("f.jsonl", [{"timestamp": 0, "input_length": 5}]), kind="mooncake", prompt="{timestamp}")


# --- prompts, tasks, questions ---


@pytest.mark.parametrize(
    ("row", "text", "tokens"),
    [
        ({"prompt": "Add 2 and 3.", "output_tokens": 5}, "Add 2 and 3.", 5),
        ({"prompt": "Add", "prompt_tokens_count": 1, "output_tokens_count": 7}, "Add", 7),
        ({"text": "Add", "max_tokens": None}, "Add", 256),
        ({"text_input": "Add", "output_length": 9}, "Add", 9),
    ],
)
def test_a_prompt_a_row_may_say_how_long_its_answer_is(file, row, text, tokens):
    for name in ("a.jsonl", "a.json", "a.parquet"):
        (turn,) = plan(scenarios.load(file(name, [row])), 0, 0).turns
        assert (turn.user, turn.max_tokens) == (text, tokens)
    names = ",".join(row)
    cells = ",".join("" if value is None else str(value) for value in row.values())
    (turn,) = plan(scenarios.load(file("a.csv", f"{names}\n{cells}\n")), 0, 0).turns
    assert (turn.user, turn.max_tokens) == (text, tokens)


def test_prompts_without_text_or_with_odd_lengths_are_named(file):
    rows = [{"prompt": "x"}, {"prompt": None, "n": 1}, {"prompt": "x", "output_tokens": "many"}]
    rows += [{"prompt": "x", "output_tokens": 0}, {"n": 3}]
    assert [problem.rpartition("/")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "a.jsonl:2: no text in prompt; mend or remove this row",
        "a.jsonl:3: 'many' is no number of tokens; mend or remove this row",
        "a.jsonl:4: an answer of 0 tokens; write 1 at least, or nothing; mend or remove this row",
        "a.jsonl:5: no 'prompt' in this row, which the prompt uses; mend or remove this row",
    ]


def test_alpaca_rows_are_instruction_and_input(file):
    rows = [
        {"instruction": "Translate to French.", "input": "good night", "output": "bonne nuit"},
        {"instruction": "Name a lake.", "input": "", "output": "Thun"},
        {"instruction": "Go on.", "input": None, "output": "Yes", "history": [["Hi", "Hello"]], "system": "Be kind."},
    ]  # fmt: skip
    for name in ("a.json", "a.jsonl", "a.parquet"):
        scenario = scenarios.load(file(name, rows))
        assert said(scenario) == [["Translate to French.\n\ngood night"], ["Name a lake."], ["Hi", "Go on."]]
        assert row_of(scenario, 0).turns[0].canned == "bonne nuit"
        assert row_of(scenario, 2).system == "Be kind."
    dolly = {
        "instruction": "How deep is it?",
        "context": "Thun is a lake.",
        "response": "217 m",
        "category": "qa",
    }
    scenario = scenarios.load(file("dolly.jsonl", [dolly]))
    assert said(scenario) == [["How deep is it?\n\nThun is a lake."]]
    assert row_of(scenario, 0).turns[0].canned == "217 m"
    table = "instruction;input;output\nTranslate to French.;good night;bonne nuit\n"
    assert said(scenarios.load(file("a.csv", table))) == [["Translate to French.\n\ngood night"]]


@pytest.mark.parametrize("name", ["CHATS.JSONL", "Chats.Json", "CHATS.JSONL.GZ"])
def test_capital_letters_in_a_file_s_name_change_nothing(file, name):
    rows = [{"prompt": "One"}, {"prompt": "Two"}]
    content = "\n".join(map(json.dumps, rows)).encode()
    path = file(name, gzip.compress(content) if name.endswith("GZ") else content)
    assert said(scenarios.load(path)) == [["One"], ["Two"]]


def test_a_column_of_pictures_beside_prompts_is_not_sent_and_said(file):
    rows = [{"question": "What is this?", "image": "a.png", "answer": "A cat"}]
    (note,) = scenarios.load(file("a.jsonl", rows)).notes
    assert note.what == "texts alone are sent, and nothing of the columns image"
    row = {"conversations": [{"from": "human", "value": "<image> What?"}], "image": "a.png"}
    assert [note.check for note in scenarios.load(file("b.jsonl", [row])).notes] == ["columns_not_sent"]
    assert own(file("a.jsonl", rows), prompt="{question} {image}").notes == ()


def test_tabs_are_looked_for_in_a_tsv_in_capital_letters(file):
    assert said(scenarios.load(file("A.TSV", "prompt\tn\nOne, two, three\t1\n"))) == [["One, two, three"]]


MMLU = "Answer this question with the letter only: a, b, c or d.\n\nIs 2 + 2?\na) 3\nb) 4\nc) 5\nd) 6"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", '"Is 2 + 2?",3,4,5,6,B\n'),
        ("a.csv", "question,A,B,C,D,answer\nIs 2 + 2?,3,4,5,6,B\n"),
        ("a.csv", ",Question,A,B,C,D,Answer,Subject\n0,Is 2 + 2?,3,4,5,6,B,sums\n"),
        ("a.csv", "Is 2 + 2?;3;4;5;6;B\n"),
        ("a.jsonl", [{"question": "Is 2 + 2?", "subject": "s", "choices": ["3", "4", "5", "6"], "answer": 1}]),
        ("a.parquet", [{"question": "Is 2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1}]),
        ("a.jsonl", [{"question": "Is 2 + 2?", "options": ["3", "4", "5", "6"], "answer": "B"}]),
        ("a.jsonl", [{"question": "Is 2 + 2?", "options": {"A": "3", "B": "4", "C": "5", "D": "6"}, "answer_idx": "B", "answer": "4"}]),
        ("a.json", [{"question": "Is 2 + 2?", "choices": {"text": [3, 4, 5, 6], "label": [*"ABCD"]}, "answerKey": "B"}]),
    ],
)  # fmt: skip
def test_mmlu_in_all_its_forms_keeps_its_choices(file, name, content):
    scenario = scenarios.load(file(name, content))
    assert scenario.tasks == ("mmlu",)
    assert said(scenario) == [[MMLU]]
    (turn,) = scenarios.plan(scenario, 0, 0).turns
    assert turn.key == AnswerKey(letter="b", choices={"a": "3", "b": "4", "c": "5", "d": "6"})


@pytest.mark.parametrize(
    ("row", "letter"),
    [
        ({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}, "a"),
        ({"choices": ["x", "y"], "answer": "1"}, None),  # the first, or the second counted from 0
        ({"choices": ["x", "y"], "answer": None}, None),
        ({"choices": ["x", "y"], "answer": 0}, "a"),
        ({"choices": ["x", "y"], "answer": 1.0}, "b"),  # beside rows without an answer
        ({"choices": ["x", "y"], "answer": "1.0"}, None),
    ],
)
def test_an_answer_that_could_mean_two_choices_is_not_scored(file, row, letter):
    (turn,) = scenarios.plan(scenarios.load(file("a.jsonl", [{"question": "q"} | row])), 0, 0).turns
    assert (turn.key and turn.key.letter) == letter


def test_a_question_with_a_wrong_answer_or_too_few_choices_is_named(file):
    rows = [{"question": "q", "choices": ["x", "y"], "answer": answer} for answer in (1, 5, ["A"], 0.5)]
    rows.append({"question": "q", "choices": ["x"], "answer": 0})
    assert [problem.rpartition("/")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "a.jsonl:2: the answer is '5', which must be A or B; mend or remove this row",
        "a.jsonl:3: the answer is \"['A']\", which must be A or B; mend or remove this row",
        "a.jsonl:4: the answer is '0.5', which must be A or B; mend or remove this row",
        "a.jsonl:5: the choices are 1 texts; write 2 to 10; mend or remove this row",
    ]
