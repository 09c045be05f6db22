"""One offline batch through the emulator's scheduler, in virtual time: all requests at once.

What each step has to do depends on the batch and on the room of the cache, never on how long a step takes. So
a batch is played once (`play_batch`), and its time and power follow from sums over its steps for any
efficiency.
"""

from __future__ import annotations

from dataclasses import dataclass

from serve.catalogue import Gpu
from serve.efficiency import Efficiency, StepCosts
from serve.emulator.machines import RooflineMachine, StepWork
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence, batch_limits


@dataclass(frozen=True, slots=True)
class BatchWork:
    """A played batch, in units of the GPU's peaks."""

    bytes_s: float
    """Reading everything at the peak bandwidth."""
    cache_bytes_s: float
    """Of these seconds, those for keys and values."""
    operations_s: float
    """Multiplying at the peak rate."""
    steps: int
    decoding: int
    """Answers under way, summed over steps."""
    preemptions: int

    def seconds(self, step: StepCosts) -> float:
        """How long the batch takes."""
        host_us = self.steps * step.overhead_us + self.decoding * step.sequence_us
        return self.bytes_s / step.bandwidth_share + self.operations_s / step.compute_share + host_us / 1e6

    def times_of_power(self, step: StepCosts) -> tuple[float, float]:
        """Shares of the time that power follows: as `PowerLevels.of_limit` takes them."""
        working_s = self.cache_bytes_s / step.bandwidth_share + self.operations_s / step.compute_share
        took_s = self.seconds(step)
        return working_s / took_s, self.steps * step.overhead_us / 1e6 / took_s

    def mean_power_w(self, gpu: Gpu, efficiency: Efficiency) -> float:
        """Mean power of the GPU during the batch."""
        return gpu.power_w * efficiency.power.of_limit(*self.times_of_power(efficiency.step))


class _Tally:
    """The machine as the scheduler sees it; adds up what its steps do."""

    def __init__(self, machine: RooflineMachine) -> None:
        self._machine = machine
        self.bytes_read = self.operations = 0.0
        self.context = self.steps = self.decoding = 0

    def step_ns(self, work: StepWork) -> int:
        self.bytes_read += self._machine.bytes_read(work)
        self.operations += self._machine.operations(work)
        self.context += work.context
        self.steps += 1
        self.decoding += work.decoding
        return 1

    def kv_tokens(self) -> int:
        return self._machine.kv_tokens()


def play_batch(machine: RooflineMachine, requests: int, input_tokens: int, output_tokens: int) -> BatchWork:
    """Play so many equal requests at once. Every one of them must fit into the cache by itself."""
    gpu, tally = machine.gpu, _Tally(machine)
    scheduler = BatchScheduler(tally, *batch_limits(gpu))
    for _ in range(requests):
        scheduler.add(ScheduledSequence(input_tokens, output_tokens))
    while scheduler.begin_step() is not None:
        scheduler.end_step()
    peak_per_s = gpu.bandwidth_gb_per_s * 1e9
    return BatchWork(
        bytes_s=tally.bytes_read / peak_per_s,
        cache_bytes_s=machine.model.kv_bytes_per_token * tally.context / peak_per_s,
        operations_s=tally.operations / (gpu.tflops_fp16 * 1e12),
        steps=tally.steps,
        decoding=tally.decoding,
        preemptions=scheduler.preemptions,
    )
