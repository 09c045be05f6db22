"""Machines that are network namespaces: each with an address of its own, joined by veth pairs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PREFIX = "turnbench-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-[a-z0-9]+")
_HUB = "hub"


@dataclass(frozen=True)
class Machine:
    """One namespace. `wire` is the end of its cable in the hub."""

    namespace: str
    hub: str
    address: str
    wire: str

    def command(self, *command: str) -> list[str]:
        """The same command, run on this machine."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def unplug(self) -> None:
        """Take its cable out: nothing arrives any more, and nobody is told."""
        _ip("-n", self.hub, "link", "set", self.wire, "down")


@contextmanager
def network(*names: str) -> Iterator[dict[str, Machine]]:
    """Machines of these names in one network; gone at the end, with whatever still runs on them."""
    _remove_leftovers()
    mine = f"{_PREFIX}{os.getpid()}-"
    hub = mine + _HUB
    try:
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        yield {name: _machine(mine + name, hub, number) for number, name in enumerate(names, start=1)}
    finally:
        for namespace in _namespaces():
            if namespace.startswith(mine):
                _remove(namespace)


def _machine(namespace: str, hub: str, number: int) -> Machine:
    address, wire = f"10.99.0.{number}", f"port{number}"
    _ip("netns", "add", namespace)
    _ip("-n", hub, "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("-n", hub, "link", "set", wire, "master", "br0", "up")
    _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", namespace, "link", "set", device, "up")
    return Machine(namespace, hub, address, wire)


def _remove_leftovers() -> None:
    """Namespaces of a test that was killed: its process is gone, they are not."""
    for namespace in _namespaces():
        found = _NAME.fullmatch(namespace)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            _remove(namespace)


def _remove(namespace: str) -> None:
    for pid in _ip("netns", "pids", namespace).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    _ip("netns", "del", namespace)


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
