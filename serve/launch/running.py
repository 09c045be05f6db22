"""The servers that run here: what `status` tells of them, and how `stop` ends them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from serve.launch.facts import running_servers
from serve.launch.run import GRACE_S, is_healthy

Say = Callable[[str], None]


def show_status(say: Say) -> int:
    """One line a server; the exit code."""
    running = running_servers()
    for facts in running:
        health = "healthy" if is_healthy(facts["url"]) else "does not answer"
        what = "EMULATED " + facts["hardware"] if facts["emulated"] else facts["gpu"] or facts["backend"]
        weights = ", random weights" if facts["weights"] == "dummy" else ""
        print(f"{facts['url']}  {facts['model']}  {facts['precision']}{weights}  {what}  {health}")
    if not running:
        say("no server runs here")
    return 0


def stop_servers(port: int | None, say: Say) -> int:
    """Stop all of them, or the one on a port, and wait for their ends; the exit code."""
    running = [each for each in running_servers() if port in (None, each["port"])]
    if not running:
        say("no server runs here" + (f" on port {port}" if port else ""))
        return 0
    for facts in running:
        os.kill(facts["pid"], signal.SIGTERM)
    ports, ends_at = {facts["port"] for facts in running}, time.monotonic() + GRACE_S + 10
    while left := [each for each in running_servers() if each["port"] in ports]:
        if time.monotonic() > ends_at:
            say(f"still there: {', '.join(each['url'] for each in left)}")
            return 1
        time.sleep(0.05)
    say(f"stopped {', '.join(facts['model'] + ' at ' + facts['url'] for facts in running)}")
    return 0
