"""What people and their machines do: mistyped commands, ports that are taken, Ctrl-C at any moment, two runs
at once, a terminal that closes, an engine that starts late, too few descriptors."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEAD = "http://127.0.0.1:9"
MISTAKE = ["-H", DEAD, "--scenario", "FIFO", "--server-facts", "FIFO"]
MORE_MISTAKES = [  # slow: the parsers' tests have them, too
    ["-H", DEAD, "--run-dir", "x" * 300],
    ["-H", DEAD, "--processes", "2", "--master-bind-port", "99999"],
    ["-H", "htp://127.0.0.1:8000"],
    ["-H", "localhost:8000"],
    ["-H", "http://127.0.0.1:99999"],
    ["-H", "http://"],
    ["-H", "http:///v1"],
    ["-H", " "],
    ["-H", "http://127.0.0.1:8000/v1/embeddings"],
    ["-H", "http://[::1"],
    ["-H", "http://a b"],
    ["-H", DEAD, "--scenario", "/dev/zero"],
    ["-H", DEAD, "--scenario", "."],
    ["-H", DEAD, "--scenario", "no/such/file.yaml"],
    ["-H", DEAD, "--server-facts", "FIFO"],
    ["-H", DEAD, "--server-facts", "/dev/zero"],
    ["-H", DEAD, "--server-facts", "."],
    ["-H", DEAD, "--ca", "FIFO"],
    ["-H", DEAD, "--cert", "FIFO"],
    ["-H", DEAD, "--run-dir", "a\nb"],
    ["-H", DEAD, "--run-dir", "FIFO/run"],
    ["-H", DEAD, "--run-dir", "/proc/run"],
    ["-H", DEAD, "--run-dir", "a\x1b[2Jb"],
    ["-H", DEAD, "--levels", ""],
    ["-H", DEAD, "--levels", "1,,2"],
    ["-H", DEAD, "--levels", "0"],
    ["-H", DEAD, "--hold", "-5s", "--levels", "1"],
    ["-H", DEAD, "--cache", "lukewarm"],
    ["-H", DEAD, "--cache", "shared:2"],
    ["-H", DEAD, "--salt", "pepper"],
    ["-H", DEAD, "--header", "no colon"],
    ["-H", DEAD, "--body", "[1]"],
    ["-H", DEAD, "--model", ""],
    ["-H", DEAD, "--api-key-env", "sk-live-1234567890"],
    ["-H", DEAD, "--processes", "-7"],
    ["-H", DEAD, "--processes", "2", "--master"],
    ["-H", DEAD, "--html", "FIFO/x.html"],
    ["-H", DEAD, "--logfile", "no/such/log"],
    ["-H", DEAD, "--csv", "FIFO/x"],
]


@pytest.mark.parametrize(
    "options",
    [MISTAKE, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE_MISTAKES)],
    ids=lambda options: " ".join(options)[-40:],
)
def test_a_mistake_ends_with_exit_2_at_once(options: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "FIFO")
    more = [] if "--levels" in options else ["-t", "20s"]
    run_dir = [] if "--run-dir" in options else ["--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "turnbench", "run", *options, *more, *run_dir],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=without_key(),
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert "1234567890" not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", said)
    assert {path.name for path in tmp_path.iterdir()} == {"FIFO"}


@pytest.mark.slow
def test_two_runs_with_processes_at_once_do_not_meet(server: Any, locust: Any) -> None:
    options = ("--headless", "-H", server().url, "--scenario", "choose", "--levels", "2", "--hold", "2s",
               "--warmup", "0", "--no-analysis", "--processes", "2")  # fmt: skip
    loads = [locust(*options, own_port=False) for _ in range(2)]
    assert [load.end() for load in loads] == [0, 0], loads[0].said + loads[1].said
    for load in loads:
        assert {turn.run for turn in load.run().turns()} == {load.where.name}
    salts = {load.run().manifest.salt for load in loads}
    assert len(salts) == 2, "neither finds the other's prompts in the server's cache"


@pytest.mark.slow
def test_a_named_port_that_is_taken_is_exit_2(server: Any, locust: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        load = locust("--headless", "-H", server().url, "--scenario", "choose", "-t", "9s",
                      "--processes", "2", "--master-bind-port", port, "--master-port", port,
                      own_port=False)  # fmt: skip
        assert load.end(40) == 2, load.said
    assert "Traceback" not in load.said
    assert port in load.said


IN_AN_IMPORT = {"turnbench": "gevent", "locust": "msgspec"}
"""A compiled module that each command maps right after its first line of ours, and long before its last."""


@pytest.mark.parametrize(
    ("command", "wait_s"), [("turnbench", 0), ("turnbench", 0.5), ("locust", 0), ("locust", 0.5)]
)
def test_ctrl_c_during_imports_is_quiet(command: str, wait_s: float, tmp_path: Path, tools: Any) -> None:
    how = ["run"] if command == "turnbench" else ["-f", str(tools.root / "loadgen"), "--headless"]
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # so that nothing ends by itself
        subprocess.Popen(
            [sys.executable, "-m", command, *how, "-t", "9s",
             "-H", f"http://127.0.0.1:{silent.getsockname()[1]}"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=without_key(),
        ) as process,
    ):  # fmt: skip
        maps = Path(f"/proc/{process.pid}/maps")
        tools.wait_until(lambda: IN_AN_IMPORT[command] in maps.read_text(), "its first imports")
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_hang_up_drains_and_exits_143(server: Any, headless: Any, tools: Any) -> None:
    at = server("--ttft", "300ms", "--itl", "20ms", "--tokens", "50")
    load = headless(at, "--levels", "3", "--hold", "300s", "--warmup", "200ms", "--no-analysis")
    load.wait_for_turns(3)
    load.process.send_signal(signal.SIGHUP)
    assert load.end() == 143, load.said
    run = load.run()
    assert run.manifest.status == "interrupted"
    assert {turn.outcome for turn in run.turns()} == {"ok"}, "open turns were not drained"


_STALLED = """
import locust, gevent, subprocess, sys
from types import SimpleNamespace as Some
real = subprocess.Popen
started = []
class Stalled(real):
    def __init__(self, *a, **k):
        gevent.sleep(3)
        started.append(1)
        super().__init__(*a, **k)
subprocess.Popen = Stalled
import msgspec
from loadgen._messages import Job, StartRun, Ping
from loadgen.control._worker import Worker
from loadgen.options._settings import Settings
heard = []
runner = Some(register_message=lambda *_: None, send_message=lambda kind, data: heard.append(data["op"]))
worker = Worker(Some(runner=runner))
job = Job(run="r", worker=0, workers=1, settings=Settings(host="http://127.0.0.1:9"), salt="ab", model="m",
          usage_in_events=False, scenario=open(sys.argv[1]).read())
message = Some(data=msgspec.to_builtins(StartRun(job)))
person = gevent.spawn(worker.converse)
for _ in range(3):
    worker._on_message(None, message)
    gevent.sleep(0.5)
with gevent.Timeout(30):
    while "ready" not in heard:
        gevent.sleep(0.1)
print("engines", len(started), person.successful(), person.exception)
worker.close()
"""


@pytest.mark.slow
def test_people_wait_for_an_engine_that_takes_seconds_to_start(tools: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STALLED, str(tools.root / "scenarios/tasks/choose.yaml")],
        cwd=tools.root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "engines 1 False None" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_too_few_descriptors_for_a_level_are_said_before_the_first_turn(server: Any, headless: Any) -> None:
    load = headless(server(), "--levels", "300", "--hold", "3s", rlimit_files=(200, 200))
    assert load.end() == 3, load.said
    assert "Traceback" not in load.said
    assert load.findings() == ["worker_refused"]
    assert list(load.run().turns()) == []


@pytest.mark.slow
def test_descriptors_that_run_out_in_open_loop_are_the_client_s_fault(server: Any, headless: Any) -> None:
    at = server("--ttft", "20s", "--itl", "5ms", "--tokens", "5")
    started = headless(at, "--arrival-rate", "150", "-t", "5s", "--warmup", "0", "--drain", "1s",
                       rlimit_files=(200, 200))  # fmt: skip
    assert started.end() == 3, started.said
    assert "Traceback" not in started.said
    run = started.run()
    assert "client_files" in {turn.outcome for turn in run.turns()}
    assert len(list(run.health())) >= 4, "sampling did not survive"
    assert (started.where / "summary.json").exists()


def without_key() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}


@pytest.mark.slow
def test_what_nobody_typed_is_said_and_a_run_without_an_answer_is_exit_3_unanalysed_too(
    own_server: Any, locust: Any, tmp_path: Path
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("format: turnbench-faults/1\nfaults: [{fault: status, status: 500, rate: 1}]\n")
    (tmp_path / "locust.conf").write_text("run-time = 1s\n")
    at = own_server("--faults", str(faults))
    load = locust(
        "--headless", "-H", at.url, "--scenario", "choose", "--warmup", "0", "--no-analysis", "-r", "10",
        env={"LOCUST_USERS": "2"},
    )  # fmt: skip
    assert load.end() == 3, load.said
    assert "LOCUST_USERS in the environment, run-time in locust.conf" in load.said
    assert "no turn finished" in load.said
    manifest = load.run().manifest
    assert load.findings() == ["untyped_options", "no_turns"]
    assert (manifest.settings["users"], manifest.settings["run_time_s"], manifest.exit_code) == (2, 1, 3)


LOCUSTS_OWN = {
    "CSV and tables": (
        ["--csv", "own/out", "--csv-full-history", "--print-stats"],
        r"Response time percentiles",
    ),
    "JSON and a page": (["--json", "--html", "own/out.html"], r"^\[\]?$"),
}
"""Files and tables of Locust's own, and what stands in those on the screen once."""


@pytest.mark.slow
@pytest.mark.parametrize("what", LOCUSTS_OWN)
def test_locusts_own_files_and_tables_come_from_the_master_alone(
    server: Any, locust: Any, tmp_path: Path, what: str
) -> None:
    options, once = LOCUSTS_OWN[what]
    load = locust("--headless", "-H", server().url, "--scenario", "choose", "--levels", "2", "--hold", "2s",
                  "--warmup", "0", "--no-analysis", "--processes", "2", *options)  # fmt: skip
    assert load.end() == 0, load.said
    assert "Traceback" not in load.said
    assert len(re.findall(once, load.said, re.MULTILINE)) == 1
    made = {path.name for path in (tmp_path / "own").iterdir()}
    suffixes = ("stats", "stats_history", "failures", "exceptions")
    assert made == ({"out.html"} if "--html" in options else {f"out_{each}.csv" for each in suffixes})
    assert not list(tmp_path.glob("None*"))
