"""What is known of a server beside its answers: a launcher's description, or a file about a remote one.

`python -m serve up` keeps a description in the state folder, PORT.json, for as long as its server runs. A
killed launcher leaves the file behind, so a description is believed only while the very process that wrote
it lives.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil

from turnbench.formats.server import WEIGHTS, RecordedServer, ServerFacts
from turnbench.places import state_folder
from turnbench.problems import Problem
from turnbench.strict_yaml import Map, Text, key_of, plain, read_file

_LAUNCHER_ONLY = ("pid", "pid_started_s")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAME_START_S = 1.0


def write_description(facts: ServerFacts, folder: Path | None = None) -> Path:
    """Write PORT.json into the folder (default: the state folder); readers never see half of it."""
    folder = folder or state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{facts.port}.json"
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
    fresh.replace(file)
    return file


def running_servers(folder: Path | None = None) -> list[ServerFacts]:
    """Descriptions of the servers whose launchers still live, by port; stale ones are removed."""
    folder = folder or state_folder()
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            facts = msgspec.json.decode(file.read_bytes(), type=ServerFacts)
        except (OSError, ValueError):
            continue
        if _lives(facts):
            found.append(facts)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda facts: facts.port)


def described_server(url: str, models: list[str], folder: Path | None = None) -> RecordedServer:
    """What the launcher of this machine says of the server at this URL; empty where none is to be believed.

    `models` are the names that the server answers to: a description of another model is another server's.
    transformers' server lists none where it was started with a model's folder.
    """
    where = urlsplit(url)
    port = where.port or _DEFAULT_PORTS.get(where.scheme)
    try:
        is_local = ipaddress.ip_address(where.hostname or "").is_loopback
    except ValueError:
        is_local = where.hostname == "localhost"
    if not is_local:
        return {}
    try:
        content = ((folder or state_folder()) / f"{port}.json").read_bytes()
        facts, known = msgspec.json.decode(content, type=_BelievedBy), json.loads(content)
    except (OSError, ValueError):
        return {}
    if not _lives(facts) or facts.port != port or (models and facts.served_name not in models):
        return {}
    return {name: value for name, value in known.items() if name not in _LAUNCHER_ONLY}


class _BelievedBy(msgspec.Struct):
    """What a description must say before any of it is believed, whichever version wrote it."""

    port: int
    pid: int
    pid_started_s: float
    served_name: str


def _lives(facts: ServerFacts | _BelievedBy) -> bool:
    """Whether the launcher that wrote this still runs."""
    try:
        process = psutil.Process(facts.pid)
        same = abs(process.create_time() - facts.pid_started_s) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # a number that can be no process id
        return False


def read_facts_file(path: str) -> tuple[RecordedServer, list[str]]:
    """A remote server's description from JSON or YAML, and every mistake in it, a line each."""
    root, problems = read_file(path, "server description")
    if isinstance(root, Map):
        facts, unreadable = plain(root)
        problems += unreadable
        for name, value in facts.items():
            key = key_of(root, name)
            problems += (Problem(path, key.line, what) for what in _mistakes(key, value))
    elif root is not None:
        problems.append(Problem(path, root.line, "not a mapping of names to facts"))
    if problems or not isinstance(root, Map):
        return {}, [f"--server-facts {problem}" for problem in problems]
    return facts, []


def _mistakes(name: Text, value: object) -> list[str]:
    if not isinstance(plain(name)[0], str):
        return [f"{name} is no name: put it in quotes"]
    if name == "emulated" and not isinstance(value, bool):
        return ["emulated: must be true or false"]
    if name == "weights" and value not in WEIGHTS:
        return [f"weights: must be one of {', '.join(WEIGHTS)}"]
    if name == "arguments" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        return ["arguments: must be a list of texts"]
    values: list[Any] = value if isinstance(value, list) else [value]
    simple = (each is None or isinstance(each, str | int | float) for each in values)
    finite = (not isinstance(each, float) or math.isfinite(each) for each in values)
    if not (all(simple) and all(finite)):
        return [f"{name}: must be a text, a number, true, false, null, or a list of these"]
    return []
