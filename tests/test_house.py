"""The house stays a house: imports run one way, and Locust can load loadgen/ without harm."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.worker_install import LEFT_OUT

ROOT = Path(__file__).parents[1]
FLOOR = "turnbench"
ROOMS = ("scenarios", "serve", "loadgen", "analysis")
ROOF_FOLDERS = ("turnbench/cli/", "turnbench/sweep/")
MAY_IMPORT = {
    "turnbench": set(),
    "scenarios": {"turnbench"},
    "serve": {"turnbench"},
    "loadgen": {"turnbench", "scenarios"},
    "analysis": {"turnbench"},
}
ROOFS = {"loadgen/locustfile.py", "loadgen/__main__.py"}
MAY_START = {
    "turnbench": set(),
    "scenarios": set(),
    "serve": {"serve.emulator"},
    "loadgen": {"loadgen.engine", "loadgen.options._probe", "analysis", "analysis.exports"},
    "analysis": set(),
    "turnbench/cli": {"serve", "serve.emulator", "scenarios", "loadgen", "analysis", "turnbench"},
    "turnbench/sweep": {"serve", "serve.pace", "turnbench", "analysis"},
}
"""The modules of ours that each part starts as processes, with `python -m`."""
ELSEWHERE = {"vllm", "torch", "transformers", "tokenizers", "gguf"}
"""Imported only under another Python, which has them: vLLM's, llama.cpp's."""


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of what a module imports, `from a import b` as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def distributions_of() -> Mapping[str, set[str]]:
    """The installed distributions that each top-level name of an import comes from."""
    found = defaultdict(set)
    for each in distributions():
        name = each.name
        for first in {line.partition("/")[0] for line in (each.read_text("RECORD") or "").splitlines()}:
            found[re.split("[,.]", first)[0]].add(name)
    return found


def started(path: Path) -> set[str]:
    """The modules that a file starts: what follows "-m" in its lists, tuples and calls."""
    tree = parsed(path)
    texts = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        words = node.elts if isinstance(node, ast.List | ast.Tuple) else getattr(node, "args", [])
        if not isinstance(words, list):
            continue
        for flag, module in pairwise(words):
            if isinstance(flag, ast.Constant) and flag.value == "-m":
                given = getattr(module, "value", None)
                name = texts.get(module.id) if isinstance(module, ast.Name) else given
                assert isinstance(name, str), f"{path}:{flag.lineno}: name the module where it is started"
                found.add(name)
    return found


def part_of(path: Path) -> str:
    """The room, or the roof of the floor, that a file belongs to."""
    where = path.relative_to(ROOT).as_posix()
    return next((roof.rstrip("/") for roof in ROOF_FOLDERS if where.startswith(roof)), where.split("/")[0])


def is_roof(path: Path) -> bool:
    where = str(path.relative_to(ROOT))
    return where in ROOFS or path.name == "__main__.py" or where.startswith(ROOF_FOLDERS)


@pytest.mark.parametrize("room", [FLOOR, *ROOMS])
def test_imports_between_rooms_run_one_way(room: str) -> None:
    for path in modules(room):
        if is_roof(path):
            continue
        rooms = {name.partition(".")[0] for name in imported(path)} & {FLOOR, *ROOMS} - {room}
        assert rooms <= MAY_IMPORT[room], f"{path} imports {rooms}"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_the_folders_of_a_room_run_one_way(room: str) -> None:
    """A folder, or a file beside the folders, counts as one: none needs what needs it."""
    needs: dict[str, set[str]] = {}
    for path in modules(room):
        own = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        others = {name.split(".")[1] for name in imported(path) if name.startswith(f"{room}.")}
        needs.setdefault(own, set()).update(others - {own})
    list(TopologicalSorter(needs).static_order())  # CycleError names the circle


def test_rooms_start_only_what_they_may() -> None:
    """A street through a command line is a street."""
    ways: dict[str, set[str]] = {part: set() for part in MAY_START}
    for path in (path for room in (FLOOR, *ROOMS) for path in modules(room)):
        ways[part_of(path)] |= {name for name in started(path) if name.split(".")[0] in (FLOOR, *ROOMS)}
    for part, found in ways.items():
        assert found <= MAY_START[part], f"{part} starts {found - MAY_START[part]}"
    assert {"analysis", "loadgen.engine"} <= ways["loadgen"], "the test sees what is started"
    assert {"serve", "turnbench"} <= ways["turnbench/sweep"]


def test_each_name_of_a_class_stands_once() -> None:
    names: dict[str, list[str]] = {}
    for path in (path for room in (FLOOR, *ROOMS, "benchmarks") for path in modules(room)):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                names.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in names.items() if len(paths) > 1} == {}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = {plain_name(each) for each in project["dependencies"]}
    needed = set(required)
    for name in ("xlsx", "plots", "otlp", "mlflow", "wandb"):
        needed |= {plain_name(each) for each in extras[name]}
    # By the name of their import where they are not here; of OpenTelemetry another library may bring the API.
    needed |= {"opentelemetry", "opentelemetry-api", "mlflow", "wandb"}
    known = needed | {plain_name(each) for name in ("dev", "notebook") for each in extras[name]}
    distributions = distributions_of()
    here = {FLOOR, *ROOMS, "tests", "benchmarks", "conftest", "__future__"} | sys.stdlib_module_names
    may_import = dict.fromkeys((FLOOR, *ROOMS), needed) | dict.fromkeys(("benchmarks", "tests"), known)
    used = set()
    for room, allowed in may_import.items():
        for path in modules(room):
            theirs = {name.partition(".")[0] for name in imported(path)} - here
            beside = {file.stem for file in path.parent.glob("*.py")}
            for name in theirs - beside - ELSEWHERE:
                owners = {plain_name(each) for each in distributions.get(name, [name])}
                assert owners & allowed, f"{path} imports {name}: name it in pyproject.toml"
                used |= owners if allowed is needed else set()
    for_their_files = {"plotly"}  # its JavaScript is in every report
    assert required - used == for_their_files


def test_what_is_installed_with_the_constraints_is_pinned_extras_too() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(each for name in project["optional-dependencies"].values() for each in name),
    ]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert {plain_name(each) for each in asked} - {plain_name(each) for each in pins} == set()
    assert [each for each in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", each)] == []


def test_every_pinned_package_is_for_the_oldest_python_too() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pins = {plain_name(each) for each in (ROOT / "constraints.txt").read_text().splitlines()}
    asked = {
        plain_name(each.name): each.metadata["Requires-Python"]
        for each in distributions()
        if plain_name(each.name) in pins and "Requires-Python" in each.metadata
    }
    assert len(asked) > 100
    assert {name: pythons for name, pythons in asked.items() if oldest not in SpecifierSet(pythons)} == {}


def plain_name(requirement: str) -> str:
    """The distribution that a requirement names, as package indexes normalise it."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_nothing_imports_a_roof() -> None:
    folders = tuple(folder.rstrip("/").replace("/", ".") for folder in ROOF_FOLDERS)
    names = {roof.removesuffix(".py").replace("/", ".") for roof in ROOFS} - {"loadgen.__main__"}
    for room in (FLOOR, *ROOMS):
        for path in modules(room):
            if not is_roof(path):
                found = imported(path)
                assert not found & names, path
                assert not [name for name in found if name.startswith(folders)], path


HEAVY = {"locust", "gevent", "aiohttp", "asyncio", "pandas", "scipy"}


@pytest.mark.parametrize(
    ("imports", "never"),
    [
        ("turnbench.formats, turnbench.run_directory, turnbench.clock, turnbench.limits", HEAVY),
        # aiohttp can't live under gevent, so neither side of a worker may reach the other.
        (
            "turnbench.cli.run, loadgen.adapter._adapter",
            {"aiohttp", "loadgen.transport._http", *LEFT_OUT},
        ),
        ("loadgen.engine.__main__", {"gevent", "locust", *LEFT_OUT}),
    ],
    ids=["the floor", "Locust", "the engine"],
)
def test_a_process_loads_nothing_heavy_and_nothing_of_the_other(imports: str, never: set[str]) -> None:
    code = f"import sys, {imports}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not never & set(said.stdout.split())


def test_the_locustfile_is_the_only_file_of_loadgen_that_locust_loads() -> None:
    loose = [p.name for p in modules("loadgen") if not p.name.startswith("_")]
    assert loose == ["locustfile.py"]


def test_nothing_in_loadgen_has_the_name_of_a_standard_module_or_an_installed_package() -> None:
    """While Locust loads its file, the folder comes first on the path, and each name there hides another."""
    names = {path.stem for path in modules("loadgen")} - {"__init__", "__main__"}
    names |= {path.name for path in (ROOT / "loadgen").rglob("*") if path.is_dir()} - {"__pycache__"}
    taken = {*sys.stdlib_module_names, *sys.builtin_module_names, *distributions_of()}
    assert not names & taken


def test_locust_lists_one_user_class_and_imports_no_module_under_two_names(tmp_path: Path) -> None:
    """Also from a folder that has packages of our names."""
    for name in (FLOOR, *ROOMS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    listing = tmp_path / "modules.json"
    spy = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: json.dump({{n: getattr(m, '__file__', None) for n, m in list("
        f"sys.modules.items())}}, open({str(listing)!r}, 'w')))\n"
        "import locust.main\nlocust.main.main()\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", spy, "-f", str(ROOT / "loadgen"), "--list"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert said.stdout.split() == ["Available", "Users:", "Person"]
    files = json.loads(listing.read_text())
    ours = [(file, name) for name, file in files.items() if file and f"{ROOT}/loadgen/" in file]
    assert len({file for file, _ in ours}) == len(ours), "a module was imported under two names"
    assert any(file.endswith("_controller.py") for file, _ in ours)
