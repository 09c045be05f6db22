"""Continuous batching in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.catalogue import load_catalogue
from serve.emulator.machines import RooflineMachine, StepWork
from serve.emulator.scheduler import (
    BLOCK_TOKENS,
    BatchScheduler,
    PrefixCache,
    ScheduledSequence,
    block_hashes,
)

CATALOGUE = load_catalogue()
STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")


def machine(model: str = "yi-6b", gpu: str = "a100-40gb") -> RooflineMachine:
    return RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[gpu])


def run_to_end(scheduler: BatchScheduler) -> tuple[int, dict[ScheduledSequence, list[int]]]:
    """Virtual end and the moments of each sequence's tokens."""
    now_ns, moments = 0, {}
    while (took_ns := scheduler.begin_step()) is not None:
        now_ns += took_ns
        for sequence in scheduler.end_step():
            moments.setdefault(sequence, []).append(now_ns)
    return now_ns, moments


@pytest.mark.parametrize("gpu", ["a100-40gb", "h100-80gb", "h200-141gb"])
@pytest.mark.parametrize("model", STUDY)
def test_one_stream_never_decodes_faster_than_the_bandwidth_allows(model, gpu):
    scheduler = BatchScheduler(machine(model, gpu), max_seqs=8)
    sequence = ScheduledSequence(prompt_tokens=1, output_tokens=100)
    scheduler.add(sequence)
    _, moments = run_to_end(scheduler)
    times = moments[sequence]
    per_s = (len(times) - 1) / ((times[-1] - times[0]) / 1e9)
    bound = machine(model, gpu).bound_tokens_per_s()
    # vLLM reached 62 to 68 % on an A100 and 51 to 57 % on an H100 (serve/published); what a step costs beside
    # reading weights takes a larger share on a faster GPU.
    assert 0.4 * bound < per_s < 0.75 * bound


def test_a_7b_model_on_an_a100_40_takes_the_13_ms_a_token_that_were_published_of_vllm():
    # Before, 14.27 ms of llama.cpp on an A100-80 were taken for vLLM's, which is faster.
    one = machine("llama-2-7b").step_ns(StepWork(tokens=1, context=192, pairs=192, decoding=1))
    assert one / 1e6 == pytest.approx(1653 / 128, rel=0.03)


def test_an_8b_model_on_an_h200_takes_the_6_5_ms_a_step_that_others_measured():
    eight = machine("llama-3-8b", "h200-141gb").step_ns(
        StepWork(tokens=8, context=8 * 200, pairs=1600, decoding=8, sampled=8)
    )
    assert eight / 1e6 == pytest.approx(6.5, rel=0.08)


def throughput(model: str, batch: int) -> float:
    scheduler = BatchScheduler(machine(model), max_seqs=batch)
    for _ in range(batch):
        scheduler.add(ScheduledSequence(prompt_tokens=100, output_tokens=200))
    end_ns, _ = run_to_end(scheduler)
    return batch * 200 / (end_ns / 1e9)


@pytest.mark.parametrize("model", STUDY)
def test_throughput_grows_with_the_batch_and_flattens(model):
    rates = [throughput(model, batch) for batch in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert rates == sorted(rates)
    gains = [after / before for before, after in pairwise(rates)]
    assert gains[0] > 1.8
    assert gains[-1] < 0.85 * gains[0]
    assert gains[-1] < gains[2]


def test_a_long_prompt_is_computed_in_chunks_while_others_go_on_decoding():
    scheduler = BatchScheduler(machine(), max_seqs=8, max_batched_tokens=256)
    early = ScheduledSequence(prompt_tokens=10, output_tokens=50)
    scheduler.add(early)
    scheduler.begin_step()
    scheduler.end_step()
    late = ScheduledSequence(prompt_tokens=1000, output_tokens=2)
    scheduler.add(late)
    for done in (255, 510, 765):
        scheduler.begin_step()
        assert scheduler.end_step() == [early]
        assert late.computed == done
    scheduler.begin_step()
    assert scheduler.end_step() == [early, late]


def test_those_beyond_the_limit_wait_for_their_turn_in_order():
    scheduler = BatchScheduler(machine(), max_seqs=2)
    all_of_them = [ScheduledSequence(prompt_tokens=10, output_tokens=5) for _ in range(5)]
    for sequence in all_of_them:
        scheduler.add(sequence)
    scheduler.begin_step()
    assert (len(scheduler.running), len(scheduler.waiting)) == (2, 3)
    _, moments = run_to_end(scheduler)
    firsts = [moments.get(sequence, [0])[0] for sequence in all_of_them]
    assert firsts == sorted(firsts)
    assert all(sequence.made == 5 for sequence in all_of_them)


def test_a_request_waits_until_the_cache_has_room_for_it():
    scheduler = BatchScheduler(machine("llama-2-7b"), max_seqs=256)
    tokens = scheduler.total_blocks * BLOCK_TOKENS
    half = tokens // 2
    first, second = (ScheduledSequence(prompt_tokens=half, output_tokens=10) for _ in range(2))
    scheduler.add(first)
    scheduler.add(second)
    while not first.made:
        scheduler.begin_step()
        scheduler.end_step()
    # The first one's prompt no longer fills the steps: only the memory keeps the second out.
    scheduler.begin_step()
    assert list(scheduler.waiting) == [second]
    assert 0.4 < scheduler.kv_usage < 0.6
    scheduler.end_step()
    run_to_end(scheduler)
    assert (first.made, second.made) == (10, 10)
    assert scheduler.kv_usage == 0


def test_the_next_turn_finds_the_whole_earlier_conversation_cached():
    scheduler = BatchScheduler(machine(), max_seqs=4)
    before, reply, after = "a" * 900, "b" * 400, "c" * 300
    first = ScheduledSequence(
        prompt_tokens=225,
        output_tokens=100,
        blocks=block_hashes(before),
        blocks_after=block_hashes(before + reply),
    )
    scheduler.add(first)
    run_to_end(scheduler)
    next_turn = before + reply + after
    second = ScheduledSequence(prompt_tokens=400, output_tokens=5, blocks=block_hashes(next_turn))
    scheduler.add(second)
    run_to_end(scheduler)
    assert first.cached_tokens == 0
    assert second.cached_tokens == 1300 // 64 * 16


def test_an_evicted_prefix_is_computed_again():
    cache = PrefixCache()
    old, new = block_hashes("a" * 640), block_hashes("b" * 640)
    cache.insert(old)
    cache.insert(new)
    cache.shrink(15)
    assert cache.lookup(new, 161) == 160
    assert cache.lookup(old, 161) == 80
    cache.shrink(0)
    assert cache.lookup(new, 161) == 0


@given(st.text("ab", max_size=400), st.text("ab", max_size=400))
def test_a_block_is_known_only_if_all_before_it_are_the_same(one, other):
    cache = PrefixCache()
    cache.insert(block_hashes(one))
    found = cache.lookup(block_hashes(other), 10_000)
    common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    common = min(len(one), len(other)) if common is None else common
    assert found == common // 64 * 16


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 40), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(8, 600),
)
def test_every_sequence_gets_exactly_its_tokens_unless_it_leaves(wanted, max_seqs, budget):
    scheduler = BatchScheduler(machine(), max_seqs, budget)
    sequences = [ScheduledSequence(prompt_tokens=p, output_tokens=o) for p, o, _ in wanted]
    for sequence in sequences:
        scheduler.add(sequence)
    scheduler.begin_step()
    leaving = {s for s, (_, _, leaves) in zip(sequences, wanted, strict=True) if leaves}
    for sequence in leaving:
        scheduler.abort(sequence)
    assert not leaving.intersection(scheduler.end_step())
    while scheduler.begin_step() is not None:
        assert len(scheduler.running) <= max_seqs
        assert sum(tokens for _, tokens in scheduler._chunks) <= max(budget, max_seqs)
        scheduler.end_step()
    assert all(s.made == s.output_tokens for s in sequences if s not in leaving)
    assert (scheduler.running, list(scheduler.waiting), scheduler._reserved) == ([], [], 0)


def test_a_full_cache_sends_the_newest_back_and_computes_it_again():
    scheduler = BatchScheduler(machine(), max_seqs=8)
    scheduler.total_blocks = 8
    first, second = (ScheduledSequence(prompt_tokens=40, output_tokens=60) for _ in range(2))
    scheduler.add(first)
    scheduler.add(second)
    _, moments = run_to_end(scheduler)
    assert (first.made, second.made) == (60, 60)
    assert scheduler.preemptions >= 1
    assert second.redo > 0
    # The older one never stopped; the newer one waited for it and then went on where it was.
    assert moments[first][-1] < moments[second][-1]
    assert first.redo == 0


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60)), min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(10, 30),
)
def test_whatever_is_preempted_every_sequence_gets_its_tokens_and_the_cache_is_never_overfull(
    wanted, max_seqs, blocks
):
    scheduler = BatchScheduler(machine(), max_seqs, 64)
    scheduler.total_blocks = blocks
    sequences = [ScheduledSequence(prompt_tokens=p, output_tokens=o) for p, o in wanted]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.begin_step() is not None:
        assert scheduler._reserved == sum(each.held_blocks for each in scheduler.running) <= blocks
        assert scheduler.kv_usage <= 1
        scheduler.end_step()
    assert all(each.made == each.output_tokens for each in sequences)
    assert (scheduler._reserved, scheduler.running, list(scheduler.waiting)) == (0, [], [])
