"""The engine's line about itself."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import psutil
import pytest

from loadgen._engine._health import Stolen

Linux = namedtuple("Linux", "user nice system idle iowait irq softirq steal guest guest_nice")
Other = namedtuple("Other", "user system idle")


def _shares(monkeypatch: pytest.MonkeyPatch, *accounts: tuple[float, ...]) -> list[float | None]:
    told = iter(accounts)
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(told))
    stolen = Stolen()
    return [stolen.take_share() for _ in accounts[1:]]


def test_the_share_that_the_host_took_is_since_the_last_look_and_of_all_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Linux(100.0, 5.0, 50.0, 800.0, 3.0, 0.0, 4.0, 30.0, 20.0, 1.0)
    # A second of user's 1.5 was a guest's and is in both columns: 4 s of CPU time passed.
    later = start._replace(user=101.5, idle=802.0, steal=30.5, guest=21.0)
    still = later._replace(idle=806.0)
    assert _shares(monkeypatch, start, later, still, still) == [0.125, 0.0, None]


def test_a_system_that_does_not_tell_what_was_taken_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shares(monkeypatch, Other(1.0, 1.0, 1.0), Other(2.0, 2.0, 2.0)) == [None]


def test_what_was_taken_of_this_machine_is_a_share() -> None:
    now: Any = psutil.cpu_times()
    share = Stolen().take_share() if hasattr(now, "steal") else 0.0
    assert share is None or 0.0 <= share <= 1.0
