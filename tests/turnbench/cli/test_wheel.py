"""A wheel in an environment of its own does all that a checkout does, from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HOSTILE = ("analysis", "loadgen", "scenarios", "serve")
PLAN = """\
format: turnbench-sweep-plan/1
name: tiny
models: [yi-6b]
run: {scenario: choose, levels: "2", hold: 1s, warmup: "0", drain: 2s, max-tokens: "8"}
"""
SHORT = "--scenario choose --levels 2 --hold 2s --warmup 0 --drain 2s --max-tokens 8"

pytestmark = pytest.mark.timeout(300)


@dataclass
class Installed:
    """turnbench out of its wheel, and a folder to work in that has packages of our rooms' names."""

    environment: Path
    home: Path
    work: Path

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    @property
    def variables(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XDG_", "TURNBENCH"))}
        return kept | {"HOME": str(self.home), "COLUMNS": "120"}

    def command(self, *arguments: str) -> list[str]:
        return [str(self.environment / "bin" / "turnbench"), *arguments]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        said = subprocess.run(
            self.command(*arguments),
            cwd=self.work, env=self.variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.returncode in codes, said.stdout + said.stderr
        return said.stdout + said.stderr

    def files(self) -> set[Path]:
        """What lies among the installed packages, but for compiled code."""
        return {path for path in self.packages.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    where = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(where), str(ROOT)]
    subprocess.run(build, check=True, cwd=where)
    (wheel,) = where.glob("*.whl")
    environment = where / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    target = ["--python", str(environment / "bin" / "python")]
    subprocess.run([*pip, *target, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    found = Installed(environment, where / "home", where / "work")
    # What it needs comes from this environment, but not its link to the checkout: a path in a .pth file is
    # added, and the .pth files in that path are not read.
    needed = Path(pytest.__file__).parents[1]
    (found.packages / "needed.pth").write_text(f"{needed}\n")
    found.home.mkdir()
    found.work.mkdir()
    for name in HOSTILE:
        (found.work / name).mkdir()
        (found.work / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    (found.work / "plan.yaml").write_text(PLAN)
    return found


@pytest.fixture(scope="module")
def url(installed: Installed) -> Iterator[str]:
    """An emulator that the installed command serves."""
    command = installed.command("serve", "up", "yi-6b", "--backend", "emulator", "--port", "0")
    with subprocess.Popen(
        command, cwd=installed.work, env=installed.variables, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("ready: ").strip()
        process.terminate()


@pytest.mark.slow
def test_its_code_is_the_wheels(installed: Installed) -> None:
    ask = "import turnbench, analysis; print(turnbench.__file__, analysis.__file__)"
    python = str(installed.environment / "bin" / "python")
    said = subprocess.run(
        [python, "-P", "-c", ask], cwd=installed.work, env=installed.variables, capture_output=True, text=True
    )
    assert [Path(file).is_relative_to(installed.packages) for file in said.stdout.split()] == [True, True]


@pytest.mark.slow
def test_what_ships_with_it_is_inside(installed: Installed) -> None:
    assert "paper" in installed.run("scenarios", "list")
    assert "yi-6b" in installed.run("serve", "list")
    assert "no-such-model" in installed.run("sweep", "demo", "--model", "no-such-model", codes=(2,))
    data = installed.packages / "turnbench" / "data"
    assert (data / "constraints-vllm.txt").read_bytes() == (ROOT / "constraints-vllm.txt").read_bytes()
    for name in ("grafana/turnbench.json", "worker.txt"):
        assert (data / name).read_bytes() == (ROOT / "deploy" / name).read_bytes()


@pytest.mark.slow
def test_doctor(installed: Installed) -> None:
    said = installed.run("doctor")
    assert f"logs in {installed.home}" in said
    assert "kernel clock" in said


@pytest.mark.slow
def test_serve_run_report_and_compare(installed: Installed, url: str) -> None:
    before = installed.files()
    assert url in installed.run("serve", "status")
    said = installed.run("run", "-H", url, *SHORT.split(), "--run-dir", "first")
    assert "(EMULATED)" in said
    assert (installed.work / "first" / "summary.json").exists()
    installed.run("run", "-H", url, *SHORT.split(), "--run-dir", "second", "--processes", "2")
    assert "report.html" in installed.run("report", "first")
    assert (installed.work / "first" / "report.html").stat().st_size > 100_000
    installed.run("compare", "second", "--to", "first", codes=(0, 1, 4))
    assert (installed.work / "second" / "compare.json").exists()
    assert installed.files() == before, "something was written among the packages"
    assert list((installed.home / ".local" / "state" / "turnbench").iterdir())


@pytest.mark.slow
def test_a_sweep(installed: Installed) -> None:
    assert "Report (EMULATED): " in installed.run("sweep", "plan.yaml")
    (found,) = installed.work.glob("runs/*-tiny")
    assert (found / "report.html").exists()
