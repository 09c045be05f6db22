"""The commands of the docs, run: as they stand where that is quick, else in short against an emulator.

What needs a GPU, other machines or minutes is parsed alone (test_pages.py), and stands in `NOT_HERE` with
what runs it instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import called
from tests.docs.pages import ROOT, arguments, blocks, commands, shown
from tests.emulators import emulator
from tests.verdicts import exit_code_of
from turnbench.cli.main import main
from turnbench.places import STATE

TUTORIAL = ROOT / "docs" / "tutorial.md"
QUICK = {
    "turnbench doctor": "kernel clock",
    "turnbench scenarios check chats.jsonl": "good",
    "turnbench scenarios check mine.yaml": "good",
    "turnbench scenarios list": "chat",
    "turnbench scenarios sample mine.yaml -n 3": "to-german",
    "turnbench scenarios show chat": "format: turnbench-scenario/1",
    "turnbench serve fit": "error",
    "turnbench serve list": "yi-6b",
    "turnbench serve predict batches.csv": "predicted_seconds",
    "turnbench serve status": "",
}
"""Run as they stand, in this process: what they print among other things."""
RUNS = {
    "turnbench run -H http://127.0.0.1:8000 --scenario chat --levels 1,4,16 --hold 60s",
    "turnbench run -H http://127.0.0.1:8000 --scenario chats.jsonl --once -u 8",
    "turnbench run -H http://127.0.0.1:8000 --scenario choose --levels 4 --hold 30s --run-dir runs/new-1",
    "turnbench run -H http://127.0.0.1:8000 --scenario choose --levels 4 --hold 30s --run-dir runs/new-2",
    "turnbench run -H http://127.0.0.1:8000 --scenario choose --levels 4 --hold 30s --run-dir runs/new-3",
    "turnbench run -H URL --levels 1,4,16 --metrics-port 9650",
    "turnbench run -H URL --levels 16 --hold 10m --until ttg_p50=5%",
    "turnbench run -H https://models.example.com --model my-model --scenario chat --levels 1,4 --hold 60s",
}
"""Run against an emulator, each level for a second."""
READERS = {
    "turnbench report runs/LATEST": 0,
    "turnbench report RUN1 RUN2 --out DIR": 0,
    "turnbench report RUN --markdown table.md": 0,
    "turnbench report RUN --xlsx tables.xlsx": 0,
    "turnbench report RUN --plots plots": 0,
    "turnbench compare RUN --to BASELINE": 4,
    "turnbench compare runs/TODAY --to runs/BASELINE": 4,
    "turnbench compare runs/new-1 runs/new-2 runs/new-3 --to runs/base-1 runs/base-2 runs/base-3 "
    "--markdown compare.md": 0,
    "turnbench plan RUN --within 5% --detect 5%": 0,
    "turnbench plan runs/LATEST --within 5% --detect 5%": 0,
    "turnbench export runs/LATEST --to vllm": 0,
}
"""Run on what those left, with their exit codes; one run a side is not judged."""
NOT_HERE = {
    r"turnbench serve up .*": "a real vLLM: tests/vllm, tests/serve",
    r"turnbench sweep mine.yaml --model yi-6b --backend vllm .*": "a real vLLM: tests/vllm",
    r"turnbench serve (calibrate|check) runs/LATEST": "runs of a real server: tests/serve/test_calibrate.py",
    r"turnbench certify.*": "minutes: tests/turnbench/cli/test_certify.py has one level",
    r"turnbench run .*--find-capacity .*": "minutes: tests/runs/test_find_capacity.py",
    r"turnbench run .*--otlp .*": "a collector: tests/tools",
    r"turnbench sweep (demo|paper.*|mine.yaml|--resume .*)": "tests/runs/test_sweep_resume.py",
    r"turnbench report runs/SWEEP": "tests/analysis",
    r"locust -f loadgen/ .*": "other machines: tests/net",
    r"make .*|export .*|pipx .*": "the set-up of a machine, and targets that are tests themselves",
}


def test_every_command_is_run_here_or_says_where() -> None:
    lines = {each.line for each in shown()} - set(commands(TUTORIAL))
    here = {*QUICK, *RUNS, *READERS}
    assert here <= lines | {"turnbench doctor"}
    assert [line for line in lines - here if not any(re.fullmatch(one, line) for one in NOT_HERE)] == []
    named = re.findall(r"tests/[\w/.]+\w", " ".join(NOT_HERE.values()))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name."""
    at = tmp_path_factory.mktemp("typed")
    (at / "mine.yaml").write_text(blocks(ROOT / "docs" / "scenarios.md", "yaml")[0])
    message = {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    (at / "chats.jsonl").write_text((json.dumps(message) + "\n") * 8)
    (at / "batches.csv").write_text("gpu,model,batch,input_tokens,output_tokens\na100-40gb,yi-6b,8,100,64\n")
    return at


@pytest.mark.parametrize("line", QUICK)
def test_a_quick_command_runs_as_it_stands(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    said = called(main, *(arguments(line) or []))
    assert (said.returncode, QUICK[line] in said.stdout) == (0, True), said.stdout + said.stderr


def environment(at: Path) -> dict[str, str]:
    """`serve stop` as it is typed stops every server that is described in its state folder."""
    return os.environ | {"OPENAI_API_KEY": "secret", STATE: str(at / "state")}


def typed(line: str, at: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "turnbench", *(arguments(line) or [])]
    return subprocess.run(command, cwd=at, env=environment(at), capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_runs_of_the_guides_play_against_an_emulator_and_their_readers_read_them(folder: Path) -> None:
    runs = folder / "runs"
    with emulator("--schedule", "roofline", "--model", "yi-6b") as url:
        for number, line in enumerate(sorted(RUNS)):
            short = re.sub(r"http://127\.0\.0\.1:8000|https://models\.example\.com|URL", url, line)
            short = short.replace("my-model", "yi-6b").replace("1,4,16", "1,4")
            # Longer than an answer, and nobody thinks meanwhile: so that each window has turns.
            short = re.sub(r"--hold \S+", "--hold 3s", short) + " --warmup 300ms --drain 10s"
            if "--levels" in short and "--hold" not in short:
                short += " --hold 3s"
            if "--think-time" not in short:
                short += " --think-time none"
            if "--run-dir" not in short:
                short += f" --run-dir runs/run-{number}"
            said = typed(short, folder)
            made = folder / shlex.split(short)[-1] if "runs/run-" in short else runs / f"new-{line[-1]}"
            assert said.returncode == exit_code_of(made / "summary.json"), (
                f"{short}\n{said.stdout}{said.stderr}"
            )
    for number in (1, 2, 3):
        shutil.copytree(runs / f"new-{number}", runs / f"base-{number}")
    names = {"RUN1": "new-1", "RUN2": "new-2", "RUN": "new-1", "BASELINE": "base-1", "TODAY": "new-1"}
    for name, run in names.items():
        shutil.copytree(runs / run, folder / name)
        shutil.copytree(runs / run, runs / name)
    for line, code in READERS.items():
        said = typed(line, folder)
        assert said.returncode == code, f"{line}\n{said.stdout}{said.stderr}"
    assert (folder / "DIR" / "report.html").is_file()


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_tutorial_works_as_it_is_typed(tmp_path: Path, servers: list[subprocess.Popen[str]]) -> None:
    (tmp_path / "two.yaml").write_text(blocks(TUTORIAL, 'yaml title="two.yaml"')[0])
    codes = {}
    for line in commands(TUTORIAL):
        words = arguments(line)
        if words is None:  # the set-up, which make test has behind it
            assert line in ("make setup", ". .venv/bin/activate", "echo $?")
        elif words[:2] == ["serve", "up"]:
            command = [sys.executable, "-P", "-m", "turnbench", *words]
            server = subprocess.Popen(
                command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
            )
            servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == f"ready: http://127.0.0.1:{words[-1]}\n"
        else:
            began_s = time.monotonic()
            said = typed(line, tmp_path)
            codes[line] = said.returncode
            print(f"{time.monotonic() - began_s:5.1f} s  exit {said.returncode}  {line}")
    assert set(codes.values()) <= {0}
    summary = json.loads((tmp_path / "runs" / "LATEST" / "summary.json").read_text())
    assert summary["cells"][0]["task"] == "explain"
