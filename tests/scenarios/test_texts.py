"""The built-in texts: enough of them, all different, every question with one right choice."""

import re
import time
from collections import Counter
from hashlib import sha256

import pytest

import scenarios
from scenarios import plan


def items(task):
    (found,) = scenarios.load(task).script.items
    return found


def written():
    return items("choose")[:223]


def test_at_least_two_hundred_questions_are_written_by_hand_and_no_two_are_alike():
    questions = {item.fields()["question"].casefold() for item in written()}
    assert len(questions) == 223
    assert len({item.fields()["subject"] for item in written()}) >= 80


def test_there_are_660_questions_no_two_the_same_and_always_the_same_ones():
    questions = [f"{item.fields()}" for item in items("choose")]
    asked = {(item.fields()["question"], item.fields()["choices"]) for item in items("choose")}
    assert len(asked) == len(questions) == 660
    assert sha256("".join(questions).encode()).hexdigest()[:16] == "b5dd3b143b46cb83"


def test_a_permuted_question_keeps_its_right_answer_under_another_letter():
    by_text = {item.fields()["question"]: item for item in written()}
    permuted = [item for item in items("choose")[223:] if item.fields()["question"] in by_text]
    assert len(permuted) == 109
    for item in permuted:
        first = by_text[item.fields()["question"]]
        assert item.fields()["answer_text"] == first.fields()["answer_text"]
        assert item.answer != first.answer
        assert set(item.choices.values()) == set(first.choices.values())


SUMS = [
    (r"A train covers (\d+) km in (\d+) hours", lambda a, b: f"{a / b:g} km/h"),
    (r"What is (\d+) % of (\d+)\?", lambda a, b: f"{a * b / 100:g}"),
    (r"What remains when (\d+) is divided by (\d+)", lambda a, b: f"{a - b * (a // b)}"),
    (r"divisor of (\d+) and (\d+)", lambda a, b: str(max(d for d in range(1, a + 1) if a % d == b % d == 0))),
    (r"(\d+) people shake hands", lambda n: str(sum(range(n)))),
    (r"binary number ([01]+)", lambda n: str(int(str(n), 2))),
    (r"x is (\d+)x \+ (\d+) equal to (\d+)", lambda a, b, c: f"{(c - b) / a:g}"),
    (r"body of (\d+) kg that moves at (\d+) m/s", lambda m, v: f"{m * v * v / 2:,g} J"),
    (r"half-life is (\d+) days.* after (\d+) days", lambda one, all_: f"1/{2 ** (all_ // one)}"),
    (r"short sides of a right triangle are (\d+) and (\d+)", lambda a, b: f"{(a * a + b * b) ** 0.5:g}"),
]


@pytest.mark.parametrize(("pattern", "key"), SUMS)
def test_the_key_of_a_changed_quantity_is_what_another_way_of_reckoning_gives(pattern, key):
    checked = 0
    for item in items("choose")[223:]:
        if match := re.search(pattern, item.fields()["question"]):
            assert item.fields()["answer_text"] == key(*map(int, match.groups()))
            checked += 1
    assert checked == 8


def test_a_limit_keeps_the_same_questions_for_every_task_and_a_smaller_one_keeps_some_of_them():
    small, large = scenarios.load("paper:24"), scenarios.load("paper:48")
    assert (small.size, large.size) == (72, 144)
    assert small.script.items[0] == small.script.items[1] == small.script.items[2]
    assert set(map(repr, small.script.items[0])) < set(map(repr, large.script.items[0]))
    assert scenarios.parse(small.text).script.items == small.script.items


def test_every_question_has_four_different_choices_and_its_key_is_one_of_them():
    for item in items("choose"):
        assert list(item.choices) == ["a", "b", "c", "d"]
        assert len({text.casefold() for text in item.choices.values()}) == 4
        assert item.answer in item.choices


def test_no_letter_is_right_much_more_often_than_another():
    right = Counter(item.answer for item in items("choose"))
    assert max(right.values()) - min(right.values()) <= 4


def test_the_right_choice_is_not_given_away_by_being_the_longest():
    longest = [max(item.choices, key=lambda letter: len(item.choices[letter])) for item in items("choose")]
    given_away = sum(letter == item.answer for letter, item in zip(longest, items("choose"), strict=True))
    assert given_away / len(longest) < 0.6


def test_questions_cover_many_subjects():
    subjects = Counter(item.fields()["subject"] for item in items("choose"))
    assert len(subjects) >= 80
    assert max(subjects.values()) <= 50


def test_there_are_at_least_thirty_openings_each_with_several_follow_ups():
    openings = items("chat")
    assert len({item.fields()["say"] for item in openings}) == len(openings) >= 30
    assert all(len(set(item.then)) == len(item.then) >= 4 for item in openings)


def test_there_are_at_least_twelve_documents_of_a_page():
    documents = [item.fields() for item in items("summarise")]
    assert len({document["title"] for document in documents}) == len(documents) >= 12
    for document in documents:
        assert 150 <= len(document["text"].split()) <= 400, document["title"]
        assert document["facts"].count(",") >= 3


def test_the_studys_tasks_have_its_answer_lengths_one_turn_and_no_system_message():
    for name, lengths in [("paper", (16, 128, 256)), ("demo", (16, 64, 128))]:
        scenario = scenarios.load(name)
        wanted = dict(zip(("choose", "paraphrase", "explain"), lengths, strict=True))
        for k in range(scenario.size):
            conversation = plan(scenario, 0, k)
            (turn,) = conversation.turns
            assert turn.max_tokens == wanted[conversation.task]
            assert conversation.sampling == {"temperature": 0}
            assert conversation.system is None


def test_no_built_in_prompt_has_a_placeholder_left_in_it(scenario):
    for k in range(scenario.size or 300):
        for turn in plan(scenario, 0, k).turns:
            assert not re.search(r"\{[a-z_]+\}", turn.user)


def test_a_system_message_is_shared_by_all_conversations_of_its_task(scenario):
    conversations = [plan(scenario, 0, k) for k in range(50)]
    assert all(c.shared_system == (c.system is not None) for c in conversations)


def test_every_built_in_task_has_limits_and_every_scenario_a_description(scenario):
    assert set(scenario.slo) == set(scenario.tasks)
    assert all(scenario.slo.values())
    assert scenario.description


def test_only_the_studys_tasks_and_the_sweep_of_prompts_are_finite():
    sizes = {name: scenarios.load(name).size for name in scenarios.names()}
    finite = {name: size for name, size in sizes.items() if size is not None}
    study = {"demo": 72, "paper": 1980, "choose": 660, "explain": 660, "paraphrase": 660}
    assert finite == study | {"prefill": 64}
    assert {
        "document-qa",
        "translate",
        "code",
        "write",
        "brainstorm",
        "tutor",
        "support",
        "rag",
        "agent",
    } <= set(sizes)


@pytest.mark.parametrize("name", ["paper", "work"])
def test_loading_and_planning_are_quick(name):
    loads, plans = [], []
    for _ in range(3):  # the quickest, since other work on the machine slows some
        start = time.process_time()
        scenario = scenarios.load(name)
        loads.append(time.process_time() - start)
        start = time.process_time()
        for k in range(2_000):
            plan(scenario, 0, k)
        plans.append((time.process_time() - start) / 2_000)
    assert min(loads) < 0.2
    assert min(plans) < 100e-6
