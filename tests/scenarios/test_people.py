"""Turns, pauses, patience, contexts and tools: what a plan says of people, and what requests then contain."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import dialogue, drop_oldest, opening, parse, plan, think_after, without_system

HEAD = "format: turnbench-scenario/1\nname: x\ntasks:\n"


def one(keys, k=0):
    return plan(parse(HEAD + "  - {from: chat, " + keys + "}\n"), 0, k)


def contents(conversation, replies):
    return [message["content"] for message in dialogue(conversation, "s", 1, replies)]


@given(st.integers(0, 5_000))
def test_a_pause_derived_from_the_reply_is_reading_time_and_then_typing_time(words):
    turn = one("turns: 2, think_s: {read_wpm: 120, type_wpm: 30}").turns[1]
    assert think_after(turn, words) == pytest.approx(words / 2 + 2 * len(turn.user.split()))


def test_a_pause_that_does_not_depend_on_the_reply_is_the_planned_one():
    turn = one("turns: 2, think_s: 7").turns[1]
    assert (think_after(turn, 0), think_after(turn, 900)) == (7, 7)


def test_the_first_turn_and_the_result_of_a_tool_come_at_once():
    turns = plan(scenarios.load("agent"), 0, 0).turns
    assert [think_after(turn, 50) for turn in turns[:2]] == [0, 0]


def test_patience_goes_into_the_plan_and_its_share_of_the_turns_leave_midway():
    keys = "turns: 1, patience: {first_s: 20, share: 0.25, after_s: 3}"
    turns = [one(keys, k).turns[0] for k in range(400)]
    assert {turn.patience_s for turn in turns} == {20}
    assert {turn.leave_after_s for turn in turns} == {None, 3}
    assert statistics.mean(turn.leave_after_s == 3 for turn in turns) == pytest.approx(0.25, abs=0.07)


def test_the_history_is_that_of_the_real_replies():
    conversation = one("turns: 3")
    assert contents(conversation, []) == [m["content"] for m in opening(conversation, "s", 1)]
    first, *rest = contents(conversation, ["A", "B"])
    assert first.endswith(conversation.turns[0].user)
    assert rest == ["A", conversation.turns[1].user, "B", conversation.turns[2].user]


def test_a_canned_history_has_the_planned_replies_whatever_came():
    conversation = one("turns: 3, history: canned, replies: [Yes., No.]")
    assert contents(conversation, ["A", "B"])[1::2] == ["Yes.", "No."]


def test_without_a_history_each_request_stands_alone_and_keeps_its_tag():
    conversation = one("turns: 3, history: none")
    (only,) = contents(conversation, ["A", "B"])
    assert only.startswith("[")
    assert only.endswith(conversation.turns[2].user)


def test_a_context_that_was_looked_up_is_sent_once_and_only_the_question_remembered():
    rag = scenarios.load("rag")
    conversation = next(c for k in range(99) if len((c := plan(rag, 0, k)).turns) == 4)
    messages = contents(conversation, ["A", "B", "C"])
    assert [len(text) > 1000 for text in messages] == [False] * 6 + [True]
    assert messages[0].partition("] ")[2] == conversation.turns[0].remembered
    assert len({turn.user for turn in conversation.turns}) == 4


def test_a_bundle_holds_the_page_that_answers_and_about_as_many_tokens_as_asked_for():
    scenario = scenarios.load("document-qa")
    passages = {item.fields()["question"]: item.fields()["text"] for item in scenario.script.items[0]}
    for k in range(40):
        conversation = plan(scenario, 3, k)
        text = conversation.turns[0].user
        question = text.partition("\nQuestion: ")[2].removesuffix(
            " Answer in one or two sentences and name the document."
        )
        assert passages[question] in text
        assert 1_700 < len(text) / 4.5 < 12_100
        assert conversation.needs_context == scenario.needs_context["document-qa"] == 15_000


def test_there_are_pages_enough_for_the_longest_bundle():
    scenario = scenarios.load("document-qa")
    tokens = [len(plan(scenario, 0, k).turns[0].user) / 4.5 for k in range(400)]
    assert min(tokens) < 2_100
    assert max(tokens) > 11_500
    assert 4_500 < statistics.median(tokens) < 5_500


def test_a_tools_result_follows_the_call_of_that_tool():
    conversation = plan(scenarios.load("agent"), 0, 0)
    system, user, call, result = dialogue(conversation, "s", 1, ["I shall look."])
    assert (system["role"], user["role"]) == ("system", "user")
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert result == {"role": "tool", "tool_call_id": "call_0_1", "content": conversation.turns[1].user}
    names = {tool["function"]["name"] for tool in conversation.tools}
    assert call["tool_calls"][0]["function"]["name"] in names


def test_the_oldest_turn_is_dropped_and_the_system_message_stays():
    conversation = plan(scenarios.load("agent"), 0, 0)
    messages = [*dialogue(conversation, "s", 1, ["A"]), {"role": "user", "content": "And now?"}]
    assert drop_oldest(messages) == [messages[0], messages[-1]]
    assert drop_oldest(drop_oldest(messages)) == [messages[0], messages[-1]]


def test_a_system_message_that_is_refused_goes_before_the_first_of_the_user():
    conversation = plan(scenarios.load("support"), 0, 0)
    system, user = opening(conversation, "s", 1)
    (merged,) = without_system([system, user])
    assert merged == {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
    assert without_system([merged]) == [merged]


def test_deep_conversations_have_ten_turns_and_more():
    deep = scenarios.load("deep")
    counts = [len(plan(deep, 0, k).turns) for k in range(150)]
    assert statistics.mean(counts) > 9
    assert statistics.median(counts) >= 11
