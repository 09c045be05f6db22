"""A run directory written by an earlier version reads the same today, number by number."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main

OLD = Path(__file__).parents[1] / "fixtures" / "run-2026-11"

MAY_DIFFER: dict[str, str] = {
    "*client/clock_shares*": "new: which clock timed how many turns",
    "*client/sent_by_kernel_share": "new: who said when requests left",
    "*client/late_ms": "new: how late turns were sent",
    "*client/write_after_sent_ms": "new: what a stamp after the call would have hidden",
    "*client/read_after_packet_ms": "new: what reading would have added to packets",
    "sweep: comparison/cells/*tau_shuffled*": "new: what shuffled lengths of answers give",
    "sweep: comparison/cells/*horizon_ms": "new: to what times are restricted where a turn never finished",
    "answer_lengths": "new: what the lengths of an emulator's answers are from",
    "levels/*/limits_sure": "new: whether that is certain",
    "run: curve/capacity_sure": "new: the same of the capacity",
    "levels/*/energy": "new: energy and cost of a level",
    "levels/*/until": "new: what --until reached",
    "levels/*/server*": "new: what the server measured of itself",
    "format": "the second version of the format",
    **{
        f"{path}/{key}": reason
        for path in ("cells/*/*", "by_*", "levels/*")
        for key, reason in {
            "ci95/*": "the wider of two intervals: over conversations, and over batches of time",
            "p999": "new",
            "max": "new",
            "bound": "new: what is known of a number that falls among turns that never ended",
            "mean_to": "new: a mean is a restricted one",
        }.items()
    },
    "cells/*/ci95/*": "new: intervals of rates and shares",
    "cells/*/failed_share": "new",
    "cells/*/scored": "new: right answers",
    "cells/*/right_share": "new: right answers",
    "cells/*/read_share": "new: right answers",
    "cells/*/seconds_per_right": "new: right answers",
    "cells/*/visible_tps": "new",
    "cells/*/normalised_latency_s": "new",
    "cells/*/intervals": "new: of which kind they are",
    "run: cells/yi-6b translate */*": "streams that broke off after their first content are censored; an "
    "answer cut by its length inside its reasoning is answered. Only translations ended so",
    "run: cells/yi-6b all */*": "the same",
    "run: cells/yi-6b write 0/itl_ms/p95": "percentiles need effective turns at that very percentile",
    "run: by_turn/9/*": "an answer that was cut by its length inside its reasoning is an answer",
    "by_context/*": "prompts from the prefix cache are apart",
    "run: levels/1/conversations/*": "the same",
    "run: outcomes/ok": "the same",
    "run: outcomes/reasoning_only": "the same",
    "run: verdict/findings/*": "a limit that was missed is a finding, which moves those after it; an answer "
    "cut inside its reasoning has not failed; of few conversations the bound of their likeness counts",
    "run: study/ratios/*": "conversations are compared by their first turns",
    "sweep: cells/*/itl_ms/p95": "the same: two conversations are too few for it",
    "sweep: by_context/*/ttg_ms/p50": "the same",
    "sweep: comparison/words": "the same statements in plainer words",
}
"""What may differ in summary.json, and why: a pattern of the paths below -> the reason.

A path is the keys from the top joined by `/`; a cell goes by its run, model, task and level:
`cells/run yi-6b chat 0/ttft_ms/p50`. The same pattern excuses the cell's column `ttft_ms_p50` in summary.csv.
A pattern that no difference needs fails the test too; one that only the run or the sweep needs begins with
`run: ` or `sweep: `.
"""

NAMES_OF_CELL = ("run", "model", "task", "level")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word of a summary with its path; an empty list or object counts as one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}" if path else key)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{name_of(inner, number)}")
    else:
        yield path, value


def name_of(value: Any, number: int) -> str:
    """A cell's names, so that an added cell shifts no other; else its place in the list."""
    if isinstance(value, dict) and "task" in value and "level" in value:
        return " ".join(str(value[key]) for key in NAMES_OF_CELL if key in value)
    return str(number)


def may_differ(at: Path) -> list[str]:
    """The patterns for this directory, the run or the sweep."""
    split = [each.rpartition(": ") for each in MAY_DIFFER]
    return [pattern for only, _, pattern in split if only in ("", at.name)]


def same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float | int):
        return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
    return type(old) is type(new) and bool(old == new)


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """path -> what was and what is."""
    found = {path: f"{old[path]!r} is gone" for path in old.keys() - new.keys()}
    found |= {path: f"{new[path]!r} is new" for path in new.keys() - old.keys()}
    both = old.keys() & new.keys()
    return found | {p: f"{old[p]!r} became {new[p]!r}" for p in both if not same(old[p], new[p])}


def rows(file: Path) -> dict[str, Any]:
    """The cells of a summary.csv by cell and column, numbers as numbers."""
    found: dict[str, Any] = {}
    with file.open(newline="") as text:
        for row in csv.DictReader(text):
            cell = " ".join(row[key] for key in NAMES_OF_CELL if key in row)
            for column, value in row.items():
                found[f"{cell}/{column}"] = float(value) if is_number(value) else value
    return found


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module", params=[("run", 1), ("sweep", 0)], ids=lambda param: param[0])
def analysed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directory as it was, and a copy that today's code has analysed."""
    name, exit_code = request.param
    copy = tmp_path_factory.mktemp("old") / name
    shutil.copytree(OLD / name, copy)
    for summary in copy.rglob("summary.*"):
        summary.unlink()
    assert main([str(copy)]) == exit_code
    return OLD / name, copy


def test_every_number_and_word_of_the_summary_is_as_it_was(analysed: tuple[Path, Path]) -> None:
    old, new = (dict(leaves(json.loads((at / "summary.json").read_text()))) for at in analysed)
    found, excused = differences(old, new), may_differ(analysed[0])
    assert {p: d for p, d in found.items() if not any(fnmatchcase(p, each) for each in excused)} == {}
    assert [each for each in excused if not any(fnmatchcase(p, each) for p in found)] == []


def test_every_interval_is_as_wide_as_it_was_or_wider(analysed: tuple[Path, Path]) -> None:
    """It is the wider of the old one and that over batches of time, where the turns are the same."""
    old, new = (dict(leaves(json.loads((at / "summary.json").read_text()))) for at in analysed)
    of = {path[:-2] for path in old if path.startswith(("cells/", "by_")) and path.endswith("/0")}
    of = {path for path in of if "/ci95/" in path}
    compared = 0
    for path in of:
        counts = {summary.get(f"{path.split('/ci95/')[0]}/n") for summary in (old, new)}
        ends = [(summary.get(f"{path}/0"), summary.get(f"{path}/1")) for summary in (old, new)]
        if len(counts) == 1 and None not in (*ends[0], *ends[1]):
            widths = [high - low for low, high in ends]
            assert widths[1] >= widths[0] * (1 - 1e-9), path
            compared += 1
    assert (compared > 20) is (analysed[0].name == "run"), "the sweep has too few conversations for any"


def test_every_number_of_the_csv_is_as_it_was(analysed: tuple[Path, Path]) -> None:
    old, new = (rows(at / "summary.csv") for at in analysed)
    of_cells = [each.split("/")[1:] for each in may_differ(analysed[0]) if each.startswith("cells/")]
    excused = [f"{cell}/{'_'.join(keys)}" for cell, *keys in of_cells]
    found = differences(old, new)
    assert {p: d for p, d in found.items() if not any(fnmatchcase(p, each) for each in excused)} == {}
