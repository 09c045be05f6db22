"""Continuous batching, one step at a time, in virtual time: no clock, no sockets, no randomness.

Each step gives every running sequence one token and spends what is left of the token budget on prompts:
first on those begun, then on the queue, in order of arrival. A sequence enters when its prompt fits into the
key-value cache and takes a block more for every 16 tokens that it makes. When no block is left, the sequence
that came in last goes back to the head of the queue and is computed again later, its answer so far included
(preemption by recompute, as vLLM does it). The prefix cache knows which blocks of a prompt were computed
before, and forgets the least recently used first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from serve.catalogue import Gpu
from serve.emulator.machines import EmulatedMachine, StepWork

BLOCK_TOKENS = 16
BLOCK_CHARS = 64
"""A block of 16 tokens at four characters each."""

MAX_BATCHED_TOKENS = 2048
"""New tokens in one step at most, decoding and prompts together (vLLM's default for an A100)."""
LARGE_GPU_BYTES = 70 * 2**30
"""From this memory on vLLM takes larger batches, except on an A100."""


def batch_limits(gpu: Gpu) -> tuple[int, int]:
    """Sequences and new tokens in one step at most, as vLLM 0.32 chooses them for the GPU."""
    large = gpu.memory_gb * 1e9 >= LARGE_GPU_BYTES and not gpu.name.startswith("a100")
    return (1024, 8192) if large else (256, MAX_BATCHED_TOKENS)


def block_hashes(text: str) -> list[int]:
    """One number for each full block, standing for it and all before it."""
    hashes: list[int] = []
    chain = 0
    for start in range(0, len(text) - BLOCK_CHARS + 1, BLOCK_CHARS):
        chain = hash((chain, text[start : start + BLOCK_CHARS]))
        hashes.append(chain)
    return hashes


class PrefixCache:
    """Block hashes in the order of their last use."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def lookup(self, blocks: list[int], prompt_tokens: int) -> int:
        """Tokens of the prompt that need no computing; at least its last token always does."""
        found = 0
        for block in blocks[: max(0, prompt_tokens - 1) // BLOCK_TOKENS]:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            found += 1
        return found * BLOCK_TOKENS

    def insert(self, blocks: list[int]) -> None:
        """Blocks that are computed now."""
        # Last block first: of one prompt, the end is forgotten before the beginning.
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)

    def shrink(self, most: int) -> None:
        """Forget the least recently used blocks until `most` are left."""
        while len(self._blocks) > max(0, most):
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()


@dataclass(slots=True, eq=False)
class ScheduledSequence:
    """One request in the engine. `blocks` are the prompt's block hashes, `blocks_after` those of prompt and
    answer together."""

    prompt_tokens: int
    output_tokens: int
    blocks: list[int] = field(default_factory=list)
    blocks_after: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    computed: int = 0
    made: int = 0
    decodes: bool = False
    """Nothing is left to compute before its next token."""
    left: bool = False
    redo: int = 0
    """Tokens of the answer that must be computed again after a preemption."""
    held_blocks: int = 0
    room: int = 0
    """Tokens that fit into the held blocks."""

    @property
    def context(self) -> int:
        return self.computed + self.made - self.redo

    @property
    def to_compute(self) -> int:
        """Tokens that stand before the next one to be made."""
        return self.prompt_tokens + self.redo


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


class BatchScheduler:
    """The engine's queue and batch. `begin_step` and `end_step` alternate."""

    def __init__(
        self, machine: EmulatedMachine, max_seqs: int, max_batched_tokens: int = MAX_BATCHED_TOKENS
    ) -> None:
        self.running: list[ScheduledSequence] = []
        self.waiting: deque[ScheduledSequence] = deque()
        self.cache = PrefixCache()
        self.total_blocks = machine.kv_tokens() // BLOCK_TOKENS
        self._machine = machine
        self._max_seqs = max_seqs
        self._max_batched_tokens = max_batched_tokens
        self.preemptions = 0
        self._reserved = 0
        self._chunks: list[tuple[ScheduledSequence, int]] = []

    @property
    def kv_usage(self) -> float:
        """Share of the key-value cache that running sequences fill."""
        filled = sum(-(-sequence.context // BLOCK_TOKENS) for sequence in self.running)
        return filled / self.total_blocks

    def add(self, sequence: ScheduledSequence) -> None:
        self.waiting.append(sequence)

    def abort(self, sequence: ScheduledSequence) -> None:
        """Take a sequence out, wherever it is; its memory is free for the next step."""
        if sequence.left:
            return
        sequence.left = True
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self._release(sequence)

    def begin_step(self) -> int | None:
        """Choose the work of the next step; its duration in ns, or None when there is nothing to do."""
        preempted = self._grow()
        self._chunks = [(sequence, 1) for sequence in self.running if sequence.decodes]
        budget = self._max_batched_tokens - len(self._chunks)
        for sequence in self.running:
            if not sequence.decodes:
                budget -= self._chunk(sequence, budget)
        while budget > 0 and not preempted and self._admit():
            budget -= self._chunk(self.running[-1], budget)
        return self._machine.step_ns(self._work()) if self._chunks else None

    def end_step(self) -> list[ScheduledSequence]:
        """The sequences that got a token in this step; those that are complete have left."""
        grown: list[ScheduledSequence] = []
        for sequence, tokens in self._chunks:
            if sequence.left:
                continue
            if not sequence.decodes:
                sequence.computed += tokens
                if sequence.computed < sequence.to_compute:
                    continue
                sequence.decodes = True
                self.cache.insert(sequence.blocks)
            sequence.made += 1
            grown.append(sequence)
            if sequence.made == sequence.output_tokens:
                self.cache.insert(sequence.blocks_after)
                self._release(sequence)
        self._chunks = []
        return grown

    def _chunk(self, sequence: ScheduledSequence, budget: int) -> int:
        tokens = min(budget, sequence.to_compute - sequence.computed)
        if tokens > 0:
            self._chunks.append((sequence, tokens))
        return tokens

    def _admit(self) -> bool:
        if not self.waiting or len(self.running) >= self._max_seqs:
            return False
        sequence = self.waiting[0]
        needed = blocks_for(sequence.to_compute + 1)
        if self.running and self._reserved + needed > self.total_blocks:
            return False
        self.waiting.popleft()
        self._hold(sequence, needed)
        sequence.computed = self.cache.lookup(sequence.blocks, sequence.prompt_tokens)
        if not sequence.redo:
            sequence.cached_tokens = sequence.computed
        self.running.append(sequence)
        return True

    def _grow(self) -> bool:
        """A block for each sequence whose next token needs one; True if another had to make room for it."""
        before = self.preemptions
        # Thousands of sequences come by here at every step: no call, and no search, for each.
        full = [s for s in self.running if s.decodes and s.computed + s.made - s.redo >= s.room]
        for sequence in full:
            if not sequence.room:  # preempted just now
                continue
            needed = blocks_for(sequence.context + 1)
            while (
                self._reserved + needed - sequence.held_blocks > self.total_blocks and len(self.running) > 1
            ):
                self._preempt(last := self.running[-1])
                if last is sequence:
                    break
            else:
                self._hold(sequence, needed)
        return self.preemptions > before

    def _preempt(self, sequence: ScheduledSequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._hold(sequence, 0)
        sequence.computed, sequence.redo, sequence.decodes = 0, sequence.made, False
        self.waiting.appendleft(sequence)

    def _hold(self, sequence: ScheduledSequence, blocks: int) -> None:
        self._reserved += blocks - sequence.held_blocks
        sequence.held_blocks = blocks
        sequence.room = blocks * BLOCK_TOKENS
        self.cache.shrink(self.total_blocks - self._reserved)

    def _release(self, sequence: ScheduledSequence) -> None:
        sequence.left = True
        self.running.remove(sequence)
        self._hold(sequence, 0)

    def _work(self) -> StepWork:
        tokens = context = pairs = decoding = sampled = 0
        for sequence, new in self._chunks:
            length = sequence.computed + sequence.made - sequence.redo
            tokens += new
            context += length
            pairs += new * length + new * (new + 1) // 2
            decoding += sequence.decodes
            sampled += sequence.decodes or sequence.computed + new >= sequence.to_compute
        return StepWork(tokens, context, pairs, decoding, sampled)
