"""Commands in the docs can be typed: each is one that exists, with options that its parser takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.docs.pages import MODULES, PAGES, ROOT, Shown, arguments, blocks, inline, shown

OF_THE_SHELL = ("export ", ". .venv/bin/activate", "echo $?", "pipx install .", "curl ", "git rev-parse ")
LANGUAGES = {"", "text", "yaml", 'yaml title="two.yaml"', "python"}


@pytest.fixture(scope="module")
def typed() -> list[Shown]:
    return list(dict.fromkeys((*shown(), *inline())))


def test_a_block_without_a_language_holds_commands_and_nothing_else() -> None:
    known = ("turnbench ", "make ", "locust -f loadgen/ ", "python -m ", *OF_THE_SHELL)
    assert [each for each in shown() if not each.line.startswith(known)] == []
    used = {
        info.strip() for path in PAGES for info in re.findall(r"^```(.+)$", path.read_text(), re.MULTILINE)
    }
    assert used <= LANGUAGES


def test_our_parsers_take_every_command(typed: list[Shown]) -> None:
    lines = [each.line for each in typed if arguments(each.line) is not None]
    assert len(lines) > 60
    parsed = subprocess.run(
        [sys.executable, "-m", "tests.docs.pages"],
        input=json.dumps(lines), capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(parsed.stdout) == {}


def test_every_target_of_make_and_every_module_exists(typed: list[Shown]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for page, line in typed:
        if line.startswith("make "):
            words = [word for word in line.split()[1:] if "=" not in word]
            missing += [(page, line) for word in words[:1] if word not in targets]
        elif line.startswith("python -m ") and (name := line.split()[2]) not in MODULES:
            missing += [(page, line)] * (find_spec(name) is None)
    assert missing == []


def test_a_file_that_a_block_writes_is_the_one_that_a_command_reads() -> None:
    tutorial = ROOT / "docs" / "tutorial.md"
    assert blocks(tutorial, 'yaml title="two.yaml"')
    assert "turnbench sweep two.yaml" in {each.line for each in shown()}
