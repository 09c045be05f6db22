"""The emulated GPU's power: what a batch draws on average is what `serve predict` says of it."""

from __future__ import annotations

from statistics import mean

import pytest

from serve.batch import play_batch
from serve.catalogue import load_catalogue
from serve.efficiency import load_efficiency
from serve.emulator.machines import RooflineMachine
from serve.emulator.power import PowerMeter
from serve.emulator.scheduler import BatchScheduler, ScheduledSequence, batch_limits
from turnbench.gpu_metrics import gpu_samples

CATALOGUE = load_catalogue()


@pytest.mark.parametrize(("gpu", "requests"), [("a100-40gb", 1), ("h100-80gb", 64)])
def test_asked_once_a_second_a_batch_draws_its_predicted_power(gpu: str, requests: int) -> None:
    machine, now_ns = RooflineMachine(CATALOGUE.models["llama-3-8b"], CATALOGUE.gpus[gpu]), 0
    meter = PowerMeter(machine, lambda: now_ns)
    scheduler = BatchScheduler(meter, *batch_limits(machine.gpu))
    for _ in range(requests):
        scheduler.add(ScheduledSequence(1024, 1024))
    samples_w, next_ns = [], 10**9
    while (step_ns := scheduler.begin_step()) is not None:
        now_ns += step_ns
        scheduler.end_step()
        if now_ns >= next_ns:
            samples_w.append(meter.mean_power_w())
            next_ns += 10**9
    batch = play_batch(machine, requests, 1024, 1024)
    assert now_ns / 1e9 == pytest.approx(batch.seconds(load_efficiency().step), rel=0.001)
    predicted_w = batch.mean_power_w(machine.gpu, load_efficiency())
    assert mean(samples_w) == pytest.approx(predicted_w, rel=0.02)
    now_ns += 2 * 10**9
    assert meter.mean_power_w() == pytest.approx(0.125 * machine.gpu.power_w)


def test_the_page_of_an_emulator_gives_power_as_an_exporter_does(start_emulator, make_chat) -> None:
    emulator = start_emulator("--model", "yi-6b", "--hardware", "h200-141gb")  # nobody has asked it yet

    def power_w() -> float:
        (sample,) = gpu_samples(emulator.get("/metrics").body.decode(), 0)
        return sample.power_w

    idle_w = power_w()
    emulator.ask(body=make_chat("Explain the tides.", max_tokens=60, ignore_eos=True))
    assert power_w() > 1.5 * idle_w
