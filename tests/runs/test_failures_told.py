"""What breaks inside Locust's process ends the run with the reason; nothing waits for ever.

Each script runs in a process of its own: Locust patches the standard library of whoever imports it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BRIDGE = """
import locust, gevent
from loadgen._messages import Ping
from loadgen.control._bridge import Bridge
def broken(message):
    raise KeyError("no such thing")
told = []
bridge = Bridge(broken, told.append)
bridge.send(Ping(0))
with gevent.Timeout(20):
    while not told:
        gevent.sleep(0.05)
    bridge._process.wait()
print(told)
"""

_CONDUCTOR = """
import locust, gevent, json, sys
from pathlib import Path
from types import SimpleNamespace as Some
from loadgen.control._conductor import Conductor
from loadgen.control._state import Run, WorkerState
from loadgen.control._writer import RunWriter
runner = Some(register_message=lambda kind, listener: None)
conductor = Conductor(Some(runner=runner))
folder = Path(sys.argv[1]); folder.mkdir()
prepared = Some(settings=Some(abort_errors=1.0))
run = Run(prepared, RunWriter(folder, {"findings": []}, ""), {"local": WorkerState(0, "local")})
conductor.run = run
def hear(**data):
    conductor._on_message(None, Some(node_id="local", data={"run": folder.name} | data))
def broken(worker, line):
    raise ZeroDivisionError("in a judge")
run.lookout = broken
hear(op="batch", lines=[("turns", b"{}")], failed=0)
hear(op="done", batches=1, records=1)
with gevent.Timeout(20):
    conductor.wait_for(run, "done", 15)
print(json.dumps(run.manifest["findings"]), run.ending, run.stop.is_set())
"""

_BEAT = """
import locust, gevent
from types import SimpleNamespace as Some
from loadgen.control import _conductor
from locust.runners import MasterRunner
beats = []
class Broken(MasterRunner):
    def __init__(self): pass
    def register_message(self, kind, listener): pass
    def send_message(self, *what):
        beats.append(what)
        raise OSError("no buffer space")
_conductor._BEAT_S = 0.01
conductor = _conductor.Conductor(Some(runner=Broken()))
told = []
conductor.run = Some(fault=told.append)
with gevent.Timeout(20):
    while len(told) < 2:
        gevent.sleep(0.01)
print(told[0])
"""


def said(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_engine_message_that_is_not_understood_is_told_and_ends_the_engine() -> None:
    assert "not understood: KeyError: 'no such thing'" in said(_BRIDGE)


def test_what_breaks_while_records_come_in_makes_the_run_invalid_and_it_still_ends(tmp_path: Path) -> None:
    told = said(_CONDUCTOR, str(tmp_path / "run"))
    assert '"level": "invalid", "check": "turnbench_failed", "what": "ZeroDivisionError: in a judge"' in told
    assert "failed True" in told


def test_a_heartbeat_that_fails_is_told_and_tried_again() -> None:
    assert "OSError: no buffer space" in said(_BEAT)
