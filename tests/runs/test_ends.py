"""Runs that end otherwise than planned: signals and kills. The ledger closes, nothing goes on loading."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import alive, below

SLOW = ("--ttft", "300ms", "--itl", "20ms", "--tokens", "50")
SLOWER = ("--ttft", "300ms", "--itl", "60ms", "--tokens", "50")
LONG = ("--levels", "4", "--hold", "300s", "--warmup", "200ms", "--exact-tokens", "--max-tokens", "50")
"""Four people whose turns take 1.3 s against SLOW; its own end comes later than any test waits."""
SIGNALS = [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_drains_and_leaves_a_readable_partial_run(
    server: Any, headless: Any, tools: Any, number: int, code: int
) -> None:
    at = server(*SLOW)
    load = headless(at, *LONG)
    load.wait_for_turns(4)
    load.process.send_signal(number)
    assert load.end() == code, load.said
    run = load.run()
    assert run.manifest.status == "interrupted"
    assert run.manifest.exit_code == code
    assert {turn.outcome for turn in run.turns()} == {"ok"}, "open turns were not drained"
    ledger = tools.ledger_of(run)
    assert ledger["begun"] == ledger["finished"] == sum(1 for _ in run.turns())
    assert (load.where / "summary.json").exists()
    assert tools.request_ids(run) == set(at.truth())


def test_a_second_signal_ends_at_once(server: Any, headless: Any, tools: Any) -> None:
    at = server("--ttft", "100ms", "--itl", "500ms", "--tokens", "100")
    load = headless(at, *LONG)
    tools.wait_until(lambda: at.running() == 4, "four open turns")
    load.process.send_signal(signal.SIGINT)
    wait_for_line(load, "once more ends at once")  # draining would take 50 s
    assert at.running() == 4
    started = time.monotonic()
    load.process.send_signal(signal.SIGINT)
    assert load.end() == 130, load.said
    assert time.monotonic() - started < 15
    outcomes = Counter(turn.outcome for turn in load.run().turns())
    assert set(outcomes) <= {"unfinished", "cut"}
    assert sum(outcomes.values()) == 4


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param([], id="alone"),
        pytest.param(["--processes", "2"], id="forked workers", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_the_server_is_asked_who_it_is_ends_everything_at_once(
    locust: Any, tools: Any, processes: list[str], number: int, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        load = locust("--headless", "-H", url, "--scenario", "choose", "--once", "-u", "2", *processes)
        asking, _ = silent.accept()
        with asking:
            if processes:  # their workers are there a moment later
                tools.wait_until(lambda: len(load.engines()) == 2, "the engines of the workers")
            family = below(load.process.pid)
            os.killpg(load.process.pid, number)  # as Ctrl-C in a terminal does
            assert load.end(20) == code, load.said
    assert "Traceback" not in load.said
    tools.wait_until(lambda: not any(map(alive, family)), "all processes of the run to end", 10)


@pytest.mark.slow
def test_a_second_signal_ends_the_analysis_too(
    server: Any, headless: Any, tools: Any, tmp_path: Path
) -> None:
    endless = "import sys, time\nif 'analysis' in sys.orig_argv:\n    time.sleep(600)\n"
    (tmp_path / "sitecustomize.py").write_text(endless)  # Python runs it before anything else
    load = headless(
        server(), "--levels", "1", "--hold", "1s", "--warmup", "0", env={"PYTHONPATH": str(tmp_path)}
    )
    (child,) = tools.wait_until(lambda: below(load.process.pid, "analysis"), "the analysis of the run")
    load.process.send_signal(signal.SIGTERM)
    wait_for_line(load, "once more ends at once")
    assert alive(child)
    load.process.send_signal(signal.SIGTERM)
    assert load.end(30) == 143, load.said
    assert not alive(child)
    assert not (load.where / "report.html").exists()


def test_a_killed_engine_makes_the_run_invalid_and_says_why(server: Any, headless: Any, tools: Any) -> None:
    at = server(*SLOWER)
    load = headless(at, *LONG)
    wait_for_open_turns(load, tools)
    load.engines()[0].kill()
    assert load.end() == 3, load.said
    run = load.run()
    assert run.manifest.status == "failed"
    assert load.findings() == ["engine_lost"]
    assert "signal 9" in run.manifest.findings[-1].what
    summary = json.loads((load.where / "summary.json").read_text())
    assert summary["outcomes"]["lost"] == tools.ledger_of(run)["begun"] - tools.ledger_of(run)["finished"]
    assert turns_in_flight(load, at, tools) == summary["outcomes"]["lost"] == 4


def test_a_killed_server_is_counted_as_outcomes_and_the_run_ends_in_time(
    own_server: Any, headless: Any, tools: Any
) -> None:
    at = own_server(*SLOW)
    load = headless(
        at, "--levels", "4", "--hold", "5s", "--warmup", "200ms", "--drain", "5s", "--no-analysis"
    )
    load.wait_for_turns(4)
    at.process.kill()
    at.process.communicate()
    assert load.end() == 0, load.said
    run = load.run()
    outcomes = Counter(turn.outcome for turn in run.turns())
    assert outcomes["ok"] >= 4
    assert outcomes["disconnected"] + outcomes["truncated"] >= 1, outcomes
    assert outcomes["connect"] >= 1, outcomes
    assert outcomes["connect"] < 60, "a dead server was hammered"
    ledger = tools.ledger_of(run)
    assert ledger["begun"] == ledger["finished"]


@pytest.mark.slow
def test_a_killed_locust_takes_its_engine_along_and_analysis_says_incomplete(
    server: Any, headless: Any, tools: Any
) -> None:
    at = server(*SLOWER)
    load = headless(at, *LONG)
    wait_for_open_turns(load, tools)
    engine = load.engines()[0]
    load.process.kill()
    load.process.communicate()
    tools.wait_until(lambda: not alive(engine), "the engine to end", 10)
    tools.wait_until(lambda: at.running() == 0, "the server to be idle", 20)
    run = load.run()
    assert run.manifest.status == "running"
    lost = tools.ledger_of(run)["begun"] - tools.ledger_of(run)["finished"]
    assert lost > 0
    done = subprocess.run(
        [sys.executable, "-m", "analysis", str(load.where)], capture_output=True, text=True, check=False
    )
    assert "incomplete" in done.stdout
    ledger = json.loads((load.where / "summary.json").read_text())["ledger"]
    assert turns_in_flight(load, at, tools) == ledger["lost"] + ledger["missing"]
    assert ledger["begun"] == len(at.truth())


def turns_in_flight(load: Any, at: Any, tools: Any) -> int:
    """What the server saw of the run and nobody recorded: it was answering these when all went dark."""
    return len(set(at.truth()) - tools.request_ids(load.run()))


def distributed(headless: Any, locust: Any, tools: Any, at: Any) -> tuple[Any, list[Any]]:
    port = str(tools.free_port())
    master = headless(
        at, *LONG, "--no-analysis", "--master", "--expect-workers", "2", "--master-bind-port", port
    )
    return master, [locust("--worker", "--master-port", port) for _ in range(2)]


@pytest.mark.slow
def test_a_killed_worker_makes_the_run_invalid_and_is_named(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at = server(*SLOW)
    master, workers = distributed(headless, locust, tools, at)
    master.wait_for_turns(4)
    workers[1].process.kill()
    assert master.end() == 3, master.said
    run = master.run()
    (finding,) = [f for f in run.manifest.findings if f.check == "worker_lost"]
    assert "worker 1" in finding.what or "worker 0" in finding.what
    assert "50%" in finding.what
    assert workers[0].end() == 0
    ledger = tools.ledger_of(run)
    assert turns_in_flight(master, at, tools) == ledger["begun"] - sum(1 for _ in run.turns())
    assert ledger["begun"] == len(at.truth())


@pytest.mark.slow
def test_a_killed_master_stops_the_load_of_its_workers(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at = server(*SLOW)
    master, workers = distributed(headless, locust, tools, at)
    master.wait_for_turns(4)
    engines = [engine for worker in workers for engine in worker.engines()]
    assert len(engines) == 2
    master.process.kill()
    master.process.communicate()
    assert [worker.end(10) for worker in workers] == [3, 3], "after 5 s without the master"
    tools.wait_until(lambda: not any(alive(engine) for engine in engines), "the engines to end", 10)
    tools.wait_until(lambda: at.running() == 0, "the server to be idle", 20)


def test_a_full_disk_stops_the_load_keeps_the_files_and_exits_3(server: Any, headless: Any) -> None:
    load = headless(server("--ttft", "20ms", "--itl", "2ms", "--tokens", "50"), *LONG, "--no-analysis")
    load.wait_for_turns(4)
    written = (load.where / "turns-0.jsonl").stat().st_size
    psutil.Process(load.process.pid).rlimit(psutil.RLIMIT_FSIZE, (written + 5_000, written + 5_000))
    assert load.end() == 3, load.said
    assert load.run().manifest.status == "failed"
    assert "free space or choose another --run-dir" in load.said
    assert (load.where / "turns-0.jsonl").stat().st_size > 0


def wait_for_line(load: Any, words: str) -> None:
    for line in load.process.stdout:
        if words in line:
            return
    pytest.fail(f"it ended and never said: {words}")


def wait_for_open_turns(load: Any, tools: Any) -> None:
    """Until a health line on disk tells of turns that are open now, with a second to go at least."""

    def told() -> bool:
        path = load.where / "health-0.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        last = json.loads(lines[-1]) if lines else {"finished": 0, "begun": 0}
        return bool(last["finished"] >= 4 and last["begun"] - last["finished"] == 4)

    tools.wait_until(told, "a health line that tells of open turns")


@pytest.mark.slow
def test_a_run_directory_that_vanishes_ends_the_run_with_exit_3(
    server: Any, headless: Any, tools: Any
) -> None:
    at = server(*SLOW)
    load = headless(at, "--levels", "2,3", "--hold", "2s", "--warmup", "200ms", "--drain", "5s")
    load.wait_for_turns(1)
    load.where.rename(load.where.with_name("gone"))
    assert load.end() == 3, load.said
    assert "choose another --run-dir" in load.said
    tools.wait_until(lambda: at.running() == 0, "the server to be idle", 20)


@pytest.mark.slow
def test_killing_the_only_worker_ends_the_run_in_time(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at, port = server(*SLOW), str(tools.free_port())
    master = headless(
        at, *LONG, "--no-analysis", "--master", "--expect-workers", "1", "--master-bind-port", port
    )
    worker = locust("--worker", "--master-port", port)
    master.wait_for_turns(4)
    worker.process.kill()
    assert master.end() == 3, master.said
    assert master.run().manifest.status == "failed"
    assert master.findings() == ["worker_lost"]
    tools.wait_until(lambda: at.running() == 0, "the server to be idle", 20)


@pytest.mark.slow
def test_a_worker_that_comes_late_plays_nothing_and_the_run_is_invalid(
    server: Any, headless: Any, locust: Any, tools: Any
) -> None:
    at, port = server(*SLOW), str(tools.free_port())
    master = headless(at, "--levels", "4", "--hold", "12s", "--warmup", "200ms", "--no-analysis", "--master",
                      "--expect-workers", "1", "--master-bind-port", port)  # fmt: skip
    first = locust("--worker", "--master-port", port)
    master.wait_for_turns(4)
    late = locust("--worker", "--master-port", port)
    assert master.end() == 3, master.said
    assert (first.end(), late.end()) == (0, 0)
    run = master.run()
    assert master.findings() == ["late_worker"]
    assert {turn.worker for turn in run.turns()} == {0}
    assert tools.request_ids(run) == set(at.truth())


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_master_that_waits_for_its_workers_can_be_stopped(
    server: Any, headless: Any, number: int, code: int
) -> None:
    load = headless(server(), *LONG, "--master", "--expect-workers", "3", "--master-bind-port", "0")
    wait_for_line(load, "Waiting for workers")
    load.process.send_signal(number)
    assert load.end() == code, load.said


@pytest.mark.slow
def test_an_invalid_run_exits_3_without_its_analysis_too(server: Any, headless: Any, tools: Any) -> None:
    load = headless(server(*SLOWER), *LONG, "--no-analysis")
    wait_for_open_turns(load, tools)
    load.engines()[0].kill()
    assert load.end() == 3, load.said
    assert load.run().manifest.exit_code == 3
    assert not (load.where / "summary.json").exists()
