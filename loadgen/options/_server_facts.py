"""What is known of the server itself: the launcher's own word for a local one, a file for a remote one.

The launcher (`python -m serve up`) keeps a description in `.serve/PORT.json` for as long as it runs. A killed
one leaves it behind, so it is believed only while the very process that wrote it lives, and only if the
server there answers to the name that it gives.
"""

from __future__ import annotations

import ipaddress
import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

FOLDER = Path(__file__).resolve().parents[2] / ".serve"
BOOKKEEPING = ("pid", "pid_started_s")
"""Of use to the launcher only."""
WEIGHTS = ("real", "dummy", "none")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAME_S = 1.0


def local_facts(url: str, models: list[str], folder: Path = FOLDER) -> dict[str, Any]:
    """The description of the server at this URL, if a launcher of this machine keeps it; else nothing."""
    where = urlsplit(url)
    port = where.port or _DEFAULT_PORTS.get(where.scheme)
    if not _is_loopback(where.hostname or ""):
        return {}
    try:
        facts = json.loads((folder / f"{port}.json").read_text(encoding="utf-8"))
        believed = _lives(facts) and facts["port"] == port and facts["served_name"] in models
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {key: value for key, value in facts.items() if key not in BOOKKEEPING} if believed else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lives(facts: dict[str, Any]) -> bool:
    """A process id alone may be another's by now."""
    try:
        process = psutil.Process(int(facts["pid"]))
        same = abs(process.create_time() - float(facts["pid_started_s"])) < _SAME_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def facts_from(path: str) -> tuple[dict[str, Any], list[str]]:
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
    values = value if isinstance(value, list) else [value]
    if name == "arguments" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        return ["arguments: must be a list of texts"]
    if not all(_is_plain(each) for each in values):
        return [f"{name}: must be a text, a number, true, false, null, or a list of these"]
    return []


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
