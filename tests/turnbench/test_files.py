"""What people name as a file and is none is refused at once, by every reader."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from loadgen.options import _values as values
from scenarios import ScenarioError, load
from turnbench.files import open_file
from turnbench.run_directory import RunError, read_run
from turnbench.server_facts import read_facts_file
from turnbench.sweep.plan import PlanError, read_plan

NO_FILES = {"pipe": "a pipe", "socket": "a socket", "folder": "a folder", "/dev/zero": "a device"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with a pipe, a socket, a folder and a sparse file of 50 GB, which is the current one."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for name in ("run.json", "rows.jsonl"):
        os.mkfifo(Path("folder", name))
    for suffix in ("yaml", "json", "jsonl", "csv", "txt"):
        with Path(f"huge.{suffix}").open("wb") as file:
            file.write(b'[{"prompt":"a"}, {"prompt":"' if suffix == "json" else b'prompt\n"')
            file.truncate(50 * 2**30)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind("socket")
        yield tmp_path


def facts(path: str) -> None:
    raise ValueError(read_facts_file(path)[1])


READERS: list[Callable[[str], Any]] = [
    open_file, load, read_plan, facts, values.authorities, values.own_certificate,
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_refused_at_once(here: Path, reader: Callable[[str], Any], name: str) -> None:
    with pytest.raises((OSError, ValueError, ScenarioError, PlanError)) as caught:
        reader(name)
    assert NO_FILES[name] in str(caught.value.args)


def test_a_pipe_under_the_name_of_data_is_refused(here: Path) -> None:
    with pytest.raises(ScenarioError, match="a pipe, not a file"):
        load("folder/rows.jsonl")


def test_a_run_directory_of_pipes_is_refused(here: Path) -> None:
    with pytest.raises((OSError, RunError), match="a pipe"):
        read_run("folder")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "txt"])
def test_a_row_without_an_end_is_named_and_read_no_further(here: Path, suffix: str) -> None:
    with pytest.raises(ScenarioError, match=r"huge\.\w+:[12]: a row that goes on for more than 67,108,864"):
        load(f"huge.{suffix}")


def test_a_description_of_fifty_gigabytes_is_not_read(here: Path) -> None:
    assert "53,687,091,200 bytes" in read_facts_file("huge.yaml")[1][0]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("x" * 300, "a name of 300 bytes"),
        pytest.param("ü" * 150, "a name of 300 bytes", marks=pytest.mark.slow),
        pytest.param("new/" + "x" * 300 + "/run", "a name of 300 bytes", marks=pytest.mark.slow),
        ("a\nb", "characters that no screen shows"),
        pytest.param("a\x1b[2Jb", "characters that no screen shows", marks=pytest.mark.slow),
        pytest.param("pipe/run", "pipe is no folder", marks=pytest.mark.slow),
        ("huge.csv/deep/run", r"huge.csv is no folder"),
    ],
)
def test_a_run_directory_that_cannot_be_made_is_refused(here: Path, typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        values.new_folder(typed)
    assert why in caught.value.args[1]


@pytest.mark.parametrize(
    "typed", ["x" * 255, "new", "new/deep/er", "folder/run", "folder", "../run", "/tmp/x"]
)
def test_a_run_directory_that_can_be_made_is_taken_as_typed(here: Path, typed: str) -> None:
    assert values.new_folder(typed) == typed
