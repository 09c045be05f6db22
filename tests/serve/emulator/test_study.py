"""The study's findings in the emulator, in virtual time: its scheduler, its models' ways of answering."""

from __future__ import annotations

import pytest

from benchmarks.study import ASSUMED, CATALOGUE, FINDINGS, STUDY, EmulatedStudy, gain
from serve.emulator.machines import RooflineMachine

EMULATED = EmulatedStudy(24)
ALIKE = EmulatedStudy(24, next(each for each in ASSUMED if not each.own_lengths))


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_of_the_study_holds_in_the_emulator(finding: str) -> None:
    assert FINDINGS[finding](EMULATED)


def test_what_hangs_on_the_assumed_lengths_goes_with_them() -> None:
    """With the same lengths for all models both orders are those of the times."""
    assert not FINDINGS["explain: gemma-7b finishes first"](ALIKE)
    for task in ("paraphrase", "explain"):
        assert (
            ALIKE.by_tps(task)
            == ALIKE.by_time(task)
            == ["yi-6b", "llama-2-7b", "mistral-7b", "llama-3-8b", "gemma-7b"]
        )


@pytest.mark.parametrize("model", STUDY)
def test_at_batch_1_no_model_beats_its_bandwidth_bound(model: str) -> None:
    bound = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus["a100-40gb"]).bound_tokens_per_s()
    assert EMULATED.outcomes("explain")[model].tps < bound


@pytest.mark.parametrize("model", STUDY)
def test_throughput_gains_steeply_to_batch_8_and_flattens_by_64(model: str) -> None:
    assert gain(model, 1, 8) > 6
    assert gain(model, 64, 128) < 0.9 * gain(model, 1, 2)
