"""Every kind of file that people have, as they have it: what is said, what is on the wire, what is refused."""
# ruff: noqa: E501 - rows of files stand on one line, as they do there

import contextlib
import gzip
import json
import sys
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import ScenarioError, arrivals, dialogue, parse, plan
from tests.tries import tries
from turnbench.answers import AnswerKey


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if name.endswith(".parquet"):
            names = dict.fromkeys(name for row in content for name in row)
            content = [dict.fromkeys(names) | row for row in content]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
            return str(path)
        if isinstance(content, list):
            content = json.dumps(content) if name.endswith(".json") else "\n".join(map(json.dumps, content))
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


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
    table = "instruction;input;output\nTranslate to French.;good night;bonne nuit\n"
    assert said(scenarios.load(file("a.csv", table))) == [["Translate to French.\n\ngood night"]]


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
    ],
)
def test_an_answer_that_could_mean_two_choices_is_not_scored(file, row, letter):
    (turn,) = scenarios.plan(scenarios.load(file("a.jsonl", [{"question": "q"} | row])), 0, 0).turns
    assert (turn.key and turn.key.letter) == letter


def test_a_question_with_a_wrong_answer_or_too_few_choices_is_named(file):
    rows = [{"question": "q", "choices": ["x", "y"], "answer": answer} for answer in (1, 5)]
    rows.append({"question": "q", "choices": ["x"], "answer": 0})
    assert [problem.rpartition("/")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "a.jsonl:2: the answer is '5', which must be A or B; mend or remove this row",
        "a.jsonl:3: the choices are 1 texts; write 2 to 10; mend or remove this row",
    ]


# --- dialogues ---

CHAT = [("user", "Rhyme with tree."), ("assistant", "Sea."), ("user", "And sky?"), ("assistant", "High.")]
WITH_ROLES = [{"role": role, "content": text} for role, text in CHAT]
FROM_VALUE = [{"from": {"user": "human"}.get(role, "gpt"), "value": text} for role, text in CHAT]
DIALOGUES = {
    "ShareGPT": ("sharegpt", {"id": "a", "conversations": FROM_VALUE}),
    "ShareGPT with roles": ("sharegpt", {"id": "a", "conversations": WITH_ROLES}),
    "messages": ("messages", {"messages": WITH_ROLES}),
    "messages of people": ("messages", {"messages": FROM_VALUE}),
    "LMSYS": ("chat-log", {"conversation_id": "h", "model": "m", "conversation": WITH_ROLES, "turn": 2}),
    "WildChat": (
        "chat-log",
        {"conversation_hash": "h", "conversation": [m | {"language": "English", "toxic": False} for m in WITH_ROLES]},
    ),
    "arena": ("chat-log", {"winner": "a", "conversation_a": WITH_ROLES, "conversation_b": FROM_VALUE}),
    "a prompt of messages": ("chat-log", {"prompt": WITH_ROLES}),
    "preference": ("preference", {"prompt": WITH_ROLES[:3], "chosen": WITH_ROLES[3:], "rejected": WITH_ROLES[3:]}),
    "preference, whole": ("preference", {"chosen": WITH_ROLES, "rejected": WITH_ROLES}),
    "preference, twice whole": ("preference", {"prompt": WITH_ROLES, "chosen": WITH_ROLES}),
    "preference as text": (
        "preference",
        {
            "chosen": "\n\nHuman: Rhyme with tree.\n\nAssistant: Sea.\n\nHuman: And sky?\n\nAssistant: High.",
            "rejected": "\n\nHuman: Rhyme with tree.\n\nAssistant: No.",
        },
    ),
    "preference of ShareGPT": (
        "preference",
        {"conversations": FROM_VALUE[:3], "chosen": FROM_VALUE[3], "rejected": FROM_VALUE[3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize("form", DIALOGUES)
def test_dialogues_are_played_turn_by_turn_whatever_their_form(file, form, name):
    kind, row = DIALOGUES[form]
    scenario = scenarios.load(file(name, [row]))
    assert scenario.tasks == (kind,)
    conversation = plan(scenario, 0, 0)
    assert [turn.user for turn in conversation.turns] == ["Rhyme with tree.", "And sky?"]
    assert [turn.canned for turn in conversation.turns] == ["Sea.", "High."]
    assert wire(conversation, ["R"]) == [WITH_ROLES[0], {"role": "assistant", "content": "R"}, WITH_ROLES[2]]


def test_a_text_pair_has_its_question_beside(file):
    row = {"system": "Be short.", "question": "Name a lake.", "chosen": "Thun.", "rejected": "No."}
    conversation = plan(scenarios.load(file("a.jsonl", [row])), 0, 0)
    assert (conversation.system, conversation.turns[0].user) == ("Be short.", "Name a lake.")
    assert conversation.turns[0].canned == "Thun."


def test_the_system_text_beside_a_row_is_the_system_message(file):
    row = {"system": "One word.", "conversations": FROM_VALUE}
    assert plan(scenarios.load(file("a.json", [row])), 0, 0).system == "One word."
    row = {"system": "", "conversations": [{"from": "system", "value": "In French."}, *FROM_VALUE]}
    assert plan(scenarios.load(file("b.json", [row])), 0, 0).system == "In French."


def test_a_reply_before_anybody_spoke_is_not_sent_and_said(file):
    row = {"conversations": [{"from": "gpt", "value": "Welcome."}, *FROM_VALUE]}
    scenario = scenarios.load(file("a.json", [row]))
    assert said(scenario) == [["Rhyme with tree.", "And sky?"]]
    assert [note.code for note in scenario.notes] == ["early_replies"]


def test_two_people_in_a_row_are_one_turn_and_two_replies_one_reply(file):
    roles = ["user", "user", "assistant", "assistant", "user"]
    row = {"messages": [{"role": role, "content": f"{n}."} for n, role in enumerate(roles)]}
    conversation = plan(scenarios.load(file("a.jsonl", [row])), 0, 0)
    assert [turn.user for turn in conversation.turns] == ["0.\n\n1.", "4."]
    assert conversation.turns[0].canned == "2.\n\n3."


def test_turns_of_texts_are_what_a_person_says(file):
    row = {"question_id": 81, "category": "writing", "turns": ["Write.", "Shorter."], "reference": None}
    assert said(scenarios.load(file("a.jsonl", [row]))) == [["Write.", "Shorter."]]


def test_messages_in_a_cell_of_a_table_are_read_if_they_are_json(file):
    text = json.dumps(WITH_ROLES).replace('"', '""')
    assert said(scenarios.load(file("a.csv", f'id,messages\n1,"{text}"\n'))) == [
        ["Rhyme with tree.", "And sky?"]
    ]
    python = str(WITH_ROLES).replace('"', '""')
    (problem,) = refusals(file("b.csv", f'id,messages\n1,"{python}"\n'))
    assert "is no JSON but a program's text of a list; export it as JSON lines or Parquet" in problem


# --- tools, pictures, requests ---

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}


def test_tools_calls_and_results_are_on_the_wire_as_given(file):
    messages = [
        {"role": "user", "content": "Weather in Paris?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"temp": 21}'},
        {"role": "assistant", "content": "21 degrees.", "tool_calls": None},
        {"role": "user", "content": "And Rome?"},
    ]
    row = {
        "messages": messages,
        "tools": [TOOL],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "id": 7,
    }
    scenario = scenarios.load(file("a.jsonl", [row]))
    conversation = plan(scenario, 0, 0)
    assert scenario.needs == {"tools"}
    assert conversation.tools == (TOOL,)
    assert conversation.sampling == {"parallel_tool_calls": False, "tool_choice": "auto"}
    assert wire(conversation) == messages[:1]
    assert wire(conversation, ["whatever"]) == messages[:3]
    assert wire(conversation, ["whatever", "R"]) == [
        *messages[:3],
        {"role": "assistant", "content": "R"},
        messages[4],
    ]


def test_sharegpts_tools_become_calls_and_results(file):
    row = {
        "tools": json.dumps([{"name": "get_weather", "parameters": {}}]),
        "conversations": [
            {"from": "human", "value": "Weather in Paris?"},
            {"from": "function_call", "value": '{"name": "get_weather", "arguments": {"city": "Paris"}}'},
            {"from": "observation", "value": "21"},
            {"from": "gpt", "value": "21 degrees."},
        ],
    }
    conversation = plan(scenarios.load(file("a.json", [row])), 0, 0)
    assert conversation.tools[0]["function"]["name"] == "get_weather"
    _, call, result = wire(conversation, ["x"])
    assert call["tool_calls"][0]["function"] == CALL["function"]
    assert result == {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "21"}


def test_tool_rows_out_of_parquet_are_the_same(file):
    messages = [
        {"role": "user", "content": "Weather?", "tool_calls": None, "tool_call_id": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "tool_call_id": None},
        {"role": "tool", "content": "21", "tool_calls": None, "tool_call_id": "c1"},
    ]
    conversation = plan(scenarios.load(file("a.parquet", [{"messages": messages}])), 0, 0)
    assert wire(conversation, ["x"]) == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "21", "tool_call_id": "c1"},
    ]


def test_pictures_are_on_the_wire_as_given_and_nulls_are_absent(file):
    parts = [PICTURE | {"text": None}, {"type": "text", "text": "What is this?", "image_url": None}]
    scenario = scenarios.load(file("a.jsonl", [{"messages": [{"role": "user", "content": parts}]}]))
    assert (said(scenario), scenario.needs, scenario.notes) == ([["What is this?"]], {"parts"}, ())
    (message,) = dialogue(plan(scenario, 0, 0), "salt", 1, [])
    tag, picture, text = message["content"]
    assert (picture, text) == (PICTURE, {"type": "text", "text": "What is this?"})
    assert tag["type"] == "text"


def test_a_place_for_a_picture_is_counted_and_never_none(file):
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "What is on the plate?"}]
    rows = [{"messages": [{"role": "user", "content": parts}]}] * 2
    for name in ("a.jsonl", "a.parquet"):
        scenario = scenarios.load(file(name, rows))
        assert said(scenario) == [["What is on the plate?"]] * 2
        assert wire(plan(scenario, 0, 0)) == [{"role": "user", "content": "What is on the plate?"}]
        assert [note.text.partition(":")[0] for note in scenario.notes] == [
            "2 pictures of 2 rows are not sent"
        ]


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([{"role": "user", "content": 5}], "the content of message 1 is a number; write a text or parts"),
        (
            [{"role": "user", "content": [7]}],
            "message 1 has a part that is a number; write a text or an object",
        ),
        (["Hi"], 'message 1 is a text; write {"role": "user", "content": "..."}'),
        (
            [{"role": "assistant", "tool_calls": "x"}],
            "message 1 has tool_calls that are a text; write a list",
        ),
    ],
)
def test_messages_that_are_none_are_named_with_what_to_write(file, messages, what):
    good = {"messages": WITH_ROLES}
    (problem,) = refusals(file("a.jsonl", [good, {"messages": messages}, good]))
    assert problem.partition("a.jsonl:")[2] == f"2: {what}; mend or remove this row"


def test_a_batch_file_is_its_requests_whole(file):
    body = {
        "model": "gpt-4o", "messages": [{"role": "system", "content": "Be kind."}, *WITH_ROLES[:3]],
        "max_tokens": 20, "temperature": 0, "tools": [TOOL], "stop": ["END"], "stream": False, "x": None,
    }  # fmt: skip
    row = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    scenario = scenarios.load(file("a.jsonl", [row]))
    conversation = plan(scenario, 0, 0)
    (turn,) = conversation.turns
    assert (scenario.tasks, turn.max_tokens, turn.stop) == (("batch",), 20, ("END",))
    assert (conversation.sampling, conversation.tools) == ({"temperature": 0}, (TOOL,))
    assert wire(conversation) == body["messages"]


def test_requests_that_are_no_chat_are_named(file):
    good = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": WITH_ROLES[:1]}}
    rows = [
        good,
        good | {"url": "/v1/embeddings"},
        good | {"body": {"messages": WITH_ROLES[:1], "n": 3}},
        good | {"body": 3},
    ]
    assert [problem.rpartition("/a.")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "jsonl:2: url '/v1/embeddings' asks for no chat answer; write /v1/chat/completions; mend or remove this row",
        "jsonl:3: 'n' asks for 3 answers at once; write 1, or drop it; mend or remove this row",
        "jsonl:4: 'body' is a number; write the request's body; mend or remove this row",
    ]  # fmt: skip


def test_what_older_forms_need_is_told_apart(file):
    def needs(*messages, **more):
        return scenarios.load(file("a.jsonl", [{"messages": list(messages)} | more])).needs

    ask = {"role": "user", "content": "Weather?"}
    assert needs(ask) == set()
    assert needs(ask, tools=[TOOL]) == {"tools"}
    assert needs(ask, tools=[{"type": "web_search"}]) == {"tools", "odd_tools"}
    assert needs(ask, functions=[TOOL["function"]]) == {"odd_tools"}
    assert needs(ask, {"role": "tool", "content": "21"}) == {"tools", "odd_tools"}
    assert needs(ask, {"role": "function", "name": "f", "content": "21"}) == {"odd_tools"}
    broken = CALL | {"function": {"name": "f", "arguments": "{"}}
    assert needs(ask, {"role": "assistant", "tool_calls": [broken]}, ask) == {"tools", "odd_tools"}


# --- traces ---


def starts(scenario):
    return pytest.approx(list(arrivals(scenario)), abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,374,44\n2024-05-10 00:00:04.324509+00:00,396,109\n",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-05-10T00:00:00Z,2,374,44\n2024-05-10T00:00:04.314579Z,0,396,109\n",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,374,44,418,API log\n9.314579,GPT-4,396,109,505,API log\n",
        "Timestamp;Session ID;Elapsed time;Model;Request tokens;Response tokens\n5;1;2;m;374;44\n9.314579;1;2;m;396;109\n",
    ],
)  # fmt: skip
def test_tables_of_lengths_and_times(file, text):
    trace = scenarios.load(file("a.csv", text))
    assert trace.timed
    assert starts(trace) == [0, 4.314579]
    assert [plan(trace, 0, k).turns[0].max_tokens for k in range(2)] == [44, 109]
    assert [round(len(plan(trace, 0, k).turns[0].user) / 4.5) for k in range(2)] == [374, 396]
    if "NumImages" in text:
        assert [note.text[:24] for note in trace.notes] == ["2 images of 1 requests a"]


def blocks(at, tokens, ids, **more):
    return {"timestamp": at, "input_length": tokens, "output_length": 12, "hash_ids": ids} | more


@pytest.mark.parametrize(
    ("rows", "expected_s", "shared_tokens"),
    [
        ([blocks(0, 1200, [7, 8, 9]), blocks(3500, 1400, [7, 8, 10])], [0, 3.5], 1024),
        ([blocks(0, 40, [1, 2, 3]), blocks(42_500, 70, [1, 2, 3, 4, 5])], [0, 42.5], 40),
        ([blocks(0.0, 40, [1, 2, 3]), blocks(42.5, 70, [1, 2, 3, 4, 5])], [0, 42.5], 40),
        ([blocks(0, 130, [1, 2, 3]), blocks(3, 140, [1, 2, 4])], [0, 3], 128),
        (
            [
                blocks(0.0, 40, [1, 2, 3], chat_id=1, parent_chat_id=-1, type="text", turn=1),
                blocks(42.0, 70, [1, 2, 3, 4, 5], chat_id=2, parent_chat_id=1, type="text", turn=2),
            ],
            [0, 42],
            40,
        ),
    ],
)
def test_blocks_and_times_of_mooncake_and_its_kin(file, rows, expected_s, shared_tokens):
    for name in ("a.jsonl", "a.parquet"):
        trace = scenarios.load(file(name, rows))
        assert starts(trace) == expected_s
        one, other = (plan(trace, 0, k).turns[0].user for k in range(2))
        common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        assert common / 4.5 == pytest.approx(shared_tokens, abs=12)


def test_unit_and_block_may_be_declared_and_a_guess_is_said(file):
    rows = [blocks(0.5, 40, [1, 2, 3]), blocks(2.5, 48, [1, 2, 4])]
    path = file("a.jsonl", rows)
    assert [note.code for note in scenarios.load(path).notes] == ["time_unit"]
    declared = own(path, time_unit="ms", block_tokens=8)
    assert starts(declared) == [0, 0.002]
    assert declared.notes == ()
    assert parse(declared.text).text == declared.text


def test_rows_with_their_text_a_session_and_delays_are_one_conversation(file):
    rows = [
        {"session_id": "s", "timestamp": 0, "text_input": "Hi", "output_length": 3},
        {"timestamp": 1000, "input_length": 90, "output_length": 4},
        {"session_id": "s", "delay": 1500, "text_input": "And?", "output_length": 5},
        {"session_id": "s", "delay": 250, "input_length": 18, "output_length": 6},
    ]
    trace = scenarios.load(file("a.jsonl", rows))
    assert (trace.size, list(arrivals(trace))) == (2, [0, 1])
    conversation = plan(trace, 0, 0)
    assert [turn.user for turn in conversation.turns[:2]] == ["Hi", "And?"]
    assert [turn.think_s for turn in conversation.turns] == [0, 1.5, 0.25]
    assert [turn.max_tokens for turn in conversation.turns] == [3, 5, 6]


def test_wrong_rows_of_a_trace_are_named(file):
    rows = [
        blocks(0, 40, [1]),
        blocks("soon", 40, [1]),
        blocks(9, 40, 7),
        blocks(5, 40, [1]),
        {"input_length": 4},
    ]
    rows.insert(3, blocks(8, 40, [2]))
    assert [problem.rpartition("/a.")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "jsonl:2: 'soon' is no time; write a number; mend or remove this row",
        "jsonl:3: 'hash_ids' must be a list of numbers; mend or remove this row",
        "jsonl:5: earlier than the row before; mend or remove this row",
        "jsonl:6: no 'timestamp'; write when this request came; mend or remove this row",
    ]


def span(start, tokens, operation="chat", **more):
    usage = {"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": 7}
    return {
        "name": operation,
        "start_time": start,
        "attributes": {"gen_ai.operation.name": operation} | usage | more,
    }


def otlp(start_ns, tokens):
    values = {
        "gen_ai.operation.name": {"stringValue": "chat"},
        "gen_ai.usage.input_tokens": {"intValue": str(tokens)},
    }
    values["gen_ai.usage.output_tokens"] = {"intValue": "7"}
    attributes = [{"key": key, "value": value} for key, value in values.items()]
    return {"name": "chat m", "startTimeUnixNano": str(start_ns), "attributes": attributes}


def exported(*spans):
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


AT_NS = 1_715_299_200_000_000_000


@pytest.mark.parametrize(
    "rows",
    [
        [
            span("2024-05-10T00:00:02.5Z", 30),
            span("2024-05-10T00:00:00Z", 20),
            span("2024-05-10T00:00:00Z", 99, "invoke_agent"),
        ],
        [exported(otlp(AT_NS + 2_500_000_000, 30), {"name": "GET /"}, otlp(AT_NS, 20))],
        [exported(otlp(AT_NS, 20)), exported(otlp(AT_NS + 2_500_000_000, 30)), exported({"name": "GET /"})],
    ],
)
def test_spans_of_models_are_requests_at_their_own_times(file, rows):
    trace = scenarios.load(file("a.jsonl", rows))
    assert (trace.tasks, trace.size) == (("otel",), 2)
    assert starts(trace) == [0, 2.5]
    assert [round(len(plan(trace, 0, k).turns[0].user) / 4.5) for k in range(2)] == [20, 30]
    assert plan(trace, 0, 0).turns[0].max_tokens == 7


def test_the_messages_that_a_span_recorded_are_sent(file):
    parts = [{"role": "system", "parts": [{"type": "text", "content": "Be kind."}]}]
    parts.append({"role": "user", "parts": [{"type": "text", "content": "Weather?"}]})
    row = span("2024-05-10T00:00:00Z", 20, **{"gen_ai.input.messages": json.dumps(parts)})
    conversation = plan(scenarios.load(file("a.jsonl", [row])), 0, 0)
    assert [message["content"] for message in wire(conversation)] == ["Be kind.", "Weather?"]


def test_wrong_spans_are_named(file):
    rows = [span("2024-05-10T00:00:00Z", 20), span("soon", 20), span("2024-05-10T00:00:00Z", "many")]
    assert [problem.rpartition("/a.")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "jsonl:2: 'soon' is no time; write nanoseconds or a date; mend or remove this row",
        "jsonl:3: 'many' is no number of tokens; mend or remove this row",
    ]


# --- bad rows ---


def test_bad_rows_can_be_skipped_and_are_counted(file):
    path = file("a.jsonl", [{"prompt": "One"}, {"prompt": [1]}, {"prompt": "Two"}, {"prompt": ""}])
    assert len(refusals(path)) == 2
    scenario = scenarios.load(path, skip_bad_rows=True)
    assert said(scenario) == [["One"], ["Two"]]
    (note,) = scenario.notes
    assert note.text.startswith("2 rows of a.jsonl cannot be played and were skipped: ")
    assert "a.jsonl:2: 'prompt' holds a list" in note.text
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
        [None, True, 0, -1, 3.5, 10**30, "", "x", "user", "assistant", "tool", "function_call", "text", "image", '[{"a"',
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
