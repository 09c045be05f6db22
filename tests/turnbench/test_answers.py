"""How answers are read: letters of choices, and texts that must occur."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnbench.answers import AnswerKey, read_answer

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHOICES = {
    "a": "Zero",
    "b": "About 9.8 m/s² downwards",
    "c": "About 9.8 m/s² upwards",
    "d": "It depends on how fast the ball was thrown",
}
KEY = AnswerKey(letter="b", choices=CHOICES)


@pytest.mark.parametrize(
    "answer",
    [
        "b",
        "B",
        " b\n",
        "b)",
        "(b)",
        "b.",
        "**b**",
        "\\boxed{b}",
        "<answer>b</answer>",
        "b) About 9.8 m/s² downwards",
        "b - About 9.8 m/s² downwards",
        "The answer is b.",
        "The correct answer is: **B**",
        "Answer: B",
        "Answer:b",
        "The answer is (b) About 9.8",
        "The correct choice is b) About 9.8 m/s² downwards.",
        "The answer is a? No, the answer is b.",
        "Option B is right",
        "It is B",
        "B because gravity pulls all the time",
        "A ball is pulled down all the time, so it's b)",
        "b\n\nExplanation: a) is wrong because the speed is zero there, not the acceleration.",
        "About 9.8 m/s² downwards",
        "about 9.8 m/s2 downwards.",
    ],
)
def test_a_letter_is_read_however_it_is_said(answer: str) -> None:
    assert read_answer(KEY, answer) == ("b", True)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("a", "a"),
        ("A", "a"),
        ("c.", "c"),
        ("It's c)", "c"),
        ("Zero", "a"),
        ("", None),
        ("b or c", None),
        ("a) Zero\nb) About 9.8 m/s² downwards\nc) About 9.8 m/s² upwards", None),
        ("A ball", None),
        ("I think that is a hard one.", None),
        ("The answer is a difficult one.", None),
        ("Both B and C could be argued", None),
        ("About 9.8 m/s²", None),
        ("The acceleration at the highest point is", None),
    ],
)
def test_a_wrong_letter_is_wrong_and_none_is_guessed(answer: str, read: str | None) -> None:
    assert read_answer(KEY, answer) == (read, False)


def test_a_choice_within_another_one_is_not_a_second_one() -> None:
    key = AnswerKey(letter="d", choices={"a": "3 ohms", "b": "6 ohms", "c": "36 ohms", "d": "6 ohms in all"})
    assert read_answer(key, "They have 6 ohms in all.") == ("d", True)
    assert read_answer(key, "136 ohms") == (None, False)


@pytest.mark.parametrize(
    ("part", "answer", "read"),
    [
        ("20:55 | 8:55", "The last ferry leaves at 20:55 on Sundays.", "20:55"),
        ("20:55 | 8:55", "at 120:55", None),
        ("1380", "**1,380** orders failed", "1380"),
        ("1380", "1 380 orders", "1380"),
        ("37", "37 kilometres", "37"),
        ("37", "It went 37.", "37"),
        ("37", "137 or 37.5 or 3,370", None),
        ("-18 | minus 18", "−18 °C", "-18"),
        ("Yilmaz", "ms yilmaz will write", "Yilmaz"),
        ("wire", "wireless", None),
        ("18%", "a loss of 18%", "18%"),
    ],
)
def test_a_text_counts_as_words_of_its_own(part: str, answer: str, read: str | None) -> None:
    assert read_answer(AnswerKey(parts=(part,)), answer) == (read, read is not None)


def test_every_part_must_be_said_and_what_was_is_recorded() -> None:
    key = AnswerKey(parts=("table saw", "planer", "lathe"))
    assert key.expected == "table saw + planer + lathe"
    assert read_answer(key, "The lathe, the planer and the table saw.") == (
        "table saw + planer + lathe",
        True,
    )
    assert read_answer(key, "Only the planer.") == ("planer", False)
    assert read_answer(key, "None.") == (None, False)


@given(st.text(max_size=300))
def test_nothing_that_a_model_says_ends_anything(answer: str) -> None:
    read, right = read_answer(KEY, answer)
    assert read in (None, *"abcd")
    assert right == (read == "b")
    read_answer(AnswerKey(parts=("9.8 | ten", "a+b", "(")), answer)


def test_what_is_read_out_of_real_answers_is_what_a_person_reads_in_them() -> None:
    """60 answers of SmolLM2-135M-Instruct, served by vLLM on a CPU, to questions of `choose`."""
    lines = (FIXTURES / "answers" / "smollm2-135m-choose.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    read = [read_answer(msgspec.convert(one["key"], AnswerKey), one["text"])[0] for one in answers]
    assert len(answers) == 60
    assert read == [one["eye"] for one in answers]
    assert 0.5 < sum(letter is not None for letter in read) / len(read) < 0.8
