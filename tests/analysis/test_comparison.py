"""Tokens per second is not the whole story: orders, shares, swaps and effects with a known truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.compare.causes import PARTS, effects_of, shares_of, swap_of
from analysis.compare.ranking import comparison_of, ranking_of, tau_b
from analysis.tables.sentences import in_words
from tests.analysis.conftest import MadeRun, cell_of, summary_of, turn
from tests.analysis.test_sweep import sweep


def rows(
    name: str, ttft_ms: object, tpot_ms: object, later: object, n: int = 200, task: str = "chat"
) -> pd.DataFrame:
    """Turns of one model, each its own conversation, from arrays or numbers."""
    frame = pd.DataFrame(
        {
            "name": [name] * n,
            "model": name,
            "run": name,
            "setting": "",
            "task": task,
            "load": "4",
            "talk": range(n),
            "outcome": "ok",
            "ttft_ms": np.asarray(ttft_ms, dtype=float) * np.ones(n),
            "tpot_ms": np.asarray(tpot_ms, dtype=float) * np.ones(n),
            "later_tokens": np.asarray(later, dtype=float) * np.ones(n),
        }
    )
    frame["ttg_ms"] = frame["ttft_ms"] + frame["later_tokens"] * frame["tpot_ms"]
    frame["tokens"] = frame["later_tokens"] + 1
    return frame.assign(words=frame["tokens"] * 0.7)


def test_a_model_that_talks_more_is_faster_in_tokens_and_later_to_finish() -> None:
    found = ranking_of(pd.concat([rows("talker", 100, 10, 200), rows("terse", 100, 20, 20)]))
    assert found is not None
    assert found.tau == -1
    assert found.tau_ci95 == [-1, -1]
    (pair,) = found.pairs
    assert (pair.faster, pair.sooner, pair.swaps, pair.p) == ("talker", "terse", True, 1.0)


def test_tau_is_scipys_tau_b_with_ties_too() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.integers(0, 4, (2, 6)).astype(float)
        expected = kendalltau(a, b).statistic
        found = tau_b(a[None], b[None])[0]
        assert found == pytest.approx(expected, nan_ok=True)


def test_five_models_prove_something_only_in_perfect_order() -> None:
    perfect = pd.concat([rows(f"m{n}", 100, 10 + n, 50) for n in range(5)])
    found = ranking_of(perfect)
    assert found is not None
    assert found.p_value == pytest.approx(found.least_p_value)
    assert found.p_value < 0.05
    lengths = (50, 50, 50, 50, 45)
    nearly = ranking_of(pd.concat([rows(f"m{n}", 100, 10 + n, lengths[n]) for n in range(5)]))
    assert nearly is not None
    assert nearly.tau == pytest.approx(0.8)
    assert nearly.p_value > 0.05
    told = comparison_of(perfect)
    assert told is not None
    assert "only perfect agreement is significant" in in_words(told.cells)
    assert in_words(told.cells).count("agree on 10 of 10 pairs") == 1


def test_four_models_are_said_to_be_too_few_for_any_order() -> None:
    told = comparison_of(pd.concat([rows(f"m{n}", 100, 10 + n, 50) for n in range(4)]))
    assert told is not None
    assert "too few for any ranking to be significant" in in_words(told.cells)


def test_nothing_is_said_of_an_order_from_too_few_conversations() -> None:
    told = comparison_of(pd.concat([rows("a", 100, 10, 50, n=5), rows("b", 100, 20, 10, n=5)]))
    assert told is not None
    assert told.cells[0].tau_ci95 is None
    assert "too few conversations for an interval" in in_words(told.cells)
    assert "No model surely" in in_words(told.cells)


def test_one_unfinished_turn_of_a_thousand_does_not_rank_a_model_last() -> None:
    fast, slow = rows("fast", 100, 10, 50, n=1000), rows("slow", 100, 20, 50, n=1000)
    fast.loc[0, "outcome"] = "unfinished"
    fast["ttg_ms"] *= np.linspace(0.9, 1.1, 1000)
    found = ranking_of(pd.concat([fast, slow]))
    assert found is not None
    assert [model.rank_time for model in found.models] == [1, 2]
    assert found.horizon_ms == pytest.approx(660)


@pytest.mark.slow
def test_rankings_agree_by_chance_already_where_lengths_say_nothing_of_the_model() -> None:
    """Both share the time to generate: lengths and speeds that are independent give a tau far above 0."""
    taus, shuffled = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        models = [
            rows(f"m{n}", 100, 20 * np.exp(rng.normal(0, 0.4)), 100 * np.exp(rng.normal(0, 0.4)), n=25)
            for n in range(8)
        ]
        found = ranking_of(pd.concat(models))
        assert found is not None
        taus.append(found.tau)
        shuffled.append(found.tau_shuffled)
    assert 0.3 < np.mean(taus) < 0.7
    assert np.mean(shuffled) == pytest.approx(np.mean(taus), abs=0.15)


def test_lengths_that_belong_to_the_model_change_the_order_and_it_is_said() -> None:
    models = [rows(f"m{n}", 100, 10 + n, 200 - 20 * n) for n in range(8)]
    told = comparison_of(pd.concat(models))
    assert told is not None
    assert "verbosity changes the order" in in_words(told.cells)
    assert told.cells[0].tau == -1


def test_a_swap_is_called_sure_only_after_adjustment_for_all_pairs_shown() -> None:
    rng = np.random.default_rng(1)

    def noisy(name: str, pace: float, later: float, task: str) -> pd.DataFrame:
        return rows(name, 100, pace, later * np.exp(rng.normal(0, 0.5, 40)), n=40, task=task)

    one = comparison_of(pd.concat([noisy("a", 10, 62, "t"), noisy("b", 12, 41, "t")]))
    assert one is not None
    (pair,) = one.cells[0].pairs
    assert pair.p_adjusted == pair.p_value
    many = comparison_of(
        pd.concat([noisy(n, p, k, f"t{i}") for i in range(20) for n, p, k in (("a", 10, 62), ("b", 12, 41))])
    )
    assert many is not None
    pairs = [pair for cell in many.cells for pair in cell.pairs]
    assert all(pair.p_adjusted >= pair.p_value for pair in pairs)
    surest = min(pairs, key=lambda pair: pair.p_value)
    assert surest.p_adjusted == pytest.approx(min(21 * surest.p_value, 1))  # 20 tasks and all of them


def test_the_shares_of_a_planted_law_are_found_within_3_points() -> None:
    rng = np.random.default_rng(5)
    spreads = {"verbosity": 0.8, "time_per_token": 0.5, "first_token": 0.0}
    n = 20_000
    made = rows(
        "m", 1e-3, np.exp(rng.normal(3, spreads["time_per_token"], n)), np.exp(rng.normal(4, 0.8, n)), n
    )
    found = shares_of(made)
    assert found is not None
    total = sum(value**2 for value in spreads.values())
    for part in PARTS:
        assert found.of(part) == pytest.approx(spreads[part] ** 2 / total, abs=0.03)
    assert sum(found.of(part) for part in PARTS) == pytest.approx(1)


def test_the_shares_of_a_law_with_all_three_sum_to_one_and_lie_in_their_intervals() -> None:
    rng = np.random.default_rng(6)
    first, pace, later = (np.exp(rng.normal(mu, 0.4, 3000)) for mu in (6, 3, 3))
    found = shares_of(rows("m", first, pace, later, 3000))
    assert found is not None
    assert sum(found.of(part) for part in PARTS) == pytest.approx(1)
    assert all(found.ci95[part][0] < found.of(part) < found.ci95[part][1] for part in PARTS)
    assert found.verbosity == pytest.approx(found.time_per_token, abs=0.05)


def test_answers_of_one_event_are_all_first_token() -> None:
    rng = np.random.default_rng(7)
    found = shares_of(rows("m", np.exp(rng.normal(4, 0.4, 200)), np.nan, 0))
    assert found is None or found.first_token == pytest.approx(1)


def test_the_diagonal_of_the_swap_table_is_what_was_measured() -> None:
    made = pd.concat([rows("a", 100, 10, 50), rows("b", 200, 20, 5)])
    swap = swap_of(made)
    assert swap is not None
    assert swap.names == ["a", "b"]
    assert swap.time_ms[0] == pytest.approx([600, 150])
    assert swap.time_ms[1] == pytest.approx([1200, 300])


def test_effects_find_the_term_that_matters() -> None:
    rng = np.random.default_rng(8)
    noise = lambda: np.exp(rng.normal(0, 0.05, 200))  # noqa: E731
    made = pd.concat(
        [
            rows(name, 100, 10 * noise(), later, task=task)
            for name in ("a", "b")
            for task, later in (("x", 10), ("y", 200))
        ]
    )
    found = {item.term: item for item in effects_of(made) or []}
    assert set(found) == {"model", "task", "model x task"}
    assert found["task"].omega_squared > 0.9
    assert abs(found["model"].omega_squared) < 0.01


def test_a_sweep_of_two_models_says_in_words_which_is_faster_and_which_is_sooner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    cells = []
    for name, gap_ms, events in (("<b>talker", 10, 100), ("=terse", 20, 10)):
        records = [turn(n, sent_s=6 + n, gap_ms=gap_ms, events=events, model=name) for n in range(40)]
        folder = name.strip("<b>=")
        MadeRun(path / folder, records).write()
        cells.append({"dir": folder, "model": name, "status": "finished"})
    assert main([str(sweep(path, cells))]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "<b>talker generates more tokens per second than =terse" in words
    assert json.loads((path / "summary.json").read_text())["comparison"]["cells"][0]["tau"] == -1
    page = (path / "report.html").read_text()
    assert "Tokens per second is not the whole story" in page
    assert "<b>talker" not in page.replace("&lt;b&gt;", "")


def test_a_task_called_all_is_not_taken_for_the_sum_of_all_tasks(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2, task="all" if n % 2 else "chat") for n in range(40)]
    summary = summary_of(made)
    assert cell_of(summary)["turns"] == 40
    assert cell_of(summary, "all (by name)")["turns"] == 20
