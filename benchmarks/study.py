"""The study in the emulator, in virtual time: do its findings hold, and on what do they hang?

    python -m benchmarks.study [--questions 660]

Five models on an A100 40 GB by the emulator's scheduler, its times and its answer lengths, on the study's
questions. Then each finding again with other assumptions: less time for HTTP and the tokenizer, and the same
lengths for all models. A finding that only stands in the first column hangs on what was assumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from statistics import mean

import scenarios
from serve.batch import play_batch
from serve.catalogue import load_catalogue
from serve.efficiency import load_efficiency
from serve.emulator.answers import AnswerDraws
from serve.emulator.machines import FrontEnd, RooflineMachine
from serve.emulator.request import count_tokens
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence
from serve.fit import read_published

STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
TASKS = ("choose", "paraphrase", "explain")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
GPU = "a100-40gb"
ALIKE = "a model of no name"
"""The emulator gives it its default lengths, by a draw that depends on the question alone."""

CATALOGUE = load_catalogue()


@dataclass(frozen=True)
class Assumed:
    """What the emulated study takes for granted."""

    name: str
    own_lengths: bool = True
    """Each model answers at its assumed length; else all have the same ones."""
    request_ms: float = FrontEnd().request_ns / 1e6


ASSUMED = (
    Assumed("as emulated"),
    Assumed("10 ms HTTP", request_ms=10),
    Assumed("no HTTP", request_ms=0),
    Assumed("same lengths", own_lengths=False),
    Assumed("same, no HTTP", own_lengths=False, request_ms=0),
)


@dataclass(frozen=True)
class Outcome:
    """All questions of one task: tokens per second of generating time, and seconds to an answer."""

    tps: float
    ttg_s: float


@dataclass(frozen=True)
class EmulatedStudy:
    """The study with these questions and assumptions."""

    questions: int
    assumed: Assumed = ASSUMED[0]

    def play(self, model: str, task: str, batch: int) -> Outcome:
        """Every question once, `batch` of them at a time; each waits for the front end too."""
        machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[GPU])
        draws = AnswerDraws(model if self.assumed.own_lengths else ALIKE, 0)
        scheduler = BatchScheduler(machine, batch)
        for prompt, most in prompts(task, self.questions):
            tokens = min(draws.draw(prompt, prompt).tokens + 1, most)
            scheduler.add(ScheduledSequence(prompt_tokens=count_tokens(prompt), output_tokens=tokens))
        now_ns = 0
        begun: dict[ScheduledSequence, int] = {}
        took: list[tuple[int, float]] = []
        while (step_ns := scheduler.begin_step()) is not None:
            for sequence in scheduler.running:
                begun.setdefault(sequence, now_ns)
            now_ns += step_ns
            took += [
                (each.output_tokens, (now_ns - begun[each]) / 1e9 + self.assumed.request_ms / 1e3)
                for each in scheduler.end_step()
                if each.made == each.output_tokens
            ]
        assert len(took) == self.questions
        return Outcome(sum(n for n, _ in took) / sum(s for _, s in took), mean(s for _, s in took))

    def outcomes(self, task: str, batch: int = 1) -> dict[str, Outcome]:
        """Of all five models."""
        return _outcomes(self, task, batch)

    def by_tps(self, task: str, batch: int = 1) -> list[str]:
        """The models, the most tokens per second first."""
        found = self.outcomes(task, batch)
        return sorted(found, key=lambda model: -found[model].tps)

    def by_time(self, task: str, batch: int = 1) -> list[str]:
        """The models, the first to finish first."""
        found = self.outcomes(task, batch)
        return sorted(found, key=lambda model: found[model].ttg_s)


@cache
def _outcomes(study: EmulatedStudy, task: str, batch: int) -> dict[str, Outcome]:
    return {model: study.play(model, task, batch) for model in STUDY}


@cache
def prompts(task: str, questions: int) -> list[tuple[str, int]]:
    """The task's first questions, and how long an answer may be."""
    scenario = scenarios.load(task)
    turns = [scenarios.plan(scenario, 0, k).turns[0] for k in range(questions)]
    return [(turn.user, turn.max_tokens) for turn in turns]


def agreement(one: list[str], other: list[str]) -> float:
    """Kendall's tau of two orders without ties."""
    pairs = [(a, b) for place, a in enumerate(one) for b in one[place + 1 :]]
    return mean(1 if other.index(a) < other.index(b) else -1 for a, b in pairs)


def gain(model: str, low: int, high: int) -> float:
    """How many times as many tokens per second at the higher batch: 100 tokens in, 256 out."""
    rates = []
    for batch in (low, high):
        machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[GPU])
        rates.append(batch / play_batch(machine, batch, 100, 256).seconds(load_efficiency().step))
    return rates[1] / rates[0]


def _terse_first(study: EmulatedStudy) -> bool:
    terse = {"llama-3-8b", "yi-6b"}
    return set(study.by_time("choose")[:2]) == terse and set(study.by_tps("choose")[-2:]) == terse


def _orders_agree_in_paraphrase(study: EmulatedStudy) -> bool:
    tau = {task: agreement(study.by_tps(task), study.by_time(task)) for task in TASKS}
    return tau["paraphrase"] > max(tau["choose"], tau["explain"])


def _wordy_last(study: EmulatedStudy) -> bool:
    fast = study.by_tps("explain")[:2]
    return "llama-2-7b" in fast and study.by_time("explain")[-1] == "llama-2-7b"


def _stable_order(study: EmulatedStudy) -> bool:
    return all(agreement(study.by_tps(task, 8), study.by_tps(task, 64)) >= 0.6 for task in TASKS)


FINDINGS: dict[str, Callable[[EmulatedStudy], bool]] = {
    "choose: llama-3-8b, yi-6b slowest by tokens/s, first to finish": _terse_first,
    "choose: gemma-7b finishes last": lambda study: study.by_time("choose")[-1] == "gemma-7b",
    "paraphrase: both orders agree better than elsewhere": _orders_agree_in_paraphrase,
    "explain: llama-2-7b among the two fastest, last to finish": _wordy_last,
    "explain: gemma-7b finishes first": lambda study: study.by_time("explain")[0] == "gemma-7b",
    "order by tokens/s stays mostly the same from batch 8 to 64": _stable_order,
    "batching: over 6 times from 1 to 8, under 1.7 from 64 to 128": lambda _: all(
        gain(model, 1, 8) > 6 and gain(model, 64, 128) < 1.7 for model in STUDY
    ),
}


def _bounds() -> Iterable[str]:
    yield f"{'batch 1, 256 tokens':<22} {'tokens/s':>9} {'bound':>7} {'share':>6}"
    for model in STUDY:
        machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[GPU])
        tps, bound = (
            256 / play_batch(machine, 1, 100, 256).seconds(load_efficiency().step),
            machine.bound_tokens_per_s(),
        )
        yield f"{model:<22} {tps:>9.0f} {bound:>7.0f} {tps / bound:>6.0%}"


def _batch_64() -> Iterable[str]:
    step = load_efficiency().step
    points = [p for p in read_published(CATALOGUE) if p.gpu == GPU and p.batch == 64]
    for length in (128, 512, 1024):
        mine = [p for p in points if p.input_tokens == length]
        for name, seconds in (
            ("published", [p.seconds for p in mine]),
            ("emulated", [p.work.seconds(step) for p in mine]),
        ):
            cells = "  ".join(f"{p.model} {s:6.2f} s" for p, s in zip(mine, seconds, strict=True))
            apart = max(seconds) / min(seconds) - 1
            yield f"batch 64, {length:>4} in and out, {name:<9} {cells}  {apart:>4.0%} apart"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=660, help="of each task (default 660)")
    questions = parser.parse_args().questions
    print("EMULATED\n")
    print("\n".join(_bounds()), end="\n\n")
    print("\n".join(_batch_64()), end="\n\n")
    for assumed in (ASSUMED[0], ASSUMED[3]):
        study = EmulatedStudy(questions, assumed)
        for task in TASKS:
            found = study.outcomes(task)
            tau = agreement(study.by_tps(task), study.by_time(task))
            print(f"{assumed.name}, {task}, one at a time (tau of both orders {tau:+.1f}):")
            print("  tokens/s: " + ", ".join(f"{m} {found[m].tps:.0f}" for m in study.by_tps(task)))
            print("  seconds:  " + ", ".join(f"{m} {found[m].ttg_s:.2f}" for m in study.by_time(task)))
    width = max(map(len, FINDINGS))
    print(f"\n{'finding':<{width}}" + "".join(f" {assumed.name:>13}" for assumed in ASSUMED))
    for words, holds in FINDINGS.items():
        answers = [holds(EmulatedStudy(questions, assumed)) for assumed in ASSUMED]
        print(f"{words:<{width}}" + "".join(f" {'holds' if answer else 'no':>13}" for answer in answers))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
