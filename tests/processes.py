"""Processes that tests look at and kill. They may end at any moment, also between two looks at one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def alive(process: psutil.Process) -> bool:
    """Whether it runs: one that is dead and not yet waited for does not."""
    with suppress(psutil.NoSuchProcess):  # a zombie's error is one of these
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def below(pid: int, word: str | None = None) -> list[psutil.Process]:
    """The live descendants of a process; with a word, those that have it as an argument."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid).children(recursive=True)
        return [each for each in family if alive(each) and (word is None or word in _command(each))]
    return []


def kill(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []
