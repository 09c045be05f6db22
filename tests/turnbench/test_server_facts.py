"""What is known of a server: a launcher's own word while it lives, a strict file for a remote one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from turnbench.formats import ServerFacts
from turnbench.server_facts import described_server, read_facts_file, running_servers, write_description

URL = "http://127.0.0.1:8123/v1"


def described(folder: Path, **changed: Any) -> dict[str, Any]:
    """A description by this very process, with some of it changed."""
    facts = {
        "served_name": "tiny",
        "backend": "vllm-cpu",
        "weights": "dummy",
        "emulated": False,
        "port": 8123,
        "pid": os.getpid(),
        "pid_started_s": psutil.Process().create_time(),
    }
    facts |= changed
    (folder / "8123.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts


@pytest.mark.parametrize(
    "url", [URL, "http://localhost:8123/v1", "http://[::1]:8123/v1", "http://u:p@127.0.0.2:8123"]
)
def test_a_living_launchers_word_is_taken_without_its_bookkeeping(tmp_path: Path, url: str) -> None:
    facts = described(tmp_path)
    known = described_server(url, ["tiny"], tmp_path)
    assert known == {key: value for key, value in facts.items() if not key.startswith("pid")}


def test_a_dead_launchers_word_is_not_taken(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    described(tmp_path, pid=dead.pid)
    assert described_server(URL, ["tiny"], tmp_path) == {}
    # Alive, but begun at another time: the number went to another process.
    described(tmp_path, pid_started_s=psutil.Process().create_time() - 60)
    assert described_server(URL, ["tiny"], tmp_path) == {}


@pytest.mark.parametrize(
    "url", ["http://10.1.2.3:8123/v1", "http://example.org:8123/v1", "http://127.0.0.1:8124/v1"]
)
def test_another_server_is_not_described_by_it(tmp_path: Path, url: str) -> None:
    described(tmp_path)
    assert described_server(url, ["tiny"], tmp_path) == {}


def test_a_server_that_answers_to_another_name_is_not_described_by_it(tmp_path: Path) -> None:
    described(tmp_path)
    assert described_server(URL, ["yi-6b"], tmp_path) == {}
    assert described_server(URL, [], tmp_path)["served_name"] == "tiny", "it lists no model at all"


@pytest.mark.parametrize("text", ["{torn", "[]", "{}", '{"pid": "x", "pid_started_s": 1}', "\xff"])
def test_a_file_that_is_no_description_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "8123.json").write_text(text, encoding="latin-1")
    assert described_server(URL, ["tiny"], tmp_path) == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"gpu": "NVIDIA A100", "emulated": false, "layers": null, "arguments": ["--x", "1"]}',
        "gpu: NVIDIA A100\nemulated: false\nlayers:\narguments: [--x, '1']\n",
    ],
)
def test_a_remote_description_is_read_from_json_and_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "facts"
    file.write_text(text)
    facts = {"gpu": "NVIDIA A100", "emulated": False, "layers": None, "arguments": ["--x", "1"]}
    assert read_facts_file(str(file)) == (facts, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["1: the file is empty"]),
        ("- gpu", ["1: not a mapping"]),
        ("gpu: [", ["2: not valid YAML"]),
        ("gpu: *other", ["1: alias '*other'"]),
        ("gpu: A\ngpu: B", ["2: key 'gpu' is given twice"]),
        ("gpu: {name: X}", ["1: gpu: must be a text, a number"]),
        ("speed: .nan", ["1: speed: must be a text, a number"]),
        (
            "emulated: 'no'\nweights: maybe\n7: x\narguments: --x",
            [
                "1: emulated: must be true or false",
                "2: weights: must be one of real, dummy, none",
                "3: 7 is no name",
                "4: arguments: must be a list",
            ],
        ),
    ],
)
def test_mistakes_in_a_description_are_all_reported_with_their_lines(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text(text)
    facts, mistakes = read_facts_file(str(file))
    assert facts == {}
    assert len(mistakes) == len(words)
    for mistake, word in zip(mistakes, words, strict=True):
        assert mistake.startswith(f"--server-facts {file}:{word}")
        assert "\n" not in mistake


def test_a_description_that_is_not_there_is_said() -> None:
    assert "No such file" in read_facts_file("/nowhere/facts.yaml")[1][0]


def test_a_process_of_the_same_number_is_not_the_launcher(tmp_path: Path) -> None:
    facts = ServerFacts(url="http://127.0.0.1:1", port=1, pid=os.getpid(), pid_started_s=12.5)
    write_description(facts, tmp_path)
    assert running_servers(tmp_path) == []
    facts.pid_started_s = psutil.Process().create_time()
    write_description(facts, tmp_path)
    assert running_servers(tmp_path) == [facts]
    (tmp_path / "2.json").write_text("{torn")
    assert running_servers(tmp_path) == [facts]
