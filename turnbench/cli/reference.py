"""Pages of docs/ made of the code, beside those of formats: commands, findings, exit codes with outcomes."""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from turnbench import exits, outcomes
from turnbench.findings import FindingKind

_ROOT = Path(__file__).parents[2]
_ROOMS = ("analysis", "loadgen", "scenarios")
_WIDTH = 100
_GENERATED = "Generated from {source} by `turnbench schema --docs docs`: change it there."

# --- commands ---


@cache
def commands_page() -> str:
    """docs/commands.md: the help of every command."""
    from turnbench.cli.main import COMMANDS, HELP

    source = _GENERATED.format(source="the commands' own `--help`")
    parts = ["# Commands", source, _fenced(HELP)]
    for name, command in COMMANDS.items():
        parts += [f"## turnbench {name}"]
        if name == "run":
            parts += [_fenced(_help_of_run()), "Every option, with its default: [options.md](options.md)."]
            continue
        parser: argparse.ArgumentParser = import_module(command.module).command_parser(f"turnbench {name}")
        parts += [_fenced(text) for text in _helps(parser)]
    return "\n\n".join(parts) + "\n"


def _helps(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The help of a command and of the commands below it, at one width for every terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_WIDTH)
    try:
        yield parser.format_help()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    yield from _helps(each)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _help_of_run() -> str:
    """Its parser is Locust's, which patches the process that loads it: so by a process of its own."""
    asked = [sys.executable, "-m", "turnbench", "run", "--help"]
    env = os.environ | {"COLUMNS": str(_WIDTH)}
    return subprocess.run(asked, capture_output=True, text=True, check=True, env=env, cwd=_ROOT).stdout


def _fenced(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


# --- exit codes and outcomes ---


def exits_page() -> str:
    """docs/exits.md: every exit code, and every way a turn can end."""
    lines = [
        "# Exit codes and outcomes",
        "",
        _GENERATED.format(source="`turnbench/exits.py` and `turnbench/outcomes.py`"),
        "",
        "## Exit codes",
        "",
        "The first that applies; no command ends with another one.",
        "",
        "| code | name | meaning |",
        "|---|---|---|",
    ]
    meanings = _docs_of_names(_ROOT / "turnbench" / "exits.py")
    ours = ("OK", "MISSED", "BAD_CONFIGURATION", "INVALID", "NOT_JUDGED")
    lines += [f"| {getattr(exits, name)} | `{name}` | {meanings[name]} |" for name in ours]
    by_code: dict[int, list[str]] = {}
    for signal_, code in exits.OF_SIGNAL.items():
        by_code.setdefault(code, []).append(signal_.name)
    for code, names in by_code.items():
        lines.append(f"| {code} | {' or '.join(names)} | {meanings['OF_SIGNAL']} |")
    lines += ["", "## Outcomes of a turn", "", _CLASSES, "", "| outcome | class | meaning |", "|---|---|---|"]
    for outcome, meaning in outcomes.MEANINGS.items():
        lines.append(f"| `{outcome}` | {outcomes.CLASS_OF[outcome]} | {meaning} |")
    return "\n".join(lines) + "\n"


_CLASSES = """\
Every turn ends with one of these. Its class says what that means for the numbers. An *answered* turn gives
all its times. A *censored* one still ran when it was last seen, so it would have taken longer than what was
seen. A *failed* one gives no time, and its share is shown. A *client_fault* makes a run INVALID. What is
*not_measured* stands in no share."""


def _docs_of_names(path: Path) -> dict[str, str]:
    """The docstring under each name of a module."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {}
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
            for target in node.targets:
                found[ast.unparse(target)] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


# --- findings ---

_FINDINGS_HEAD = """\
A finding is one thing that is wrong with a run, or worth knowing, with its remedy. One *invalid* finding
makes a run INVALID (exit 3), one *suspect* finding makes it SUSPECT; a *note* changes no verdict. `…` stands
for what the run says: a number, a name, a server's words. What to do by symptom: [faq.md](faq.md)."""


def finding_kinds() -> Iterator[FindingKind]:
    """Every kind of finding, from the modules that hold some."""
    for path in (path for room in _ROOMS for path in sorted((_ROOT / room).rglob("*.py"))):
        if "\nfrom turnbench.findings import " in path.read_text(encoding="utf-8"):
            module = import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
            yield from (each for each in vars(module).values() if isinstance(each, FindingKind))


@cache
def findings_page() -> str:
    """docs/findings.md: every finding that the code can make, by its name."""
    remedies: dict[tuple[str, str, str], list[str]] = {}
    for kind in sorted(finding_kinds(), key=lambda kind: kind.check):
        level = kind.severity if isinstance(kind.severity, str) else " or ".join(kind.severity)
        what = kind.shown(kind.what)
        what = what if any(map(str.isalpha, what)) else "as the run says"
        remedies.setdefault((kind.check, level, what), []).append(kind.shown(kind.remedy))
    source = _GENERATED.format(source="the checks of `analysis/checks/` and `loadgen/`")
    lines = [
        "# Findings",
        "",
        source,
        "",
        _FINDINGS_HEAD,
        "",
        "| finding | level | what is seen | what to do |",
    ]
    lines += ["|---|---|---|---|"]
    for (check, *said), what_to_do in remedies.items():
        cells = (text.replace("|", "\\|").replace("<", "&lt;") for text in (*said, "; or: ".join(what_to_do)))
        lines.append(f"| `{check}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
