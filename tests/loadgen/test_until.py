"""--until: what may be typed, when a level may end, and that its interval is that of the analysis."""

from __future__ import annotations

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from analysis.pipeline import analyse
from loadgen.control._until import LEAST_S, LookPlan, PrecisionWatch
from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._values import Until
from tests.analysis.conftest import START_NS, MadeRun, S, level, turn
from turnbench.formats import LevelEntry, TurnRecord

WINDOW = (0.0, 60.0)
PREPARED: Any = SimpleNamespace(endpoint=SimpleNamespace(server={}), facts={})


def settings(**options: Any) -> Any:
    return settings_from({"host": "http://127.0.0.1:1", "turnbench_users_given": False} | options)


@pytest.mark.parametrize("text", ["ttg_p50=5%", "ttg_p50 = 0.05"])
def test_a_number_and_a_share_are_read_in_percent_or_plain(text: str) -> None:
    assert settings(levels="1", until=text).until == Until("ttg_p50", 0.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttg_p50", "write KEY=SHARE such as ttg_p50=5%"),
        ("ttg_p95=5%", "KEY one of ttft_p50, ttft_p90, ttft_p99"),
        ("tps=0", "'0' is not a share from 0.1% to 50%"),
        ("tps=80%", "from 0.1% to 50%"),
        ("tps=nan", "from 0.1% to 50%"),
        ("tps=", "from 0.1% to 50%"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(OptionErrors, match="--until") as error:
        settings(levels="1", until=text)
    (problem,) = error.value.problems
    assert said in problem


@pytest.mark.parametrize(
    "other",
    [
        {"once": True},
        {"find_capacity": True, "slo": "ttg_ms=1"},
        {"replay_speed": "2"},
        {"arrival_rate": "1..5", "turnbench_run_time_s": "60s"},
    ],
)
def test_levels_without_one_steady_load_and_an_end_of_their_own_refuse_it(other: dict[str, Any]) -> None:
    with pytest.raises(OptionErrors) as error:
        settings(until="tps=5%", **other)
    (problem,) = error.value.problems
    assert "--until" in problem


def looked(share_at: Any, asked: float, until_s: float = 3600.0) -> tuple[float | None, LookPlan]:
    """When a level ends whose number is known to share_at(seconds)."""
    plan = LookPlan(asked)
    while plan.next_s < until_s:
        now_s = plan.next_s
        if plan.look(now_s, share_at(now_s), 1000):
            return now_s, plan
    return None, plan


def test_a_level_ends_at_the_first_look_after_its_number_is_known_well_enough() -> None:
    ended_s, plan = looked(lambda s: 0.5 / math.sqrt(s), 0.05)
    assert ended_s is not None
    assert 100 <= ended_s <= 110
    assert plan.needed_s == pytest.approx(100)


def test_one_narrow_look_among_wide_ones_ends_nothing() -> None:
    narrow_at = 60.0
    ended_s, _ = looked(lambda s: 0.01 if abs(s - narrow_at) < 5 else 0.8 / math.sqrt(s), 0.05)
    assert ended_s is not None
    assert ended_s >= 256


def test_looks_are_bounded_and_none_comes_before_a_level_may_end() -> None:
    ended_s, plan = looked(lambda s: None, 0.05)
    assert ended_s is None
    assert plan.looks < 70
    assert plan.needed_s is None
    ended_s, _ = looked(lambda s: 0.001, 0.05)
    assert ended_s == pytest.approx(LEAST_S, abs=2.5)


def test_too_few_conversations_end_nothing_however_narrow_their_interval() -> None:
    assert not LookPlan(0.05).look(100.0, 0.001, 19)


def records() -> list[TurnRecord]:
    """Turns of conversations, some of which failed, never ended, or were tried twice."""
    rng = random.Random(1)
    found = []
    for k in range(60):
        for t in (1, 2, 3):
            sent_s, ttft_ms = 60 * (k + t / 4) / 61, rng.lognormvariate(5, 0.4)
            outcome = "http_5xx" if k % 10 == 3 else "deadline" if k % 10 == 7 and t == 3 else "ok"
            one = turn(k, t, sent_s=sent_s, ttft_ms=ttft_ms, events=rng.randrange(5, 40), outcome=outcome)
            if (k, t) == (5, 2):
                again = turn(k, t, sent_s=sent_s + 0.3, ttft_ms=900, attempt=2)
                one.outcome = "http_5xx"
                found.append(again)
            found.append(one)
    return sorted(found, key=lambda one: (one.sent_ns or 0) + one.attempt)


@pytest.mark.parametrize("key", ["ttft_p50", "ttg_p50", "ttft_p90", "tps"])
def test_what_was_reached_is_the_interval_of_the_analysis(tmp_path: Path, key: str) -> None:
    made = MadeRun(tmp_path / "run", records(), [level(0, window_s=WINDOW)])
    watch = PrecisionWatch(Until(key, 0.05), PREPARED)
    for record in made.turns:
        watch.add(record, 0)
    entry = LevelEntry(window_start_ns=START_NS, window_end_ns=START_NS + 60 * S)
    reached = watch.entry(entry, early=False).reached
    (cell,) = [c for c in analyse(made.write()).summary.cells if (c.level, c.task) == (0, "all")]
    if key == "tps":
        number, ends = cell.tps, cell.ci95["tps"]
    else:
        metric, name = key.split("_")
        values = cell.values[f"{metric}_ms"]
        number, ends = getattr(values, name), values.ci95[name]
    if number is None or ends is None or None in ends:
        assert reached is None
    else:
        expected = max(abs((end or 0) / number - 1) for end in ends)
        assert reached == pytest.approx(expected, rel=0.05 if key == "tps" else 1e-9)  # of tps, draws differ


def test_the_clock_of_another_machine_is_taken_off() -> None:
    watch, entry = PrecisionWatch(Until("ttg_p50", 0.05), PREPARED), LevelEntry()
    entry.window_start_ns, entry.window_end_ns = START_NS, START_NS + 60 * S
    other = PrecisionWatch(Until("ttg_p50", 0.05), PREPARED)
    for record in records():
        watch.add(record, 0)
        later_ns = None if record.sent_ns is None else record.sent_ns + 3600 * S
        other.add(replace(record, sent_ns=later_ns), 3600 * S)
    assert watch.entry(entry, early=True).reached == other.entry(entry, early=True).reached is not None


def test_the_live_line_says_how_well_a_number_is_known_and_what_is_left() -> None:
    watch = PrecisionWatch(Until("ttg_p50", 0.05), PREPARED)
    assert watch.in_words(5.0) == ""
    watch.plan.look(40.0, 0.1, 100)
    assert watch.in_words(40.0) == "ttg_p50 within 10.0%, about 2 min 0 s left"
