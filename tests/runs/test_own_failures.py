"""What breaks inside Locust's process ends the run with the reason; nothing waits for ever.

Each script runs in a process of its own: Locust patches the standard library of whoever imports it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

_LINK = """
import locust, gevent
from loadgen._messages import Ping
from loadgen.control._worker import EngineLink
def broken(message):
    raise KeyError("no such thing")
reported = []
link = EngineLink(broken, reported.append)
link.send(Ping(0))
with gevent.Timeout(20):
    while not reported:
        gevent.sleep(0.05)
    link.wait()
print(reported)
"""

_CONTROLLER = """
import locust, gevent, json, sys
from pathlib import Path
import msgspec
from turnbench.formats import RunManifest
from types import SimpleNamespace as Some
from loadgen.control._controller import RunController
from loadgen.control._state import RunState, WorkerState
from loadgen.control._run_files import RunWriter
runner = Some(register_message=lambda kind, listener: None)
controller = RunController(Some(runner=runner))
folder = Path(sys.argv[1]); folder.mkdir()
prepared = Some(settings=Some(abort_errors=1.0))
run = RunState(prepared, RunWriter(folder, RunManifest(), ""), {"local": WorkerState(0, "local")})
controller.run = run
def take(**data):
    controller._on_message(None, Some(node_id="local", data={"run": folder.name} | data))
def broken(worker, line):
    raise ZeroDivisionError("in a judge")
run.on_record = broken
take(op="batch", lines=[("turns", b"{}")], answered=0, failed=0, unanswered=0)
take(op="done", batches=1, records=1)
with gevent.Timeout(20):
    controller.wait_for(run, "done", 15)
print(json.dumps(msgspec.to_builtins(run.manifest.findings)), run.ending, run.stop.is_set())
"""

_HEARTBEAT = """
import locust, gevent
from types import SimpleNamespace as Some
from loadgen.control import _controller
from locust.runners import MasterRunner
beats = []
class Broken(MasterRunner):
    def __init__(self): pass
    def register_message(self, kind, listener): pass
    def send_message(self, *what):
        beats.append(what)
        raise OSError("no buffer space")
_controller._HEARTBEAT_S = 0.01
controller = _controller.RunController(Some(runner=Broken()))
reported = []
controller.run = Some(fault=reported.append)
with gevent.Timeout(20):
    while len(reported) < 2:
        gevent.sleep(0.01)
print(reported[0])
"""

_ERRORS = """
import locust
from types import SimpleNamespace as Some
from loadgen._messages import TurnEnded
from loadgen.control import _worker
_worker.EngineLink = lambda *_: None
rows = []
events = Some(request=Some(fire=lambda exception, **_: rows.append(str(exception))))
worker = _worker.Worker(Some(runner=Some(register_message=lambda *_: None), events=events))
for number in range(5_000):
    error = f"request {number} failed"
    ended = dict(line=b"", task="t", outcome="http_5xx", done=True, error=error, chars=0, ttg_ms=None)
    worker._feed_statistics(TurnEnded(**ended))
print(len(rows), len(set(rows)), rows[0], rows[-1], sep=", ")
"""

_FLUSHES = """
import locust, gevent
from types import SimpleNamespace as Some
from gevent.event import Event
from loadgen.control._controller import RunController
flushes, ended = [], Event()
controller = RunController(Some(runner=Some(register_message=lambda *_: None)))
gevent.spawn(controller.watch_workers, Some(flush=lambda: flushes.append(1), locust_stopped=True), ended)
gevent.sleep(2.5)
ended.set()
print(len(flushes))
"""

_LISTENER = """
import sys
import locust.main
from loadgen.adapter._adapter import LocustAdapter
from loadgen.control._controller import RunController
of, name, *arguments = sys.argv[1:]
def broken(self, *_, **__):
    raise KeyError("no such thing")
setattr({"adapter": LocustAdapter, "controller": RunController}[of], name, broken)
sys.argv = ["locust", "-f", "loadgen", *arguments]
locust.main.main()
"""


def ran(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def said(script: str, *arguments: str) -> str:
    done = ran(script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_engine_message_that_is_not_understood_is_reported_and_ends_the_engine() -> None:
    assert "not understood: KeyError: 'no such thing'" in said(_LINK)


def test_what_breaks_while_records_come_in_makes_the_run_invalid_and_it_still_ends(tmp_path: Path) -> None:
    output = said(_CONTROLLER, str(tmp_path / "run"))
    assert '"check": "turnbench_failed", "what": "ZeroDivisionError: in a judge"' in output
    assert '"level": "invalid"' in output
    assert "failed True" in output


@pytest.mark.slow
def test_a_heartbeat_that_fails_is_reported_and_tried_again() -> None:
    assert "OSError: no buffer space" in said(_HEARTBEAT)


@pytest.mark.slow
def test_errors_that_are_all_different_are_few_rows_of_locusts_table() -> None:
    assert said(_ERRORS) == "5000, 201, http_5xx: request 0 failed, http_5xx\n"


@pytest.mark.slow
def test_records_go_to_the_disk_every_second() -> None:
    assert said(_FLUSHES) == "2\n"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(("controller", "open_run"), id="while it opens"),
        pytest.param(("controller", "__init__"), id="before", marks=pytest.mark.slow),
    ],
)
def test_what_breaks_before_a_run_ends_locust_with_a_line(broken: Any, server: Any, tmp_path: Path) -> None:
    where = ("--run-dir", str(tmp_path / "run"))
    done = ran(_LISTENER, *broken, "--headless", "-H", server().url, "--scenario", "choose", "--once", *where)
    assert done.returncode == 3, done.stderr
    assert "turnbench itself failed: KeyError: 'no such thing'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_breaks_before_a_run_is_shown_where_asked_for(server: Any, tmp_path: Path) -> None:
    where = ("--run-dir", str(tmp_path / "run"), "--loglevel", "DEBUG")
    broken = ("controller", "open_run")
    done = ran(_LISTENER, *broken, "--headless", "-H", server().url, "--scenario", "choose", "--once", *where)
    assert "line 8, in broken" in done.stderr
