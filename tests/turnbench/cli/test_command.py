"""The command `turnbench`, as a person types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import called
from tests.emulators import emulator
from turnbench.cli.main import main

COMMANDS = [
    "run",
    "sweep",
    "report",
    "compare",
    "plan",
    "serve",
    "scenarios",
    "doctor",
    "schema",
    "completion",
]
HOSTILE = ("analysis", "serve", "scenarios", "loadgen")
SHORT = "--scenario choose --levels 2 --hold 1s --warmup 0 --drain 2s --processes 2 --run-dir one"
SCREEN_LINES, SCREEN_COLUMNS = 24, 80


def turnbench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "turnbench", *arguments]
    wide = os.environ | {"COLUMNS": str(SCREEN_COLUMNS)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=wide, cwd=cwd)


def test_help_names_every_command_with_an_example_and_imports_no_room() -> None:
    said = turnbench("--help")
    assert said.returncode == 0
    assert len(said.stdout.splitlines()) <= SCREEN_LINES
    for name in COMMANDS:
        assert f"\n  {name} " in said.stdout
    assert "example:\n" in said.stdout
    code = (
        "import sys, turnbench.cli.main as m; m.main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    for heavy in ("locust", "pandas", "numpy", "pydantic", "msgspec", "rich", "yaml", "serve", "loadgen"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_a_screen_and_ends_with_an_example(command: str) -> None:
    if command in ("run", "completion"):  # Locust changes the process into which it is imported
        said = turnbench(command, "--help")
    else:
        said = called(main, command, "--help", COLUMNS=str(SCREEN_COLUMNS))
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert len(lines) <= SCREEN_LINES, said.stdout
    assert "example:" in lines[-4:]
    assert lines[-1].startswith(f"  turnbench {command} ")


def test_every_option_of_a_run_is_shown_on_request() -> None:
    said = turnbench("run", "--help-all").stdout
    for option in ("--burstiness", "--keep-text", "--processes", "--master-host"):
        assert option in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("rn", "turnbench: unknown command 'rn'; did you mean run?"),
        ("xyz", "turnbench: unknown command 'xyz'; `turnbench --help` lists them"),
        ("--versoin", "turnbench: unknown option '--versoin'; did you mean --version?"),
        ("run --levls 1", "turnbench run: unknown option --levls; did you mean --levels?"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("run chat", "turnbench run: unexpected argument 'chat'"),
                ("run -u many", "turnbench run: argument -u/--users: invalid int value: 'many'"),
            )
        ),
        ("sweep demo --bakend x", "turnbench sweep: unknown option --bakend; did you mean --backend?"),
        ("serve statis", "turnbench serve: unknown command 'statis'; did you mean status?"),
        ("scenarios shwo chat", "turnbench scenarios: unknown command 'shwo'; did you mean show?"),
        ("compare runs/x --too y", "turnbench compare: unknown option --too; did you mean --to?"),
        ("completion fish", "turnbench completion: argument SHELL: 'fish' is not known; one of bash, zsh"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_what_was_meant_and_exit_2(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if typed.startswith("run "):  # Locust changes the process into which it is imported
        found = turnbench(*typed.split())
        assert (found.returncode, found.stderr, found.stdout) == (2, said + "\n", "")
        return
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    shown = capsys.readouterr()
    assert (ended.value.code, shown.err, shown.out) == (2, said + "\n", "")


@pytest.mark.slow
def test_a_run_from_a_folder_with_packages_of_our_names_uses_ours(tmp_path: Path) -> None:
    for name in HOSTILE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    options = SHORT.split()
    with emulator("--schedule", "fixed", "--tokens", "5") as url:
        said = turnbench("run", "-H", url, *options, cwd=tmp_path)
    assert said.returncode == 0, said.stderr + said.stdout
    assert (tmp_path / "one" / "report.html").exists()
    same = turnbench("report", "one", cwd=tmp_path)
    assert same.returncode == 0, same.stderr
    against = turnbench("compare", "one", "--to", "one", cwd=tmp_path)
    assert "not ours" not in against.stderr + against.stdout
    plain = [sys.executable, "-m", "turnbench", "scenarios", "list"]  # the current folder first on the path
    listed = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr


GUARDED = """
import os, signal, sys
from turnbench.__main__ import main
real = signal.signal
def first(*given):
    signal.signal = real
    before = real(*given)
    os.write(1, b".")
    return before
signal.signal = first
sys.exit(main())
"""
"""The command, which writes a dot as soon as it has taken the signal into its own hands."""


@pytest.mark.parametrize(
    ("command", "own_code"),
    [("--help", 0), ("report none", 2), ("run -H http://127.0.0.1:9", 2), ("serve list", 0)],
)
def test_ctrl_c_at_any_moment_is_quiet(command: str, own_code: int) -> None:
    """Sent as soon as our first line has run, then ever later, until the command has ended before it."""
    for delay_s in (0.0, 0.03, 0.1, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-c", GUARDED, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        if process.returncode == 130:
            assert not [line for line in err.splitlines() if b"INFO" not in line], err
        else:
            assert process.returncode == own_code, (delay_s, err.decode())


def test_completion_knows_commands_and_options() -> None:
    both = "from turnbench.cli.completion import main; main(['bash']); print('#' * 9); main(['zsh'])"
    said = subprocess.run([sys.executable, "-c", both], capture_output=True, text=True, check=True).stdout
    bash, _, zsh = said.partition("#" * 9 + "\n")
    for word in ("sweep", "--arrival-rate", "--backend", "calibrate", "--markdown"):
        assert word in bash
    check = subprocess.run(["bash", "-n"], input=bash, text=True, capture_output=True, check=False)
    assert check.returncode == 0, check.stderr
    assert zsh.startswith("#compdef turnbench")
