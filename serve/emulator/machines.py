"""How long one step of a serving engine takes, by the roofline: the larger of memory time and compute time.

Memory time: all weights are read once a step, and the keys and values of every sequence in it. Compute time:
two operations for each weight and token, and the attention's own (Williams, Waterman and Patterson, 2009, for
the model; the shares of the peak that real servers reach are measured by others, see `Efficiency`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serve.catalogue import FP16_BYTES, Gpu, Model
from turnbench.formats.server import Precision


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a real server gets out of the hardware.

    `bandwidth` and `overhead_ns` together give llama.cpp's 14.27 ms a token for a 7B model in FP16 on an
    A100-80, and come within 5 % of vLLM's 6.5 ms a step for an 8B model on an H200. `compute` is an ordinary
    share for dense FP16 prefill; `frontend_ns`, the time for HTTP, template and tokenizer before a request is
    queued, is a guess; so is `frontend_token_ns`, the time to send one token of a step, one after the other.
    `memory` is vLLM's default share of the GPU's memory; `working_bytes` are activations.
    """

    bandwidth: float = 0.47
    compute: float = 0.5
    overhead_ns: int = 200_000
    frontend_ns: int = 40_000_000
    frontend_token_ns: int = 20_000
    memory: float = 0.9
    working_bytes: float = 1e9


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step computes: `tokens` new ones; `context` read from the cache, summed over sequences;
    `pairs` of a new token and a token that it attends to; `decoding`: how many of the tokens are the next
    one of an answer under way, the others being a prompt's."""

    tokens: int
    context: int
    pairs: int
    decoding: int = 0


class EmulatedMachine(Protocol):
    """What the scheduler asks of the machine that it schedules for."""

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        ...

    def kv_tokens(self) -> int:
        """Tokens of context that its cache of keys and values holds."""
        ...


@dataclass(frozen=True, slots=True)
class RooflineMachine:
    """One model on one GPU."""

    model: Model
    gpu: Gpu
    efficiency: Efficiency = Efficiency()
    precision: Precision = "fp16"

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        return round(max(self.memory_s(work), self.compute_s(work)) * 1e9) + self.efficiency.overhead_ns

    def memory_s(self, work: StepWork) -> float:
        read = self.step_weight_bytes + self.model.kv_bytes_per_token * work.context
        return read / (self.gpu.bandwidth_gb_per_s * 1e9 * self.efficiency.bandwidth)

    @property
    def step_weight_bytes(self) -> int:
        """Bytes of weights that one step reads: all but the rows of an untied input table."""
        model = self.model
        saved = model.fp16_bytes - model.weight_bytes(self.precision)
        return model.decode_weight_bytes - saved

    def compute_s(self, work: StepWork) -> float:
        model = self.model
        for_weights = 2 * work.tokens * model.decode_weight_bytes / FP16_BYTES
        for_attention = 4 * work.pairs * model.layers * model.heads * model.head_dim
        return (for_weights + for_attention) / (self.gpu.tflops_fp16 * 1e12 * self.efficiency.compute)

    def bound_tokens_per_s(self) -> float:
        """The most that one sequence can get: peak bandwidth over the weights read for a token."""
        return self.gpu.bandwidth_gb_per_s * 1e9 / self.step_weight_bytes

    def kv_tokens(self) -> int:
        """Tokens of context that fit beside the weights; negative if the weights do not fit."""
        memory = self.gpu.memory_gb * 1e9 * self.efficiency.memory
        return int(
            (memory - self.model.weight_bytes(self.precision) - self.efficiency.working_bytes)
            // self.model.kv_bytes_per_token
        )
