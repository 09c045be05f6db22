"""The score of `choose`: which letter an answer gives, and the interval of a share."""

from __future__ import annotations

import pytest

import scenarios
from benchmarks.choose_accuracy import Score, letter_of, right_letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("c", "c"),
        ("B.", "b"),
        (" (d) 45 cm³", "d"),
        ("**a)** It stays", "a"),
        ("The answer is a.", "a"),
        ("Answer: C", "c"),
        ("A cyclist rides at a steady 30 km/h", None),
        ("The longest bone is the femur.", None),
        ("e)", None),
        ("", None),
    ],
)
def test_the_letter_of_an_answer_is_one_that_it_names(answer: str, letter: str | None) -> None:
    assert letter_of(answer) == letter


def test_the_right_letter_of_every_planned_question_is_the_one_that_explain_is_told() -> None:
    """Both tasks ask the same questions; explain's prompt names the answer."""
    explain = scenarios.load("explain")
    for k in range(0, 660, 7):
        prompt = scenarios.plan(explain, 0, k).turns[0].user
        assert f"why {right_letter(prompt)}) is the right answer" in prompt


def test_the_interval_of_a_share_is_wilsons() -> None:
    right, low, high = Score(answers=77, letters=48, right=16).share()
    assert (round(right, 3), round(low, 3), round(high, 3)) == (0.208, 0.132, 0.311)
