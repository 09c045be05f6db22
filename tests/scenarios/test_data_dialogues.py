"""Dialogues in every form that people have: what is said, and what is on the wire."""
# ruff: noqa: E501 - rows of files stand on one line, as they do there

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import dialogue, plan
from scenarios.data._messages import SeenInRows, message_of, plainly_asks, turns_of
from tests.scenarios.rows import FROM_VALUE, WITH_ROLES, refusals, said, wire
from tests.tries import tries

# --- dialogues ---

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
    row = {"system": [{"type": "text", "text": "One word."}], "messages": WITH_ROLES}
    assert plan(scenarios.load(file("a.jsonl", [row])), 0, 0).system == "One word."
    row = {"system": "", "conversations": [{"from": "system", "value": "In French."}, *FROM_VALUE]}
    assert plan(scenarios.load(file("b.json", [row])), 0, 0).system == "In French."


def test_a_reply_before_anybody_spoke_is_not_sent_and_said(file):
    row = {"conversations": [{"from": "gpt", "value": "Welcome."}, *FROM_VALUE]}
    row["conversations"].insert(0, {"from": "gpt", "value": "Hello."})
    scenario = scenarios.load(file("a.json", [row, {"conversations": FROM_VALUE}]))
    assert said(scenario) == [["Rhyme with tree.", "And sky?"]] * 2
    assert [note.what for note in scenario.notes] == [
        "1 row begins with a reply to nothing, which is not sent"
    ]


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


@pytest.mark.parametrize(
    "picture",
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AA=="}},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {"type": "image", "url": "data:image/png;base64,AA=="},
        {"type": "image", "image": "data:image/png;base64,AA=="},
        {"type": "image", "base64": "AA=="},
        {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": "AA=="},
    ],
    ids=["Anthropic", "Anthropic, URL", "responses", "chat template", "Qwen", "base64", "LangChain"],
)
def test_a_picture_in_the_form_of_another_api_is_sent(file, picture):
    text = {"type": "text", "text": "What is this?"}
    row = {"messages": [{"role": "user", "content": [picture, text]}]}
    scenario = scenarios.load(file("a.jsonl", [row]))
    assert (scenario.needs, scenario.notes) == ({"parts"}, ())
    (message,) = dialogue(plan(scenario, 0, 0), "none", 1, [])
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        text,
    ]


@pytest.mark.parametrize("place", [{"text": None}, {"image": "/home/me/plate.png"}], ids=["place", "path"])
def test_a_place_for_a_picture_is_counted_and_never_none(file, place):
    parts = [{"type": "image"} | place, {"type": "text", "text": "What is on the plate?"}]
    rows = [{"messages": [{"role": "user", "content": parts}]}] * 2
    for name in ("a.jsonl", "a.parquet"):
        scenario = scenarios.load(file(name, rows))
        assert said(scenario) == [["What is on the plate?"]] * 2
        assert wire(plan(scenario, 0, 0)) == [{"role": "user", "content": "What is on the plate?"}]
        assert [note.what.partition(":")[0] for note in scenario.notes] == [
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


def test_a_batch_of_anthropics_has_its_system_text_and_its_tools(file):
    function = {"name": "f", "description": "Does.", "input_schema": {"type": "object"}}
    params = {"model": "m", "max_tokens": 5, "messages": WITH_ROLES[:1], "tools": [function]}
    params["system"] = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    scenario = scenarios.load(file("a.jsonl", [{"custom_id": "a", "params": params}]))
    conversation = plan(scenario, 0, 0)
    assert wire(conversation) == [{"role": "system", "content": "Be kind."}, WITH_ROLES[0]]
    assert (scenario.needs, conversation.turns[0].max_tokens) == ({"tools"}, 5)
    as_chat = {"name": "f", "description": "Does.", "parameters": {"type": "object"}}
    assert conversation.tools == ({"type": "function", "function": as_chat},)


IN_OTHER_FORMS = {
    "Anthropic": (
        "params",
        {"messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "21"}]},
                {"type": "text", "text": "So?"},
            ]},
        ], "max_tokens": 7},
    ),
    "responses": (
        "body",
        {"input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "message", "id": "m", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "id": "f", "call_id": "c1", "name": "get_weather",
             "arguments": '{"city": "Paris"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "21"},
            {"role": "user", "content": "So?"},
        ], "max_output_tokens": 7},
    ),
}  # fmt: skip


@pytest.mark.parametrize("api", IN_OTHER_FORMS)
def test_calls_and_results_in_the_form_of_another_api_are_those_of_chat(file, api):
    key, request = IN_OTHER_FORMS[api]
    scenario = scenarios.load(file("a.jsonl", [{"custom_id": "r", key: request}]))
    conversation = plan(scenario, 0, 0)
    found = dialogue(conversation, "none", 1, [])
    texts = [(message["role"], scenarios.text_of(message)) for message in found]
    assert texts == [("user", "Weather?"), ("assistant", "I look."), ("tool", "21"), ("user", "So?")]
    assert [message["tool_calls"] for message in found if "tool_calls" in message] == [[CALL]]
    assert [message["tool_call_id"] for message in found if message["role"] == "tool"] == ["c1"]
    assert {key for message in found for key in message} == {"role", "content", "tool_calls", "tool_call_id"}
    assert (scenario.needs, conversation.turns[0].max_tokens) == ({"tools"}, 7)


@pytest.mark.parametrize("name", ["output_length", "output_tokens", "max_tokens"])
def test_the_length_of_an_answer_is_known_by_each_of_its_names(file, name):
    row = {"messages": WITH_ROLES[:1], name: 7}
    assert plan(scenarios.load(file("a.jsonl", [row])), 0, 0).turns[0].max_tokens == 7


def test_a_row_without_messages_is_named_by_its_own_column(file):
    (problem,) = refusals(file("a.jsonl", [{"conversation": WITH_ROLES}, {"prompt": "Rhyme."}]))
    assert "a.jsonl:2: 'prompt' is a text; write a list of" in problem


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
    assert needs(ask, tools=[TOOL["function"] | {"type": "function"}]) == {"tools"}
    assert needs(ask, tools=[{"type": "function", "function": {}}]) == {"tools", "odd_tools"}
    assert needs(ask, tools=[{"type": "web_search"}]) == {"tools", "odd_tools"}
    assert needs(ask, functions=[TOOL["function"]]) == {"odd_tools"}
    assert needs(ask, {"role": "tool", "content": "21"}) == {"tools", "odd_tools"}
    assert needs(ask, {"role": "function", "name": "f", "content": "21"}) == {"odd_tools"}
    broken = CALL | {"function": {"name": "f", "arguments": "{"}}
    assert needs(ask, {"role": "assistant", "tool_calls": [broken]}, ask) == {"tools", "odd_tools"}


texts = st.sampled_from(["Hi", "", " ", "\n", "x"])
roles = st.sampled_from(["user", "human", "assistant", "gpt", "system", "tool", "User", "nobody"])
messages = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "from", "value", "name"]), texts | roles | st.none(), max_size=3)
    | st.fixed_dictionaries({"role": roles, "content": texts}) | st.fixed_dictionaries({"from": roles, "value": texts}),
    max_size=4,
)  # fmt: skip


@tries(200)
@given(messages)
def test_a_quick_look_at_plain_messages_says_what_a_close_one_does(found):
    quickly = plainly_asks(found)
    if quickly is None:
        return
    seen = SeenInRows()
    parts = [message_of(part, n, seen, every_field=False) for n, part in enumerate(found, start=1)]
    assert bool(turns_of(parts, None, seen)[1]) == quickly
    assert seen == SeenInRows(), "nothing to be reported"
