"""deploy/worker.txt: what a load generator needs, and no library that only the analysis uses."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import called
from tests.worker_install import LEFT_OUT
from turnbench.cli.doctor import check_python
from turnbench.cli.main import main
from turnbench.extras import OF_THE_ANALYSIS

ROOT = Path(__file__).parents[2]


def test_it_is_the_dependencies_without_those_of_the_analysis() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "deploy" / "worker.txt").read_text().splitlines()
    wanted = [each for each in project["dependencies"] if each.split(">")[0] not in LEFT_OUT]
    assert [line for line in lines if not line.startswith("#")] == wanted
    assert len(project["dependencies"]) - len(wanted) == len(LEFT_OUT)


@pytest.fixture
def without_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> object:
        return None if name in OF_THE_ANALYSIS else find_spec(name)

    monkeypatch.setattr("turnbench.extras.find_spec", found)


@pytest.mark.usefixtures("without_analysis")
def test_a_command_that_needs_the_analysis_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in ("analysis", *OF_THE_ANALYSIS)]:
        monkeypatch.delitem(sys.modules, module)
    for name in OF_THE_ANALYSIS:
        monkeypatch.setitem(sys.modules, name, None)
    said = called(main, "report", "runs/LATEST")
    assert said.returncode == 2
    assert said.stderr.startswith("turnbench report: no pandas, plotly")
    assert said.stderr.count("\n") == 1


@pytest.mark.usefixtures("without_analysis")
def test_a_run_that_could_not_be_analysed_is_refused_before_any_request() -> None:
    from loadgen.options._command_line import OptionErrors
    from loadgen.options._prepare import prepare

    with pytest.raises(OptionErrors, match=r"could not be analysed: no pandas.*--no-analysis"):
        prepare({"host": "http://127.0.0.1:9"})


def test_doctor_calls_such_an_install_enough_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in LEFT_OUT:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("turnbench.cli.doctor.version", version)
    assert check_python().verdict == "note"
    assert "enough for a worker" in check_python().remedy
