"""The commands that the docs show, and whether our own parsers take them.

    python -m tests.docs.pages < commands.json    prints those that are refused, with the reason

Locust's parser patches the process that loads it, so commands are parsed in a process of their own.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ("commands.md", "options.md", "formats.md", "metrics.md", "findings.md", "exits.md")
MISTYPED = "habits.md"
"""Its commands are wrong on purpose."""
MODULES = {"analysis": "report", "serve": "serve", "scenarios": "scenarios"}
"""Rooms whose `python -m` is a command of `turnbench`."""


class Shown(NamedTuple):
    """A command in a block of a page."""

    page: str
    line: str


def blocks(path: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page that are of this language; those without one hold commands."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for info, body in found if info.strip() == language]


def commands(path: Path) -> list[str]:
    """The lines of those blocks, joined where they go on, without comments."""
    lines = [line for body in blocks(path) for line in body.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^    (make .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    bare = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    return [" ".join(line.split()) for line in bare if line]


def shown() -> list[Shown]:
    """Every command in a block."""
    return [Shown(path.name, line) for path in PAGES for line in commands(path)]


def inline() -> list[Shown]:
    """Commands of ours in the running text, but for those that leave something open, as `A | B` does."""
    found = []
    for path in (path for path in PAGES if path.name not in (*GENERATED, MISTYPED)):
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`]+)`", text):
            line = " ".join(code.split())
            if line.startswith(("turnbench ", "make ", "locust ", "python -m ")) and not re.search(
                r"[|\[]|\.\.\.", line
            ):
                found.append(Shown(path.name, line))
    return [each for each in found if len(each.line.split()) > (3 if "python" in each.line else 2)]


def arguments(line: str) -> list[str] | None:
    """What `turnbench` is given by a line, also under another name; None where it is no such command."""
    words = shlex.split(line)
    match words:
        case ["turnbench", *rest]:
            return rest
        case ["locust", "-f", "loadgen/", *rest]:
            return ["run", *rest]
        case ["python", "-m", "loadgen", "sweep", *rest]:
            return ["sweep", *rest]
        case ["python", "-m", room, *rest] if room in MODULES:
            return [MODULES[room], *rest]
    return None


def refused(line: str) -> str:
    """Why our parser refuses a line; nothing where it takes it."""
    from loadgen.options._command_line import OptionErrors, settings_from
    from turnbench.cli.main import COMMANDS

    name, *rest = ["http://host:8000" if word == "URL" else word for word in arguments(line) or [""]]
    if name.startswith("-"):
        return "" if name in ("--help", "--version") else "no such option"
    if name not in COMMANDS:
        return f"no command {name!r}"
    said = StringIO()
    try:
        with redirect_stderr(said):
            given = import_module(COMMANDS[name].module).command_parser(f"turnbench {name}").parse_args(rest)
            if name == "run" and not given.worker and given.host:
                settings_from(vars(given) | {"turnbench_users_given": given.num_users is not None})
    except OptionErrors as error:
        return "\n".join(each for each in error.problems if "pip install" not in each)  # an extra, not here
    except SystemExit as ended:
        return said.getvalue().strip() if ended.code else ""
    return ""


if __name__ == "__main__":
    print(json.dumps({line: why for line in json.load(sys.stdin) if (why := refused(line))}))
