"""What the models of a sweep are called, and the study's own table over several runs of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.compare.variants import PlayedRun, named, variant_of
from analysis.pipeline import analyse, several
from analysis.report.first_screen import glance_of
from analysis.report.plots import figures
from analysis.tables.sentences import ratios_in_words
from tests.analysis.conftest import MadeRun, level, turn
from tests.analysis.test_sweep import sweep
from turnbench.formats import RunManifest
from turnbench.formats.reading import read_leniently

CELL = {("chat", "4")}


def played(run: str, cells: set[tuple[str, str]] = CELL, **variant: str) -> PlayedRun:
    return PlayedRun(run, variant, {"yi": cells})


def manifest_of(written: dict[str, Any]) -> RunManifest:
    found = read_leniently(RunManifest, written, [])
    assert found is not None
    return found


def names(*runs: PlayedRun) -> list[tuple[str, str]]:
    found = named(list(runs))
    return [(found[run.run, "yi"].one, found[run.run, "yi"].pool) for run in runs]


def test_a_model_with_one_run_keeps_its_name() -> None:
    assert names(played("a", precision="fp16")) == [("yi", "yi")]


def test_precisions_hardware_and_exact_answers_tell_runs_of_one_model_apart() -> None:
    runs = [
        played("a", precision="fp16", hardware="h100"),
        played("b", precision="int8", hardware="h100", answers="256 tokens"),
        played("c", precision="int8", hardware="a100"),
    ]
    assert [one for one, _ in names(*runs)] == ["yi fp16 h100", "yi int8 h100 256 tokens", "yi int8 a100"]
    found = named(runs)
    assert found["b", "yi"].any_length == "yi int8 h100"
    assert found["b", "yi"].any_precision == "yi h100 256 tokens"


def test_runs_of_one_model_that_played_different_tasks_are_parts_of_one_study() -> None:
    runs = [played("yi-choose", {("choose", "4")}), played("yi-explain", {("explain", "4")})]
    assert names(*runs) == [("yi", "yi")] * 2


def test_repeats_of_a_sweep_are_told_apart_in_tables_and_compared_together() -> None:
    assert names(played("yi-r1"), played("yi-r2")) == [("yi r1", "yi"), ("yi r2", "yi")]


def test_runs_that_nothing_else_tells_apart_go_by_their_directories() -> None:
    assert names(played("before"), played("after")) == [("before", "before"), ("after", "after")]
    assert names(played("a-r1"), played("b-r1")) == [("a-r1", "a-r1"), ("b-r1", "b-r1")]


def test_the_sweeps_own_word_for_a_runs_options_names_it_where_nothing_else_does() -> None:
    cold, warm = played("yi-cold", variant="cold"), played("yi-warm", variant="warm")
    assert names(cold, warm) == [("yi cold", "yi cold"), ("yi warm", "yi warm")]
    exact = played("yi-exact", variant="exact", answers="256 tokens")
    assert names(played("yi-natural", variant="natural"), exact)[1] == ("yi 256 tokens", "yi 256 tokens")


@pytest.mark.slow
def test_a_sweep_with_a_run_for_each_task_load_and_length_is_read_as_one_study(tmp_path: Path) -> None:
    """As `make paper` lays it out, in any order: five figures of one model are one line of each."""
    cells = []
    for people in (16, 1, 4):
        for task, tokens in (("explain", 100), ("choose", 5)):
            for variant, exact in (("natural", False), ("exact", True)):
                for model, gap_ms in (("yi", 10), ("gemma", 20)):
                    name = f"{model}-{task}-{variant}-u{people}"
                    records = [
                        turn(
                            k,
                            sent_s=6 + k,
                            model=model,
                            task=task,
                            gap_ms=gap_ms,
                            events=256 if exact else tokens,
                        )
                        for k in range(30)
                    ]
                    settings = {"exact_tokens": exact, "max_tokens": 256 if exact else None}
                    made = MadeRun(tmp_path / name, records, [level(users=people)], {"settings": settings})
                    made.write()
                    cells.append({"dir": name, "model": model, "status": "finished", "variant": variant})
    found = analyse(sweep(tmp_path, cells))
    ranked = found.summary.comparison.cells
    assert {len(cell.models) for cell in ranked} == {2}
    assert {cell.setting for cell in ranked} == {"", "256 tokens"}
    assert [cell.load for cell in ranked if cell.setting == "" and cell.task == "choose"] == [
        "1",
        "4",
        "16",
    ]
    drawn = figures(found.summary, found.facts)
    load = [one for one in drawn if one.group == "load" and one.pick == "choose"]
    assert [line["text"] for line in load[0].data] == [["1", "4", "16"]] * 4
    glance = glance_of(found.summary)
    assert glance is not None
    assert [name for name, _ in glance.rows] == ["yi", "gemma"]
    ratio = next(row for row in found.summary.study.ratios if row.task == "explain")
    assert ratio.natural.ratio > 5
    assert ratio.at_256.ratio == pytest.approx(1)


@pytest.mark.parametrize(
    ("manifest", "precision"),
    [
        ({"server": {"precision": "FP16"}, "labels": {"precision": "int8"}}, "fp16"),
        ({"server": None, "labels": {"precision": "int8"}}, "int8"),
        ({"server": {"precision": 8}, "labels": []}, ""),
        ({}, ""),
    ],
)
def test_the_precision_is_the_servers_word_else_a_label(manifest: dict[str, Any], precision: str) -> None:
    assert variant_of(manifest_of(manifest))["precision"] == precision


def test_exact_answers_are_known_from_the_settings() -> None:
    exact, usual = ({"exact_tokens": True, "max_tokens": None}, {"exact_tokens": False, "max_tokens": 64})
    assert variant_of(manifest_of({"settings": exact}))["answers"] == "256 tokens"
    assert variant_of(manifest_of({"settings": usual}))["answers"] == ""


def cell(
    path: Path, name: str, model: str, lengths: dict[str, int], gap_ms: float, **manifest: Any
) -> dict[str, str]:
    """One run of a sweep: 30 conversations of one turn for each task, with answers of so many tokens."""
    rng = np.random.default_rng(len(name))
    records = [
        turn(100 * place + k, sent_s=6 + k, model=model, task=task, events=events, ttft_ms=t, gap_ms=gap_ms)
        for place, (task, events) in enumerate(lengths.items())
        for k, t in enumerate(rng.normal(100, 5, 30))
    ]
    MadeRun(path / name, records, manifest=manifest).write()
    return {"dir": name, "model": model, "status": "finished"}


def test_each_task_stands_over_the_models_quickest_at_natural_length_and_at_256_tokens(
    tmp_path: Path,
) -> None:
    natural = cell(tmp_path, "yi", "yi", {"choose": 1, "explain": 111}, 10)
    exact = {"settings": {"exact_tokens": True, "max_tokens": 256}}
    fixed = cell(tmp_path, "yi-256", "yi", {"choose": 256, "explain": 256}, 10, **exact)
    study = analyse(sweep(tmp_path, [natural, fixed])).summary.study
    choose, explain = study.ratios
    assert choose.natural.ratio == 1
    assert explain.name == "yi"
    assert explain.natural.quickest == "choose"
    assert explain.natural.ratio == pytest.approx(1200 / 100, rel=0.05)
    low, high = explain.natural.ci95
    assert low < 12 < high
    assert {choose.at_256.n, explain.at_256.n} == {30}
    assert explain.at_256.ratio == pytest.approx(1, rel=0.02)


def test_256_tokens_are_never_made_up_for_answers_that_were_shorter(tmp_path: Path) -> None:
    runs = [cell(tmp_path, "yi", "yi", {"choose": 1, "explain": 111}, 10)]
    study = analyse(sweep(tmp_path, runs)).summary.study
    assert [row.at_256 for row in study.ratios] == [None, None]


def test_a_conversation_is_no_task_to_be_set_beside_those_of_one_turn(tmp_path: Path) -> None:
    tasks = {"choose": 1, "explain": 111, "chat": 300}
    records = [
        turn(3 * k + place, sent_s=6 + k / 10 + number, task=task, events=events * number, number=number)
        for k in range(20)
        for place, (task, events) in enumerate(tasks.items())
        for number in ((1, 2) if task == "chat" else (1,))
    ]
    MadeRun(tmp_path / "run", records).write()
    study = analyse(tmp_path / "run").summary.study
    assert [row.task for row in study.ratios] == ["choose", "explain"]
    assert "the slowest task took the model 23.0 times as long" in ratios_in_words(study)[0]
    MadeRun(tmp_path / "two", [turn for turn in records if turn.task != "explain"]).write()
    choose, chat = analyse(tmp_path / "two").summary.study.ratios
    assert (choose.natural.n, chat.natural.n) == (20, 20), "first turns, where no two tasks are of one turn"
    assert chat.natural.time_ms == pytest.approx(100 + 299 * 20)


def test_a_turn_that_never_ended_leaves_no_ratio(tmp_path: Path) -> None:
    records = [turn(k, sent_s=6 + k, task=("a", "b")[k % 2]) for k in range(40)]
    records[1].outcome = "unfinished"
    MadeRun(tmp_path / "run", records).write()
    assert analyse(tmp_path / "run").summary.study.ratios == []


@pytest.mark.slow
def test_the_orders_of_models_at_a_lower_precision_are_set_beside_those_at_fp16(tmp_path: Path) -> None:
    gaps = {"fp16": (10, 20, 30), "int8": (6, 12, 18), "int4": (12, 8, 4)}
    runs = [
        cell(tmp_path, f"m{n}-{precision}", f"m{n}", {"chat": 50}, gap, server={"precision": precision})
        for precision, row in gaps.items()
        for n, gap in enumerate(row)
    ]
    rows = analyse(sweep(tmp_path, runs)).summary.study.precisions
    told = {row.precision: row for row in rows}
    assert set(told) == {"int8", "int4"}
    assert (told["int8"].tau_time, told["int8"].tau_tps, told["int8"].models) == (1, 1, 3)
    assert told["int8"].tau_time_ci95 == [1, 1]
    assert told["int4"].tau_time == -1


def test_a_lower_precision_of_one_model_alone_has_no_order(tmp_path: Path) -> None:
    runs = [
        cell(tmp_path, "a", "m0", {"chat": 20}, 10, server={"precision": "fp16"}),
        cell(tmp_path, "b", "m0", {"chat": 20}, 10, server={"precision": "int8"}),
        cell(tmp_path, "c", "m1", {"chat": 20}, 10, server={"precision": "int8"}),
    ]
    assert analyse(sweep(tmp_path, runs)).summary.study.precisions == []


def test_many_runs_keep_their_names_and_can_be_written_into_a_folder(tmp_path: Path) -> None:
    runs = [cell(tmp_path, f"r{n}", f"m{n}", {"chat": 20}, 10 + n) for n in range(2)]
    inner = analyse(sweep(tmp_path, runs))
    cell(tmp_path / "more", "alone", "m9", {"chat": 20}, 5)
    joined = several([inner, analyse(tmp_path / "more" / "alone")], tmp_path / "out")
    assert {cell.name for cell in joined.summary.cells} == {"m0", "m1", "m9"}
    assert len(joined.summary.comparison.cells[0].models) == 3
    assert (tmp_path / "out" / "report.html").exists()
    assert {fact.name for fact in joined.facts} == {f"{tmp_path.name}/r0", f"{tmp_path.name}/r1", "alone"}
