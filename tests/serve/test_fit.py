"""The emulator's times against published ones of vLLM: what was fitted, and what was not."""

from __future__ import annotations

import pytest
import yaml

from serve.__main__ import main
from serve.batch import play_batch
from serve.catalogue import load_catalogue
from serve.efficiency import load_efficiency, read_efficiency
from serve.emulator.machines import RooflineMachine, StepWork
from serve.fit import (
    HELD_OUT,
    PublishedBatch,
    by_gpu,
    errors_of,
    fit_efficiency,
    held_out_errors,
    read_published,
    time_errors,
)

CATALOGUE = load_catalogue()
STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")


@pytest.fixture(scope="module")
def points() -> list[PublishedBatch]:
    return read_published(CATALOGUE)


def test_the_kept_numbers_are_those_that_the_command_fits(points: list[PublishedBatch]) -> None:
    found, kept = fit_efficiency(points), load_efficiency()
    assert found.step.model_dump() == pytest.approx(kept.step.model_dump(), rel=0.01)
    assert found.power.model_dump() == pytest.approx(kept.power.model_dump(), rel=0.01)
    assert set(kept.time_errors) == set(kept.power_errors) == {"a100-40gb", "h100-80gb"}


def test_what_was_fitted_is_within_2_percent_in_the_median_on_each_gpu(points: list[PublishedBatch]) -> None:
    for errors in by_gpu(time_errors(points, load_efficiency().step)).values():
        assert errors.median < 0.02
        assert errors.worst < 0.12


@pytest.mark.parametrize("of", HELD_OUT)
def test_what_was_not_fitted_is_within_5_percent_and_nine_in_ten_within_15(
    points: list[PublishedBatch], of: str
) -> None:
    """Also one GPU from the points of the other alone."""
    times, powers = held_out_errors(points, HELD_OUT[of])
    assert len(times) == len(points)
    # Without 1,024 tokens there is no power to fit to.
    for errors in (times, powers) if of != "length" else (times,):
        assert errors_of(errors.values()).median < 0.05
        assert errors_of(errors.values()).p90 < 0.15


def test_a_gpu_is_predicted_from_the_other_gpus_batches_within_15_percent(
    points: list[PublishedBatch],
) -> None:
    """What a further answer costs is the host's time: it does not shrink on a GPU that multiplies faster."""
    times, _ = held_out_errors(points, HELD_OUT["GPU"])
    for errors in by_gpu(times).values():
        assert errors.median < 0.05
        assert errors.worst < 0.15


def test_batches_that_preempt_are_predicted_from_models_that_do_not(points: list[PublishedBatch]) -> None:
    times, _ = held_out_errors(points, HELD_OUT["model"])
    preempting = [off for point, off in times.items() if point.work.preemptions]
    assert len(preempting) == 3
    assert all(abs(off) < 0.15 for off in preempting)


def test_at_batch_64_models_differ_as_they_were_published_to(points: list[PublishedBatch]) -> None:
    """Llama-2-7B beside Llama-3-8B: as good as equal on short texts, 2.4 times as long on long ones."""
    seconds = {(p.model, p.input_tokens): p for p in points if p.gpu == "a100-40gb" and p.batch == 64}
    step = load_efficiency().step
    for length in (128, 512, 1024):
        two, three = seconds["llama-2-7b", length], seconds["llama-3-8b", length]
        published = two.seconds / three.seconds
        assert two.work.seconds(step) / three.work.seconds(step) == pytest.approx(published, rel=0.06)
    short = [p.work.seconds(step) for (_, length), p in seconds.items() if length == 128]
    assert max(short) / min(short) < 1.1


@pytest.mark.parametrize("gpu", CATALOGUE.gpus)
@pytest.mark.parametrize("model", STUDY)
def test_at_batch_1_no_model_beats_what_the_memory_can_deliver(model: str, gpu: str) -> None:
    machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[gpu])
    work = play_batch(machine, 1, 1, 256)
    assert 256 / work.seconds(load_efficiency().step) < machine.bound_tokens_per_s()


def test_the_output_layer_costs_only_where_a_token_is_sampled() -> None:
    machine = RooflineMachine(CATALOGUE.models["llama-3-8b"], CATALOGUE.gpus["a100-40gb"])
    outputs = 128256 * 4096
    none, one, all_of_them = (machine.operations(StepWork(512, 0, 0, 0, sampled)) for sampled in (0, 1, 512))
    assert one - none == 2 * outputs
    assert all_of_them - none == 512 * 2 * outputs
    read = [machine.bytes_read(StepWork(512, 0, 0, 0, sampled)) for sampled in (0, 1, 512)]
    assert read[1] - read[0] == 2 * outputs
    assert read[2] == read[1]


def test_the_command_prints_every_point_and_writes_a_file_that_can_be_read(tmp_path, capsys) -> None:
    out = tmp_path / "efficiency.yaml"
    assert main(["fit", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.count("a100-40gb") >= 27
    assert "each GPU by the others" in said.out
    assert read_efficiency(out).step.model_dump() == pytest.approx(
        load_efficiency().step.model_dump(), rel=0.01
    )
    assert "LLM-Inference-Bench" in yaml.safe_load(out.read_text())["source"]
