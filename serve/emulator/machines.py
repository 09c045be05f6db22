"""How long one step of a serving engine takes, by what it reads and what it computes.

A step takes its memory time, its compute time, a constant and a cost for each answer under way, added up: so
the published times are predicted better than by the larger of the first two. Memory time: the weights of the
layers are read once a step, those of the output layer if a token is sampled in it, and the keys and values of
every sequence. Compute time: two operations for each weight and token, those of the output layer for sampled
tokens only, and the attention's own. These are the terms of the roofline (Williams, Waterman and Patterson,
2009); what share of both peaks an engine reaches is fitted to published measurements (`serve.efficiency`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from serve.catalogue import FP16_BYTES, Gpu, Model
from serve.efficiency import Efficiency, load_efficiency
from turnbench.formats.server import Precision

MEMORY_SHARE = 0.9
"""Of the GPU's memory that vLLM takes by default."""
WORKING_BYTES = 1e9
"""Activations, beside weights and cache."""


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """What a server spends outside its engine; the published batches have none of it. Both are assumed.

    `request_ns` for HTTP, template and tokenizer before a request is queued; `token_ns` to send one token of
    a step, one after the other.
    """

    request_ns: int = 40_000_000
    token_ns: int = 20_000


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step computes: `tokens` new ones; `context` read from the cache, summed over sequences;
    `pairs` of a new token and a token that it attends to; `decoding`: how many of the tokens are the next
    one of an answer under way, the others being a prompt's; `sampled`: how many sequences get a token."""

    tokens: int
    context: int
    pairs: int
    decoding: int = 0
    sampled: int = 1


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
    precision: Precision = "fp16"
    efficiency: Efficiency = field(default_factory=load_efficiency)

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        step = self.efficiency.step
        host_us = step.overhead_us + step.sequence_us * work.decoding
        return round((self.memory_s(work) + self.compute_s(work)) * 1e9 + host_us * 1e3)

    def memory_s(self, work: StepWork) -> float:
        """Seconds in which a step reads weights, keys and values."""
        peak_per_s = self.gpu.bandwidth_gb_per_s * 1e9
        return self.bytes_read(work) / (peak_per_s * self.efficiency.step.bandwidth_share)

    def cache_s(self, work: StepWork) -> float:
        """Of these seconds, those for keys and values."""
        peak_per_s = self.gpu.bandwidth_gb_per_s * 1e9
        read = self.model.kv_bytes_per_token * work.context
        return read / (peak_per_s * self.efficiency.step.bandwidth_share)

    def compute_s(self, work: StepWork) -> float:
        """Seconds in which a step multiplies."""
        peak_per_s = self.gpu.tflops_fp16 * 1e12
        return self.operations(work) / (peak_per_s * self.efficiency.step.compute_share)

    def bytes_read(self, work: StepWork) -> float:
        """Weights, keys and values that a step reads."""
        weights = self.step_weight_bytes if work.sampled else self.step_weight_bytes - self._output_bytes
        return weights + self.model.kv_bytes_per_token * work.context

    def operations(self, work: StepWork) -> float:
        """Floating-point operations of a step."""
        model = self.model
        outputs = model.vocab * model.hidden
        for_weights = 2 * work.tokens * (model.decode_weight_bytes / FP16_BYTES - outputs)
        for_outputs = 2 * work.sampled * outputs
        for_attention = 4 * work.pairs * model.layers * model.heads * model.head_dim
        return for_weights + for_outputs + for_attention

    @property
    def _output_bytes(self) -> int:
        """Of the output layer, which stays in FP16."""
        return FP16_BYTES * self.model.vocab * self.model.hidden

    @property
    def step_weight_bytes(self) -> int:
        """Bytes of weights that a step with a sampled token reads: all but an untied input table."""
        model = self.model
        saved = model.fp16_bytes - model.weight_bytes(self.precision)
        return model.decode_weight_bytes - saved

    def bound_tokens_per_s(self) -> float:
        """The most that one sequence can get: peak bandwidth over the weights read for a token."""
        return self.gpu.bandwidth_gb_per_s * 1e9 / self.step_weight_bytes

    def kv_tokens(self) -> int:
        """Tokens of context that fit beside the weights; negative if the weights do not fit."""
        room = self.gpu.memory_gb * 1e9 * MEMORY_SHARE - WORKING_BYTES
        return int((room - self.model.weight_bytes(self.precision)) // self.model.kv_bytes_per_token)
