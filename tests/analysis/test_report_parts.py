"""What the report draws: distributions, load curves, levels over time, slow answers; and definitions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.pipeline import analyse, several
from analysis.report.plots import figures
from analysis.report.plots_style import Figure
from analysis.tables.comparisons import (
    effects_table,
    precisions_table,
    rank_tables,
    rankings_table,
    ratios_table,
)
from analysis.tables.glossary import anchor_of, glossary, term_of
from analysis.tables.rows import (
    levels_table,
    server_counts_table,
    server_waits_table,
    waits_table,
)
from tests.analysis.conftest import START_NS, MadeRun, S, level, turn
from tests.analysis.test_report import page
from tests.analysis.test_sweep import sweep

METRICS = {
    "vllm:num_requests_running": 3.0,
    "vllm:num_requests_waiting": 2.0,
    "vllm:kv_cache_usage_perc": 0.5,
}


def drawn(path: Path, group: str) -> list[Figure]:
    found = analyse(path)
    return [figure for figure in figures(found.summary, found.facts) if figure.group == group]


def trace(figure: Figure, name: str) -> dict[str, Any]:
    return next(one for one in figure.data if one["name"].startswith(name))


def test_an_attainment_curve_rises_from_the_quickest_turn_to_the_slowest(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2, ttft_ms=100 + n, events=1) for n in range(101)]
    first, whole = drawn(made.write(), "attained")
    *_, curve = first.data
    assert (curve["x"][0], curve["x"][50], curve["x"][-1]) == pytest.approx((0.1, 0.15, 0.2))
    assert curve["y"] == pytest.approx([round(100 * (n + 1) / 101, 1) for n in range(101)])
    assert whole.pick == first.pick == "chat"


def test_failed_turns_are_within_no_limit_and_the_band_holds_the_curve(made: MadeRun) -> None:
    made.turns = [
        turn(n, sent_s=6 + n / 2, ttft_ms=100 + 37 * n % 100, outcome="http_5xx" if n % 4 == 0 else "ok")
        for n in range(100)
    ]
    low, high, curve = drawn(made.write(), "attained")[1].data
    assert max(curve["y"]) == 75
    within = dict(zip(curve["x"], curve["y"], strict=True))
    ends = list(zip(low["x"], low["y"], high["y"], strict=True))
    assert len(ends) >= 20
    assert all(a <= within[x] <= b for x, a, b in ends)
    assert ends[-1][1:] == pytest.approx((64, 84), abs=5)  # 75 of 100 turns
    assert (low.get("fill"), high["fill"]) == (None, "tonexty")


def test_turns_that_never_ended_are_outside_in_the_curve_and_inside_at_the_top_of_the_band(
    made: MadeRun,
) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2, outcome=("ok", "unfinished")[n % 2]) for n in range(40)]
    for unfinished in made.turns[1::2]:
        unfinished.end_ns = (unfinished.sent_ns or 0) + 5 * S
    first, whole = drawn(made.write(), "attained")
    assert max(first.data[-1]["y"]) == 100  # their first tokens had come
    low, high, curve = whole.data
    assert curve["y"][-1] == 50
    assert curve["x"][-1] == low["x"][-1] == pytest.approx(5)  # as far as they were watched
    assert high["y"][-2] < 70 < 95 < high["y"][-1]


def test_a_limit_of_the_run_is_marked_in_its_curve_alone(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2) for n in range(40)]
    made.manifest = {"slo": {"chat": {"ttg_ms": 300.0}}}
    first, whole = drawn(made.write(), "attained")
    assert "shapes" not in first.layout
    assert whole.layout["shapes"][0]["x0"] == 0.3
    assert "0.300 s" in whole.note


def test_a_level_shows_its_errors_and_the_servers_own_metrics(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    made.turns += [
        turn(100, sent_s=20, events=0, outcome="http_5xx"),
        turn(101, sent_s=30, events=0, outcome="cut"),
    ]
    path = made.write()
    lines = [{"t_ns": START_NS + k * S} | METRICS for k in range(60)]
    (path / "server.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (figure,) = drawn(path, "time")
    assert trace(figure, "running")["y"] == [3.0] * 60
    assert trace(figure, "waiting")["y"] == [2.0] * 60
    assert trace(figure, "KV cache")["y"] == [50.0] * 60
    assert trace(figure, "http_5xx")["x"] == pytest.approx([20], abs=0.1)
    assert "cut" not in [one["name"] for one in figure.data]
    assert max(trace(figure, "streams")["y"]) == 2
    (window,) = figure.layout["shapes"]
    assert (window["x0"], window["x1"]) == (5, 65)


def test_tokens_a_second_add_up_to_the_tokens_that_arrived(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, events=50) for n in range(40)]
    (figure,) = drawn(made.write(), "time")
    rates = trace(figure, "tokens/s")
    seconds = [b - a for a, b in zip([0, *rates["x"]], rates["x"], strict=False)]
    assert sum(r * s for r, s in zip(rates["y"], seconds, strict=True)) == pytest.approx(2000, rel=0.01)


def test_a_server_without_metrics_is_said_to_have_none(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(20)]
    (figure,) = drawn(made.write(), "time")
    assert "reported no metrics" in figure.note
    assert "No turn failed" in figure.note


def test_the_raster_shows_the_slowest_turns_first_with_their_longest_pause(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, events=10) for n in range(40)]
    made.turns[7].event_us[5:] = [us + 4_000_000 for us in made.turns[7].event_us[5:]]
    (figure,) = drawn(made.write(), "raster")
    pause = trace(figure, "longest pause")
    assert pause["x"][:2] == pytest.approx([0.18, 4.2])
    assert figure.layout["yaxis"]["ticktext"][0] == "chat · 4 · 7/1"
    arrivals = trace(figure, "arrival")
    assert arrivals["x"][:10] == pytest.approx([us / 1e6 for us in made.turns[7].event_us])
    assert set(arrivals["y"]) == {str(n) for n in range(1, 21)}


def test_arrivals_of_long_answers_are_thinned_and_it_is_said(made: MadeRun) -> None:
    made.turns = [turn(0, sent_s=6, events=2000, gap_ms=5)]
    (figure,) = drawn(made.write(), "raster")
    assert len(trace(figure, "arrival")["x"]) == 250
    assert "evenly chosen" in figure.note


def test_a_saturated_load_has_a_ring_and_its_interval(made: MadeRun) -> None:
    made.levels, made.turns = [], []
    for index, (people, every_s) in enumerate(((1, 1.0), (4, 0.25), (16, 0.25))):
        start = index * 100
        window = (start + 5.0, start + 65.0)
        made.levels.append(level(index, start_s=start, window_s=window, end_s=start + 70.0, users=people))
        for k in range(int(60 / every_s)):
            made.turns.append(turn(1000 * index + k, sent_s=start + 5 + k * every_s, ttft_ms=100 * people))
    first, whole = drawn(made.write(), "load")
    wide, ring, line = whole.data
    assert ring["marker"]["symbol"] == "circle-open"
    assert ring["x"] == [line["x"][1]]
    assert line["text"] == ["1", "4", "16"]
    assert wide["line"]["width"] > 5
    assert [axis.layout["yaxis"]["title"]["text"] for axis in (first, whole)] == ["TTFT, s", "TTG, s"]


def test_waiting_is_drawn_by_turn_and_by_context_with_what_a_cache_spared(made: MadeRun) -> None:
    made.turns = [
        turn(n, t, sent_s=6 + n + t / 4, prompt_tokens=100 * 2**t, cached_tokens=50 * t, ttft_ms=50 * t)
        for n in range(40)
        for t in (1, 2, 3)
    ]
    by_turn, by_context, cached = drawn(made.write(), "growth")
    assert by_turn.data[0]["y"] == pytest.approx([0.05, 0.1, 0.15])
    assert by_context.layout["xaxis"]["type"] == "log"
    lines = [one for one in by_context.data if "marker" in one]
    assert [(one["name"], one["x"]) for one in lines] == [("computed", [200, 400, 800])]
    assert lines[0]["y"] == pytest.approx([0.05, 0.1, 0.15])
    seen, expected = cached.data
    assert seen["y"] == [50, 100, 150]
    assert expected["y"] == [0, 210, 410]


def test_prompts_from_the_prefix_cache_have_a_line_of_their_own(made: MadeRun) -> None:
    made.turns = [
        turn(
            n,
            sent_s=6 + n / 4,
            prompt_tokens=200 * 2 ** (n % 3),
            cached_tokens=150 * 2 ** (n % 3) * (n % 2),
            ttft_ms=20 if n % 2 else 100 * 2 ** (n % 3),
        )
        for n in range(180)
    ]
    (by_length,) = drawn(made.write(), "growth")
    lines = {one["name"]: one["y"] for one in by_length.data if "marker" in one}
    assert lines == {
        "computed": pytest.approx([0.1, 0.2, 0.4]),
        "cached": pytest.approx([0.02, 0.02, 0.02]),
    }
    assert "at least half of the prompt" in by_length.note


@pytest.mark.slow
def test_no_two_models_of_a_figure_share_both_dash_and_shape(tmp_path: Path) -> None:
    cells = []
    for number in range(8):
        turns = [turn(k, sent_s=6 + k, model=f"m{number}") for k in range(30)]
        MadeRun(tmp_path / f"r{number}", turns).write()
        cells.append({"dir": f"r{number}", "model": f"m{number}", "status": "finished"})
    first, _ = drawn(sweep(tmp_path, cells), "attained")
    curves = [one for one in first.data if "marker" in one]
    looks = {(one["line"]["dash"], one["marker"]["symbol"]) for one in curves}
    assert len(looks) == 8
    (bars,) = drawn(tmp_path, "wait")
    assert len({one["marker"]["pattern"]["shape"] for one in bars.data}) >= 7


def test_every_column_of_numbers_has_its_definition_one_click_away(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, task=("a", "b")[n % 2], events=5 + 9 * (n % 2)) for n in range(80)]
    _, tags = page(made)
    ids = {attributes.get("id") for _, attributes in tags.tags}
    targets = [a["popovertarget"] for _, a in tags.tags if "popovertarget" in a]
    assert len(targets) > 60
    assert set(targets) <= ids
    heads = [a for name, a in tags.tags if name == "th" and a.get("scope") == "col"]
    assert len(targets) >= len(heads)


@pytest.mark.parametrize("header", ["TTFT p50", "TTG ms", "vs. fastest at 256", "tau by tps", "rank by tps"])
def test_a_header_finds_its_term_under_its_unit_or_percentile(header: str) -> None:
    term = term_of(header)
    assert term in glossary()
    assert anchor_of(term).startswith("def-")


def test_every_head_of_every_table_has_its_term(tmp_path: Path) -> None:
    cells = []
    for name in ("a", "b"):
        turns = [turn(k, sent_s=6 + k, model=name, task=f"t{k % 2}") for k in range(60)]
        MadeRun(tmp_path / name, turns).write()
        cells.append({"dir": name, "model": name, "status": "finished"})
    found = analyse(sweep(tmp_path, cells)).summary
    tables = [
        waits_table(found),
        levels_table(found),
        rankings_table(found.comparison),
        *rank_tables(found.comparison),
        effects_table(found.comparison),
        ratios_table(found.study),
        precisions_table(found.study),
        server_waits_table(found),
        server_counts_table(found),
    ]
    assert len(tables) > 7
    assert [head for table in tables for head in table.heads if term_of(head) is None] == []


def test_a_header_that_is_no_term_has_none() -> None:
    assert term_of("yi-6b") is None


@pytest.mark.slow
def test_a_report_of_sixty_runs_with_much_text_stays_under_six_megabytes(tmp_path: Path) -> None:
    levels = [
        level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=2**n)
        for n in range(4)
    ]
    turns = [
        turn(100 * n + k, sent_s=n * 100 + k, task=f"task {k % 5}", events=260)
        for n in range(4)
        for k in range(30)
    ]
    one = analyse(MadeRun(tmp_path / "run", turns, levels).write())
    many = [
        replace(
            one, path=tmp_path / f"run-{n}", facts=[replace(one.facts[0], scenario=f"{n}" + "long\n" * 9999)]
        )
        for n in range(60)
    ]
    several(many, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert len(text.encode()) < 6_000_000
    assert "figures are omitted here" in text


@pytest.mark.parametrize("turns", [[], [turn(0, sent_s=6)], [turn(0, sent_s=6, events=0, outcome="connect")]])
def test_a_run_of_nothing_one_turn_or_only_errors_has_a_clear_page(made: MadeRun, turns: list[Any]) -> None:
    made.turns = turns
    text, _ = page(made)
    assert "How long does a person wait?" in text
    first_screen = text[text.index("<header>") : text.index("<nav>")]
    if turns and turns[0].outcome == "ok":
        assert "VALID" in first_screen
        return
    assert "INVALID" in first_screen
    assert "no turn finished in the run" in first_screen
    assert "→ see that the server answers" in first_screen


@pytest.mark.parametrize(("clock", "lags"), [("wire", False), ("kernel", True)])
def test_the_page_says_how_late_turns_were_sent_and_a_lag_only_where_times_are_of_reads(
    made: MadeRun, clock: str, lags: bool
) -> None:
    made.turns = [turn(n, sent_s=6 + n / 2, late_ms=4, clock=clock, read_after_us=-1) for n in range(20)]
    shown = " ".join(page(made)[0].split())
    assert "turns sent 4.00 ms after they were due (p99)" in shown
    assert "first tokens read less than 0.01 ms after their packets (p99)" in shown
    assert ("lag p99" in shown) == lags
