"""A launched server becomes ready, stops when told, and never outlives its launcher."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from serve.catalogue import load_catalogue
from serve.launch import run as launch_run
from serve.launch.command import LaunchRequest, ServerCommand, find_model
from serve.launch.guard import STOP_NOW, STOP_ORDERLY
from serve.launch.run import describe_failure, log_tail, newest_progress
from serve.launch.servers import describe_server
from tests.processes import alive, below, kill
from turnbench.places import STATE, state_folder

GUARD = Path(launch_run.__file__).with_name("guard.py")
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('up', flush=True)\n"
    "time.sleep(600)\n"
)
OBEDIENT_WITH_CHILD = STUBBORN.replace("signal.SIG_IGN", "lambda *_: sys.exit(0)")


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever else looks at the servers of the common folder tidies up what a killed launcher left."""
    monkeypatch.setenv(STATE, str(tmp_path))


def line_from(process: subprocess.Popen[str], within_s: float = 20) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], within_s)
    assert readable, "no line came in time"
    return process.stdout.readline().rstrip("\n")


def all_gone(processes: list[psutil.Process], within_s: float = 20) -> bool:
    ends_at = time.monotonic() + within_s
    while any(map(alive, processes)) and time.monotonic() < ends_at:
        time.sleep(0.02)
    return not any(map(alive, processes))


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The process, and all processes below it once its first line has come."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        family: list[psutil.Process] = []
        try:
            first = line_from(process)
            process.first_line = first  # type: ignore[attr-defined]
            family = below(process.pid)
            yield process, family
        finally:
            process.kill()
            kill(family)


@contextmanager
def emulator() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    up = (sys.executable, "-m", "serve", "up", "yi-6b", "--backend", "emulator", "--port", "0")
    with started(*up) as both:
        yield both


def healthy(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)


def test_the_emulator_says_where_it_is_ready() -> None:
    with emulator() as (launcher, family):
        word, url = launcher.first_line.split()  # type: ignore[attr-defined]
        assert word == "ready:"
        assert healthy(url)
        assert len(family) == 2


def test_a_folder_with_a_serve_of_its_own_is_none_of_our_business(tmp_path: Path) -> None:
    for name in ("serve", "turnbench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    up = [sys.executable, "-P", "-m", "serve", "up", "yi-6b", "--backend", "emulator", "--port", "0"]
    with subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as it:
        try:
            url = line_from(it).removeprefix("ready: ")
            assert healthy(url)
        finally:
            it.terminate()
            it.communicate(timeout=20)


def test_what_no_published_figure_stands_behind_is_said_at_the_start() -> None:
    up = [sys.executable, "-m", "serve", "up", "yi-6b", "--backend", "emulator", "--port", "0"]
    up += ["--precision", "int8", "--hardware", "l40s-48gb"]
    with subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        line_from(it)
        it.terminate()
        _, said = it.communicate(timeout=20)
    assert "was found for int8" in said
    assert "was found for l40s-48gb" in said


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def test_a_server_describes_itself_for_as_long_as_it_runs() -> None:
    with emulator() as (launcher, family):
        url = launcher.first_line.split()[1]  # type: ignore[attr-defined]
        file = state_folder() / f"{url.rsplit(':', 1)[1]}.json"
        facts = json.loads(file.read_text())
        assert (facts["url"], facts["model"], facts["emulated"]) == (url, "yi-6b", True)
        assert (facts["backend"], facts["precision"], facts["weights"]) == ("emulator", "fp16", "none")
        assert facts["hardware"] == "a100-40gb"
        assert f"{url}  yi-6b  fp16  EMULATED a100-40gb  healthy" in run("status").stdout
        launcher.send_signal(signal.SIGTERM)
        launcher.communicate(timeout=20)
        assert not file.exists()
        assert all_gone(family)


def test_stop_ends_the_server_on_a_port_and_waits_for_it() -> None:
    with emulator() as (launcher, family):
        port = launcher.first_line.rsplit(":", 1)[1]  # type: ignore[attr-defined]
        # The launcher stays our zombie until it is waited for, which is as good as gone.
        assert f"stopped yi-6b at http://127.0.0.1:{port}" in run("stop", "--port", port).stderr
        assert launcher.wait(timeout=20) == 0
        assert all_gone(family)
        assert f"no server runs here on port {port}" in run("stop", "--port", port).stderr


def test_what_a_killed_launcher_left_behind_is_not_believed() -> None:
    with emulator() as (launcher, family):
        port = launcher.first_line.rsplit(":", 1)[1]  # type: ignore[attr-defined]
        launcher.kill()
        launcher.wait()
        assert all_gone(family)
        assert (state_folder() / f"{port}.json").exists()
        assert f":{port} " not in run("status").stdout
        assert not (state_folder() / f"{port}.json").exists()


def test_keys_are_no_part_of_a_description() -> None:
    request = LaunchRequest(find_model("yi-6b", load_catalogue()), "vllm", "127.0.0.1", 8000, "a100-40gb")
    for given in (("--api-key", "s3cret"), ("--api-key=s3cret",)):
        launch = ServerCommand(("python", "-m", "vllm", *given, "--seed", "1"), {})
        facts = describe_server(request, launch, {"PATH": ""})
        assert "s3cret" not in repr(facts)
        assert facts.arguments[-2:] == ["--seed", "1"]


@pytest.mark.parametrize(
    "stop",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_the_server_cleanly(stop: signal.Signals) -> None:
    with emulator() as (launcher, family):
        launcher.send_signal(stop)
        _, told = launcher.communicate(timeout=20)
        assert launcher.returncode == 0
        assert told.endswith("serve: stopped\n")
        assert all_gone(family)


def test_a_killed_launcher_leaves_no_server() -> None:
    with emulator() as (launcher, family):
        launcher.kill()
        assert all_gone(family)


def test_a_killed_guard_leaves_no_server_and_the_launcher_says_so() -> None:
    with emulator() as (launcher, family):
        family[0].kill()
        _, told = launcher.communicate(timeout=20)
        assert launcher.returncode == 1
        assert "the server ended after it was ready" in told
        assert all_gone(family)


def test_a_killed_server_ends_the_launcher_with_its_log() -> None:
    with emulator() as (launcher, family):
        family[1].kill()
        _, told = launcher.communicate(timeout=20)
        assert launcher.returncode == 1
        assert "exit code 137" in told
        assert "  | ready:" in told


def test_bad_options_of_the_server_are_exit_two_with_its_own_words() -> None:
    up = [
        sys.executable,
        "-m",
        "serve",
        "up",
        "yi-6b",
        "--backend",
        "emulator",
        "--port",
        "0",
        "--args=--nonsense",
    ]
    answer = subprocess.run(up, capture_output=True, text=True, check=False, timeout=20)
    assert answer.returncode == 2
    assert "--nonsense" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("order", [STOP_ORDERLY, b""])
def test_a_server_that_ignores_term_is_killed_with_its_children_after_the_grace(order: bytes) -> None:
    with started(sys.executable, str(GUARD), "0.2", "--", sys.executable, "-c", STUBBORN) as (guard, family):
        assert guard.stdin is not None
        guard.stdin.write(order.decode())
        guard.stdin.close()
        assert guard.wait(timeout=20) == 128 + signal.SIGKILL
        assert len(family) == 2
        assert all_gone(family)


def test_an_order_to_stop_now_does_not_wait_for_the_grace() -> None:
    with started(sys.executable, str(GUARD), "600", "--", sys.executable, "-c", STUBBORN) as (guard, family):
        assert guard.stdin is not None
        guard.stdin.write((STOP_ORDERLY + STOP_NOW).decode())
        guard.stdin.flush()
        assert guard.wait(timeout=20) == 128 + signal.SIGKILL
        assert all_gone(family)


def test_children_that_a_server_leaves_behind_are_ended() -> None:
    server = (sys.executable, "-c", OBEDIENT_WITH_CHILD)
    with started(sys.executable, str(GUARD), "600", "--", *server) as (guard, family):
        assert guard.stdin is not None
        guard.stdin.close()
        assert guard.wait(timeout=20) == 0
        assert all_gone(family)


def test_a_command_that_does_not_exist_is_said() -> None:
    guard = [sys.executable, str(GUARD), "1", "--", "/nowhere/python"]
    answer = subprocess.run(guard, capture_output=True, text=True, check=False, timeout=20)
    assert answer.returncode == 127
    assert answer.stderr == "cannot start /nowhere/python: No such file or directory\n"


def test_a_server_that_fails_before_it_is_ready_is_one_and_shows_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    failing = ServerCommand((sys.executable, "-c", "raise ValueError('no such dtype')"), {})
    code = launch_run.run_server(failing, "http://127.0.0.1:9", tmp_path / "logs" / "x.log", said.append)
    assert code == 1
    assert "before it was ready (exit code 1): ValueError: no such dtype" in said[-1]
    assert capsys.readouterr().out == ""


def test_progress_is_the_newest_line_worth_telling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    line = "(Worker pid=7) INFO 11-23 12:00:00 [base.py:1] Loading weights"
    told = tmp_path / "told"
    script = (
        f"import pathlib, time; print({line!r}, flush=True)\n"
        f"for _ in range(2000): pathlib.Path({str(told)!r}).exists() or time.sleep(0.01)"
    )
    monkeypatch.setattr(launch_run, "PROGRESS_EVERY_S", 0.1)
    launch = ServerCommand((sys.executable, "-c", script), {})

    def say(text: str) -> None:
        said.append(text)
        if text.endswith("s  Loading weights"):
            told.touch()

    launch_run.run_server(launch, "http://127.0.0.1:9", tmp_path / "x.log", say)
    assert told.exists(), said


def test_a_second_signal_is_an_order_to_stop_now(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = (
        f"{STUBBORN.replace('time.sleep(600)', '')}\nopen({str(ready)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    main = (
        "import sys; from pathlib import Path\n"
        "from serve.launch import run as launch_run; from serve.launch.command import ServerCommand\n"
        f"launch_run.is_healthy = lambda url: Path({str(ready)!r}).exists()\n"
        f"launch = ServerCommand((sys.executable, '-c', {script!r}), {{}})\n"
        "say = lambda text: print(text, file=sys.stderr, flush=True)\n"
        f"sys.exit(launch_run.run_server(launch, 'http://x:1', Path({str(tmp_path / 'x.log')!r}), say))\n"
    )
    with started(sys.executable, "-c", main) as (launcher, family):
        assert launcher.stderr is not None
        launcher.send_signal(signal.SIGINT)
        while "stopping" not in launcher.stderr.readline():
            pass
        begun = time.monotonic()
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(timeout=launch_run.GRACE_S) == 0
        assert time.monotonic() - begun < launch_run.GRACE_S / 2
        assert all_gone(family)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_server_is_ready_is_the_exit_code(stop: signal.Signals, tmp_path: Path) -> None:
    main = (
        "import sys; from pathlib import Path\n"
        "from serve.launch import run as launch_run; from serve.launch.command import ServerCommand\n"
        "launch_run.is_healthy = lambda url: print('asked', flush=True)\n"
        "launch = ServerCommand((sys.executable, '-c', 'import time; time.sleep(600)'), {})\n"
        f"sys.exit(launch_run.run_server(launch, 'http://x:1', Path({str(tmp_path / 'x.log')!r}), str))\n"
    )
    with started(sys.executable, "-c", main) as (launcher, family):
        launcher.send_signal(stop)
        assert launcher.wait(timeout=20) == 128 + stop
        assert all_gone(family)


def test_the_log_cannot_steer_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"\x1b[2Jred\x07\r\nnext \xff\n")
    assert log_tail(log) == ["[2Jred", "next \ufffd"]


def test_the_cause_is_the_inner_one() -> None:
    lines = [
        "ValueError: No common block size",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert "(exit code 1): ValueError: No common block size" in describe_failure(
        lines, 1, "early", Path("x.log")
    )


def test_before_anything_is_said_the_server_is_starting() -> None:
    assert newest_progress([]) == "starting"
    assert newest_progress(['  File "engine.py", line 7, in load']) == "starting"
