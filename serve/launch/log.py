"""Reads a server's log for a person: the newest thing worth telling, and why a server ended."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 65536
TAIL_LINES = 15
LINE_CHARS = 160

PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\) )?(?:INFO|WARNING|ERROR) [\d-]+ [\d:.]+ (?:\[[^\]]*\] )?")
NEWS = re.compile(
    r"load|download|weight|architecture|cache|compil|captur|graph|profil|engine|server|startup", re.I
)
PROGRESS_BAR = "Loading "
NO_NEWS = re.compile(r"Route:|non-default args|GET /|with config|deprecat|warn", re.I)
CAUSE = re.compile(r"\b(?:\w+\.)*\w*(?:Error|Exception): \S.*")
SECOND_HAND = re.compile(r"Engine core initialization failed|See root cause above|EngineDeadError")
"""vLLM's outer processes only say that an inner one failed."""


def tail(log: Path) -> list[str]:
    """The last lines of the file without control characters, so that they cannot steer a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = ("".join(each for each in line if each.isprintable()) for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line.strip()]


def newest_news(lines: list[str]) -> str:
    """The newest line that tells how far the server is, without the logger's prefix."""
    for line in reversed(lines):
        plain = PREFIX.sub("", line).strip()
        told = plain != line.strip() or line.startswith(PROGRESS_BAR)
        if told and NEWS.search(plain) and not NO_NEWS.search(line):
            return plain[:LINE_CHARS]
    return "starting"


def describe_failure(lines: list[str], code: int, when: str, log: Path) -> str:
    """Several lines: the log's end, then what happened and, where it can be told, why."""
    causes = [
        found.group() for line in lines if (found := CAUSE.search(line)) and not SECOND_HAND.search(line)
    ]
    why = f": {causes[-1][:LINE_CHARS]}" if causes else ""
    shown = [f"  | {line[:LINE_CHARS]}" for line in lines[-TAIL_LINES:]]
    return "\n".join([*shown, f"the server ended {when} (exit code {code}){why}; whole log: {log}"])
