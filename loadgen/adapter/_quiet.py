"""Takes from Locust what would mislead beside our own: its rounded statistics, some lines, its keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import locust.main

_MISLEADING = (
    "No run time limit set",  # our own clock ends the run
    "Ramping to",
    "Sending spawn jobs",
    "All users spawned",  # our progress tells of people
)
_BROWSER_KEYS = ("\r", "\n")


def quiet_locust(options: Any) -> None:
    """Headless: show Locust's own statistics only with --print-stats, and leave the telling to us."""
    if not options.print_stats:
        options.only_summary = True
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
    for name in ("locust.main", "locust.runners"):
        logging.getLogger(name).addFilter(_is_not_misleading)


def take_keys(headless: bool) -> None:
    """Leave Locust's terminal no key that changes the load: w, W, s and S would, unrecorded.

    Locust makes its listener after `init`, from this name in its module; there is no option against it.
    With the web UI Enter still opens the browser; a headless run's terminal is let alone altogether.
    """
    listen: Any = locust.main.input_listener

    def harmless(keys: dict[str, Callable[[], Any]]) -> Any:
        if headless:
            return lambda: None
        return listen({key: work for key, work in keys.items() if key in _BROWSER_KEYS})

    locust.main.input_listener = harmless


def _is_not_misleading(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_MISLEADING)
