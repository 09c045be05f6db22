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
import yaml

from turnbench.formats.server import WEIGHTS, RecordedServer, ServerFacts
from turnbench.places import state_folder

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
        except (OSError, ValueError, msgspec.DecodeError):
            continue
        if _lives(facts):
            found.append(facts)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda facts: facts.port)


def described_server(url: str, models: list[str], folder: Path | None = None) -> RecordedServer:
    """What the launcher of this machine says of the server at this URL; empty where none is to be believed.

    `models` are the names that the server answers to: a description of another model is another server's.
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
    except (OSError, ValueError, msgspec.DecodeError):
        return {}
    if not _lives(facts) or facts.port != port or facts.served_name not in models:
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
    try:
        facts = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, [f"--server-facts {path}: {' '.join(str(error).split())}"]
    if not isinstance(facts, dict):
        return {}, [f"--server-facts {path}: not a mapping of names to facts"]
    mistakes = [
        f"--server-facts {path}: {mistake}" for name in facts for mistake in _mistakes(name, facts[name])
    ]
    return ({} if mistakes else facts), mistakes


def _mistakes(name: object, value: object) -> list[str]:
    if not isinstance(name, str):
        return [f"{name!r} is no name: put it in quotes"]
    if name == "emulated" and not isinstance(value, bool):
        return ["emulated: must be true or false"]
    if name == "weights" and value not in WEIGHTS:
        return [f"weights: must be one of {', '.join(WEIGHTS)}"]
    if name == "arguments" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        return ["arguments: must be a list of texts"]
    values: list[Any] = value if isinstance(value, list) else [value]
    plain = (each is None or isinstance(each, str | int | float) for each in values)
    finite = (not isinstance(each, float) or math.isfinite(each) for each in values)
    if not (all(plain) and all(finite)):
        return [f"{name}: must be a text, a number, true, false, null, or a list of these"]
    return []
