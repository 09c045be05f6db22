"""The power that the emulated GPU would draw, by what its steps do: fitted to published figures.

A step is credited with its energy when it begins; in between the GPU draws what it draws idle. The page of
/metrics gives the mean of the last second, as a DCGM exporter names it, so that a run against an emulator can
have joules and cost too, marked as EMULATED as all of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from serve.emulator.machines import RooflineMachine, StepWork

WINDOW_NS = 1_000_000_000


class PowerMeter:
    """A machine for the scheduler that remembers the energy of its last steps."""

    def __init__(self, machine: RooflineMachine, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._machine = machine
        self._now_ns = now_ns
        self._steps: deque[tuple[int, float]] = deque()
        """When each began, and its joules above what idling takes."""

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        machine, step, power = self._machine, self._machine.efficiency.step, self._machine.efficiency.power
        took_ns = machine.step_ns(work)
        took_s = took_ns / 1e9
        working_s = machine.cache_s(work) + machine.compute_s(work)
        share = power.of_limit(working_s / took_s, step.overhead_us / 1e6 / took_s) - power.idle
        self._steps.append((self._now_ns(), share * machine.gpu.power_w * took_s))
        self._forget()
        return took_ns

    def kv_tokens(self) -> int:
        """Tokens of context that its cache of keys and values holds."""
        return self._machine.kv_tokens()

    def mean_power_w(self) -> float:
        """Of the last second; never above the GPU's limit."""
        self._forget()
        gpu = self._machine.gpu
        above_idle_w = sum(joules for _, joules in self._steps) / (WINDOW_NS / 1e9)
        return min(gpu.power_w, self._machine.efficiency.power.idle * gpu.power_w + above_idle_w)

    def _forget(self) -> None:
        since_ns = self._now_ns() - WINDOW_NS
        while self._steps and self._steps[0][0] <= since_ns:
            self._steps.popleft()
