"""The study's findings in the emulator, in virtual time: its scheduler, its models' ways of answering."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import mean

import pytest

from serve.catalogue import load_catalogue
from serve.emulator.answers import AnswerDraws
from serve.emulator.machines import FrontEnd, RooflineMachine
from serve.emulator.request import count_tokens
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence

CATALOGUE = load_catalogue()
STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
QUESTIONS = [f"Which of these is number {number}? a) one b) two c) three d) four" for number in range(24)]
CHOOSE = "Answer with the letter only. "
EXPLAIN = "Explain why the right answer is right. "


@dataclass(frozen=True)
class Outcome:
    """All questions of one task: tokens per second of generating time, and seconds to an answer."""

    tps: float
    ttg_s: float


def play(model: str, instruction: str, batch: int) -> Outcome:
    """Every question once, `batch` of them at a time; each waits for the front end too."""
    machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus["a100-40gb"])
    talk, scheduler = AnswerDraws(model, 0), BatchScheduler(machine, batch)
    for question in QUESTIONS:
        prompt = instruction + question
        tokens = talk.draw(prompt, prompt).tokens + 1
        scheduler.add(ScheduledSequence(prompt_tokens=count_tokens(prompt), output_tokens=tokens))
    now_ns, begun, took = 0, {}, []
    while (step_ns := scheduler.begin_step()) is not None:
        for sequence in scheduler.running:
            begun.setdefault(sequence, now_ns)
        now_ns += step_ns
        took += [
            (each.output_tokens, (now_ns - begun[each] + FrontEnd().request_ns) / 1e9)
            for each in scheduler.end_step()
            if each.made == each.output_tokens
        ]
    assert len(took) == len(QUESTIONS)
    return Outcome(sum(n for n, _ in took) / sum(s for _, s in took), mean(s for _, s in took))


@pytest.mark.parametrize("batch", [1, 8])
def test_in_choose_the_order_by_tokens_per_second_is_not_the_order_of_finishing(batch):
    found = {model: play(model, CHOOSE, batch) for model in STUDY}
    terse, wordy = ("llama-3-8b", "yi-6b"), ("llama-2-7b", "mistral-7b")
    assert set(sorted(STUDY, key=lambda model: found[model].ttg_s)[:2]) == set(terse)
    for one, other in product(terse, wordy):
        assert found[one].tps < found[other].tps


def test_in_explain_the_one_that_finishes_first_is_not_the_one_with_most_tokens_per_second():
    found = {model: play(model, EXPLAIN, 1) for model in STUDY}
    assert min(STUDY, key=lambda model: found[model].ttg_s) == "gemma-7b"
    assert min(STUDY, key=lambda model: found[model].tps) == "gemma-7b"
    assert found["llama-2-7b"].tps > found["gemma-7b"].tps
    assert found["llama-2-7b"].ttg_s == max(each.ttg_s for each in found.values())


@pytest.mark.parametrize("model", STUDY)
def test_at_batch_1_no_model_beats_its_bandwidth_bound(model):
    bound = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus["a100-40gb"]).bound_tokens_per_s()
    assert play(model, EXPLAIN, 1).tps < bound


@pytest.mark.parametrize("model", STUDY)
def test_throughput_gains_steeply_to_batch_8_and_flattens_by_64(model):
    machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus["a100-40gb"])

    def tokens_per_s(batch: int) -> float:
        scheduler, end_ns = BatchScheduler(machine, batch), 0
        for _ in range(batch):
            scheduler.add(ScheduledSequence(prompt_tokens=100, output_tokens=256))
        while (step_ns := scheduler.begin_step()) is not None:
            end_ns += step_ns
            scheduler.end_step()
        return batch * 256 / (end_ns / 1e9)

    rates = {batch: tokens_per_s(batch) for batch in (1, 2, 4, 8, 16, 32, 64, 128)}
    assert rates[8] / rates[1] > 6
    assert rates[128] / rates[64] < 0.9 * rates[2] / rates[1]
