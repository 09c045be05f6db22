"""Traces of requests: tables of times and lengths, blocks, spans."""
# ruff: noqa: E501 - rows of files stand on one line, as they do there

import json

import pytest

import scenarios
from scenarios import arrivals, parse, plan
from tests.scenarios.rows import own, refusals, wire


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
        assert [note.what[:24] for note in trace.notes] == ["2 images of 1 requests a"]


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
    assert [note.check for note in scenarios.load(path).notes] == ["time_unit"]
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


def test_times_of_rows_that_are_not_timed_need_no_order(file):
    rows = [
        {"session_id": "a", "text_input": "Hi"},
        {"session_id": "b", "text_input": "One", "timestamp": 9},
        {"session_id": "b", "text_input": "Two", "timestamp": 4, "delay": 100},
    ]
    trace = scenarios.load(file("a.jsonl", rows))
    talks = sorted([turn.user for turn in plan(trace, 0, k).turns] for k in range(trace.size))
    assert (trace.timed, talks) == (False, [["Hi"], ["One", "Two"]])


@pytest.mark.parametrize(
    "row",
    [
        {"timestamp": 10**400, "input_length": 3},
        {"timestamp": 9, "input_length": 10**400},
        {"timestamp": 9, "input_length": 3, "session_id": 1, "delay": 10**400},
    ],
    ids=["time", "length", "delay"],
)
def test_a_number_that_no_float_holds_is_a_bad_row(file, row):
    (problem,) = refusals(file("a.jsonl", [blocks(0, 40, [1]), row]))
    assert "a.jsonl:2: " in problem


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
            span("2024-05-10T00:00:00Z", 99, "invoke_workflow"),
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


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("startTimeUnixNano", str(AT_NS), str(AT_NS + 2_500_000_000)),
        ("start_time_unix_nano", 0, 2_500_000_000),
        ("start_time", AT_NS // 1000, AT_NS // 1000 + 2_500_000),
        ("startTime", AT_NS // 10**6, AT_NS // 10**6 + 2500),
        ("start_timestamp", AT_NS / 1e9, AT_NS / 1e9 + 2.5),
        ("start_time", 0, 2.5),
    ],
)
def test_the_unit_of_a_span_s_start_follows_from_its_name_or_its_size(file, name, first, second):
    usage = {"attributes": {"gen_ai.usage.input_tokens": 20}}
    assert starts(scenarios.load(file("a.jsonl", [usage | {name: first}, usage | {name: second}]))) == [
        0,
        2.5,
    ]


def test_instructions_that_are_no_text_leave_a_span_to_its_length(file):
    said = {"gen_ai.system_instructions": 5, "gen_ai.input.messages": [{"role": "user", "content": "Hi"}]}
    conversation = plan(scenarios.load(file("a.jsonl", [span("2024-05-10T00:00:00Z", 20, **said)])), 0, 0)
    assert round(len(conversation.turns[0].user) / 4.5) == 20


@pytest.mark.parametrize("beside", [False, True], ids=["among them", "beside them"])
def test_the_messages_that_a_span_recorded_are_sent_with_their_system_text(file, beside):
    parts = [{"role": "user", "parts": [{"type": "text", "content": "Weather?"}]}]
    system = [{"type": "text", "content": "Be kind."}]
    if not beside:
        parts.insert(0, {"role": "system", "parts": system})
    said = {"gen_ai.input.messages": json.dumps(parts)}
    said |= {"gen_ai.system_instructions": json.dumps(system)} if beside else {}
    row = span("2024-05-10T00:00:00Z", 20, **said)
    conversation = plan(scenarios.load(file("a.jsonl", [row])), 0, 0)
    assert [message["content"] for message in wire(conversation)] == ["Be kind.", "Weather?"]


def test_wrong_spans_are_named(file):
    rows = [span("2024-05-10T00:00:00Z", 20), span("soon", 20), span("2024-05-10T00:00:00Z", "many")]
    assert [problem.rpartition("/a.")[2] for problem in refusals(file("a.jsonl", rows))] == [
        "jsonl:2: 'soon' is no time; write nanoseconds or a date; mend or remove this row",
        "jsonl:3: 'many' is no number of tokens; mend or remove this row",
    ]
