"""The built-in texts: enough of them, all different, every question with one right choice."""

import time
from collections import Counter

import pytest

import scenarios
from scenarios import plan


def items(task):
    (found,) = scenarios.load(task).script.items
    return found


def test_there_are_at_least_sixty_questions_and_no_two_are_alike():
    questions = [item.fields()["question"] for item in items("choose")]
    assert len(questions) >= 60
    assert len({question.casefold() for question in questions}) == len(questions)


def test_every_question_has_four_different_choices_and_its_key_is_one_of_them():
    for item in items("choose"):
        assert list(item.choices) == ["a", "b", "c", "d"]
        assert len({text.casefold() for text in item.choices.values()}) == 4
        assert item.answer in item.choices


def test_no_letter_is_right_much_more_often_than_another():
    right = Counter(item.answer for item in items("choose"))
    assert max(right.values()) - min(right.values()) <= 2


def test_the_right_choice_is_not_given_away_by_being_the_longest():
    longest = [max(item.choices, key=lambda letter: len(item.choices[letter])) for item in items("choose")]
    given_away = sum(letter == item.answer for letter, item in zip(longest, items("choose"), strict=True))
    assert given_away / len(longest) < 0.6


def test_questions_cover_many_subjects():
    subjects = Counter(item.fields()["subject"] for item in items("choose"))
    assert len(subjects) >= 40
    assert max(subjects.values()) <= 5


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
            assert "{" not in turn.user


def test_no_built_in_task_has_a_system_message(scenario):
    assert all(plan(scenario, 0, k).system is None for k in range(50))


def test_every_built_in_task_has_limits_and_every_scenario_a_description(scenario):
    assert set(scenario.slo) == set(scenario.tasks)
    assert all(scenario.slo.values())
    assert scenario.description


def test_only_the_studys_tasks_are_finite():
    sizes = {name: scenarios.load(name).size for name in scenarios.names()}
    assert sizes == {
        "demo": 198, "paper": 198, "work": None, "chat": None, "choose": 66,
        "explain": 66, "extract": None, "paraphrase": 66, "summarise": None,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["paper", "work"])
def test_loading_and_planning_are_quick(name):
    start = time.process_time()
    scenario = scenarios.load(name)
    loaded = time.process_time()
    for k in range(2_000):
        plan(scenario, 0, k)
    planned = time.process_time()
    assert loaded - start < 0.2
    assert (planned - loaded) / 2_000 < 100e-6
