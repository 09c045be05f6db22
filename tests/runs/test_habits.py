"""What people and their machines do: two runs at once, a terminal that closes, an engine that starts late."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

DEAD = "http://127.0.0.1:9"
LONG_NAME = "x" * 300


def test_two_runs_with_processes_at_once_do_not_meet(server: Any, locust: Any) -> None:
    options = ("--headless", "-H", server().url, "--scenario", "choose", "--levels", "2", "--hold", "2s",
               "--warmup", "0", "--no-analysis", "--processes", "2")  # fmt: skip
    loads = [locust(*options, own_port=False) for _ in range(2)]
    assert [load.end() for load in loads] == [0, 0], loads[0].said + loads[1].said
    for load in loads:
        assert {turn.run for turn in load.run().turns()} == {load.where.name}


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


def test_people_wait_for_an_engine_that_takes_seconds_to_start(tools: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STALLED, str(tools.root / "scenarios/tasks/choose.yaml")],
        cwd=tools.root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "engines 1 False None" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
