"""Right answers beside waiting: shares with intervals, by task and load, and what one right answer takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from analysis.pipeline import analyse
from analysis.tables.rows import accuracy_table
from analysis.tables.sentences import accuracy_in_words
from tests.analysis.conftest import MadeRun, level, turn


def scored(made: MadeRun, every: tuple[int, int] = (4, 4), count: int = 200, **manifest: Any) -> MadeRun:
    """Two levels; at each all answers but every so many-th are right."""
    made.levels = [
        level(n, start_s=100 * n, window_s=(100 * n + 5, 100 * n + 65), end_s=100 * n + 70, users=8**n)
        for n in range(2)
    ]
    made.turns = [
        turn(
            1000 * n + k,
            sent_s=100 * n + 5 + 60 * k / count,
            task="choose",
            expected="b",
            answered=None if k % 40 == 0 else "b" if k % every[n] else "c",
            right=k % every[n] != 0,
            events=11,
        )
        for n in range(2)
        for k in range(count)
    ]
    made.turns += [turn(5000 + k, sent_s=6 + k, task="chat") for k in range(20)]
    made.manifest = manifest
    return made


def cell_of(made: MadeRun, task: str, at_level: int) -> Any:
    found = analyse(made.write()).summary
    return next(c for c in found.cells if (c.task, c.level) == (task, at_level))


def test_the_share_of_right_answers_stands_beside_what_one_takes(made: MadeRun) -> None:
    cell = cell_of(scored(made), "choose", 0)
    assert (cell.scored, cell.right_share) == (200, 0.75)
    assert cell.read_share == pytest.approx(0.975)
    assert cell.seconds_per_right == pytest.approx(0.3 / 0.75)  # each takes 100 ms and 10 gaps of 20 ms
    low, high = cell.ci95["right_share"]
    assert 0.65 < low < 0.75 < high < 0.85
    low, high = cell.ci95["seconds_per_right"]
    assert low < 0.4 < high


@pytest.mark.slow
def test_tasks_without_keys_are_not_scored_and_do_not_water_down_all_tasks(made: MadeRun) -> None:
    scored(made)
    assert cell_of(made, "chat", 0).right_share is None
    assert (cell_of(made, "all", 0).scored, cell_of(made, "all", 0).right_share) == (200, 0.75)


def test_turns_that_failed_are_neither_right_nor_wrong(made: MadeRun) -> None:
    scored(made)
    for one in made.turns[:100]:
        one.outcome, one.right, one.answered = "http_5xx", None, None
    cell = cell_of(made, "choose", 0)
    assert cell.scored == 100
    assert cell.failed_share == 0.5


@pytest.mark.slow
def test_all_right_has_an_interval_too(made: MadeRun) -> None:
    cell = cell_of(scored(made, every=(1000, 1000)), "choose", 1)
    assert cell.right_share == pytest.approx(0.995)
    for one in made.turns:
        one.right = True if one.right is not None else None
    cell = cell_of(made, "choose", 1)
    assert cell.right_share == 1
    assert cell.ci95["right_share"][0] < 0.99


def test_no_answer_is_right_and_nothing_is_divided_by_it(made: MadeRun) -> None:
    scored(made)
    for one in made.turns:
        one.right = False if one.right is not None else None
    cell = cell_of(made, "choose", 0)
    assert (cell.right_share, cell.seconds_per_right, cell.ci95["seconds_per_right"]) == (0, None, None)


def test_what_an_emulator_says_is_not_scored(made: MadeRun) -> None:
    assert cell_of(scored(made, emulated=True), "choose", 0).right_share is None


@pytest.mark.slow
def test_a_loaded_server_that_answers_worse_is_named_and_one_that_does_not_is_not(made: MadeRun) -> None:
    found = analyse(scored(made, every=(4, 2)).write()).summary
    (words,) = accuracy_in_words(found)
    assert words.startswith("tiny, choose: 75% of 200 answers are right")
    assert words.endswith("at 8 people: surely fewer.")
    made.path = made.path.with_name("same")
    assert accuracy_in_words(analyse(scored(made).write()).summary)[0].endswith("no sure difference.")


def test_table_page_and_csv_have_it(made: MadeRun) -> None:
    path = scored(made).write()
    found = analyse(path)
    table = accuracy_table(found.summary)
    assert [row[1:4] for row in table.rows] == [["choose", "1", "200"], ["choose", "8", "200"]]
    page = found.report.read_text()
    assert "<h2>Right answers</h2>" in page
    assert "answers are right" in page
    head, *_ = (path / "summary.csv").read_text().splitlines()
    assert {"right_share", "seconds_per_right", "ci95_right_share_lo"} <= set(head.split(","))
    assert json.loads((path / "summary.json").read_text())["cells"][0]["scored"] == 200
