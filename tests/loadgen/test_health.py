"""The engine's line about itself."""

from __future__ import annotations

import time
from collections import namedtuple

import psutil
import pytest

from loadgen.engine._health import Stolen

Linux = namedtuple("Linux", "user nice system idle iowait irq softirq steal guest guest_nice")
Other = namedtuple("Other", "user system idle")


def _shares(monkeypatch: pytest.MonkeyPatch, *accounts: list[tuple[float, ...]]) -> list[float | None]:
    readings = iter(accounts)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    stolen = Stolen()
    return [stolen.take_share() for _ in accounts[1:]]


def test_the_share_that_the_host_took_is_since_the_last_look_and_of_the_cpu_that_lost_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Linux(100.0, 5.0, 50.0, 800.0, 3.0, 0.0, 4.0, 30.0, 20.0, 1.0)
    # A second of user's 1.5 was a guest's and is in both columns: 4 s of CPU time passed.
    later = start._replace(user=101.5, idle=802.0, steal=30.5, guest=21.0)
    quiet = start._replace(idle=804.0)
    still = later._replace(idle=806.0)
    accounts = [start, start], [quiet, later], [quiet, still], [quiet, still]
    assert _shares(monkeypatch, *accounts) == [0.125, 0.0, None]


def test_a_system_that_does_not_say_what_was_taken_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shares(monkeypatch, [Other(1.0, 1.0, 1.0)], [Other(2.0, 2.0, 2.0)]) == [None]


@pytest.mark.skipif(not hasattr(psutil.cpu_times(), "steal"), reason="this system does not say")
def test_what_was_taken_of_this_machine_can_be_read() -> None:
    stolen, share, until_s = Stolen(), None, time.monotonic() + 10
    while share is None and time.monotonic() < until_s:  # nothing is known before the accounts have moved
        share = stolen.take_share()
    assert share is not None
