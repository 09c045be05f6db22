"""`python -m serve fit`: one set of step costs and power levels for all GPUs, from published measurements.

Each published batch is played through the emulator's own scheduler (`serve.batch`); its time is then a sum of
four amounts, each with its cost. One of them is given, the share of the FP16 rate: a batch has about as many
operations as answers under way, so that points of one GPU cannot tell their costs apart, but the next GPU
multiplies faster and its host does not. The other three minimise the logarithm of predicted over published
seconds, with a soft L1 loss, so that one odd point does not carry the fit. To say how well points are
predicted that were not fitted, the fit is repeated without each model, each GPU, each batch size and each
length, and judged on what it lacks.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from serve.batch import BatchWork, play_batch
from serve.catalogue import Catalogue
from serve.efficiency import Efficiency, ErrorsOf, PowerLevels, StepCosts, write_efficiency
from serve.emulator.machines import RooflineMachine
from turnbench import exits

PUBLISHED = Path(__file__).resolve().with_name("published")
SOURCE = "LLM-Inference-Bench (arXiv 2411.00136): vLLM, FP16, one GPU, all requests of a batch at once"
IDLE_SHARE = 0.125
"""Of the power limit; 50 W of an A100's 400 with nothing to do."""
WAITING_SHARE = 0.5
"""Of a step's constant, in which the GPU waits for its host; in the rest it runs kernels too small to fill
it. Nothing published tells them apart, so each is taken for one half."""
COMPUTE_SHARE = 0.8
"""Of the peak FP16 rate, what large matrix products reach: 780 of 989 TFLOP/s on an H100 (H. He, "H100 peak
matmul FLOPS", gist.github.com/Chillee/2ec89696db8b7ed1c24461159e325405)."""
START = np.array([0.8, 2000.0, 50.0])
"""Where the search begins: share of the bandwidth, us a step, us an answer."""
ODD = 0.05
"""Relative error from which a point counts as odd rather than as a little off."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """One published measurement, and what the emulator has to do for the same batch."""

    gpu: str
    model: str
    batch: int
    input_tokens: int
    output_tokens: int
    seconds: float
    power_share: float | None
    """Mean power over the GPU's limit; None where only the time is known."""
    work: BatchWork


def read_published(catalogue: Catalogue, folder: Path = PUBLISHED) -> list[PublishedBatch]:
    """All points of both files, each batch once."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for name in ("vllm.csv", "power.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key = tuple(row[each] for each in ("gpu", "model", "batch", "input_tokens", "output_tokens"))
                found[key] = row | found.get(key, {})
    return [_published(catalogue, row) for row in found.values()]


def _published(catalogue: Catalogue, row: dict[str, str]) -> PublishedBatch:
    gpu, model = catalogue.gpus[row["gpu"]], catalogue.models[row["model"]]
    batch, tokens_in, tokens_out = (int(row[key]) for key in ("batch", "input_tokens", "output_tokens"))
    power_w = row.get("mean_power_w")
    return PublishedBatch(
        gpu.name,
        model.name,
        batch,
        tokens_in,
        tokens_out,
        float(row["seconds"]),
        float(power_w) / gpu.power_w if power_w else None,
        play_batch(RooflineMachine(model, gpu), batch, tokens_in, tokens_out),
    )


def fit_step(points: list[PublishedBatch]) -> StepCosts:
    """The costs that predict these points' seconds best."""

    def off(costs: Array) -> list[float]:
        step = _costs(costs)
        return [np.log(point.work.seconds(step) / point.seconds) for point in points]

    found = least_squares(
        off,
        START,
        x_scale=START,
        bounds=([0.01, 0, 0], [1, np.inf, np.inf]),
        loss="soft_l1",
        f_scale=ODD,
    )
    return _costs(
        np.array([round(float(value), figures) for value, figures in zip(found.x, (4, 1, 2), strict=True)])
    )


def _costs(values: Array) -> StepCosts:
    bandwidth, overhead_us, sequence_us = map(float, values)
    return StepCosts(
        bandwidth_share=bandwidth,
        compute_share=COMPUTE_SHARE,
        overhead_us=overhead_us,
        sequence_us=sequence_us,
    )


def fit_power(points: list[PublishedBatch], step: StepCosts) -> PowerLevels:
    """The level of reading that predicts these points' power best: least squares of relative errors."""
    shares = np.array([point.power_share for point in points], float)
    working, constant = np.array([point.work.times_of_power(step) for point in points]).T
    waiting = WAITING_SHARE * constant
    given = (working + IDLE_SHARE * waiting) / shares
    reading = (1 - working - waiting) / shares
    return PowerLevels(
        idle=IDLE_SHARE,
        reading=round(float(reading @ (1 - given) / (reading @ reading)), 4),
        waiting=WAITING_SHARE,
    )


Errors = dict[PublishedBatch, float]
"""Predicted over published, less one."""


def time_errors(points: list[PublishedBatch], step: StepCosts) -> Errors:
    return {point: point.work.seconds(step) / point.seconds - 1 for point in points}


def power_errors(points: list[PublishedBatch], step: StepCosts, power: PowerLevels) -> Errors:
    return {
        point: power.of_limit(*point.work.times_of_power(step)) / point.power_share - 1
        for point in points
        if point.power_share
    }


HELD_OUT: dict[str, Callable[[PublishedBatch], object]] = {
    "model": lambda point: point.model,
    "batch size": lambda point: point.batch,
    "length": lambda point: point.input_tokens,
    "GPU": lambda point: point.gpu,
}
"""What a fit is made without, one value after the other."""


def held_out_errors(
    points: list[PublishedBatch], of: Callable[[PublishedBatch], object]
) -> tuple[Errors, Errors]:
    """Errors of time and of power of each point, by a fit without all that share its value."""
    times: Errors = {}
    powers: Errors = {}
    for value in sorted({of(point) for point in points}, key=str):
        unseen = [point for point in points if of(point) == value]
        seen = [point for point in points if of(point) != value]
        step = fit_step(seen)
        times |= time_errors(unseen, step)
        if with_power := [point for point in seen if point.power_share]:
            powers |= power_errors(unseen, step, fit_power(with_power, step))
    return times, powers


def errors_of(errors: Iterable[float]) -> ErrorsOf:
    """Median, 90th percentile and worst of the errors' sizes."""
    sizes = np.abs(np.array(list(errors)))
    median, p90 = np.quantile(sizes, [0.5, 0.9])
    return ErrorsOf(
        points=len(sizes),
        median=round(float(median), 4),
        p90=round(float(p90), 4),
        worst=round(float(sizes.max()), 4),
    )


def by_gpu(errors: Errors) -> dict[str, ErrorsOf]:
    gpus = sorted({point.gpu for point in errors})
    return {gpu: errors_of(off for point, off in errors.items() if point.gpu == gpu) for gpu in gpus}


def fit_efficiency(points: list[PublishedBatch]) -> Efficiency:
    """The numbers that fit all of these points best, with what is left over on each GPU."""
    with_power = [point for point in points if point.power_share]
    step = fit_step(points)
    power = fit_power(with_power, step)
    return Efficiency(
        source=SOURCE,
        step=step,
        power=power,
        time_errors=by_gpu(time_errors(points, step)),
        power_errors=by_gpu(power_errors(with_power, step, power)),
    )


def fit(options: argparse.Namespace, catalogue: Catalogue, say: Callable[[str], None]) -> int:
    """Fit, print what it comes to and how well it predicts, write the file if asked to."""
    points = read_published(catalogue)
    found = fit_efficiency(points)
    print(report(points, found))
    if options.out:
        write_efficiency(found, Path(options.out))
        say(f"{options.out} is written")
    return exits.OK


def report(points: list[PublishedBatch], found: Efficiency) -> str:
    """Each published point beside its prediction, then the errors of fitted and of held-out points."""
    fitted = time_errors(points, found.step)
    step, power = found.step, found.power
    lines = [
        f"{'GPU':<10} {'model':<11} {'batch':>5} {'in':>5} {'out':>5} "
        f"{'published':>10} {'predicted':>10} {'error':>7}"
    ]
    lines += [
        f"{p.gpu:<10} {p.model:<11} {p.batch:>5} {p.input_tokens:>5} {p.output_tokens:>5} "
        f"{p.seconds:>8.2f} s "
        f"{p.work.seconds(step):>8.2f} s {off:>+7.1%}" + (" preempts" if p.work.preemptions else "")
        for p, off in fitted.items()
    ]
    lines += [
        "",
        f"step: {step.bandwidth_share:.1%} of the bandwidth, {step.compute_share:.1%} of the FP16 rate "
        f"(given), {step.overhead_us / 1e3:.2f} ms each, {step.sequence_us:.0f} us for each answer",
        f"power, of the limit: {power.reading:.1%} reading weights, 100% (given) reading keys and values or "
        f"multiplying, {power.idle:.1%} (given) idle and for {power.waiting:.0%} (given) of each constant",
        "",
        f"{'errors: seconds of a batch':<38} {'points':>6} {'median':>7} {'p90':>7} {'worst':>7}",
        *_rows("fitted to all", fitted),
    ]
    held_out = {name: held_out_errors(points, of) for name, of in HELD_OUT.items()}
    for name, (times, _) in held_out.items():
        lines += _rows(f"each {name} by the others", times)
    preempting = {point: off for point, off in held_out["model"][0].items() if point.work.preemptions}
    lines += _rows("preempting, each model by the others", preempting)
    lines += ["", f"{'errors: mean power':<38} {'points':>6} {'median':>7} {'p90':>7} {'worst':>7}"]
    lines += _rows("fitted to all", power_errors(points, step, power))
    for name in ("model", "batch size", "GPU"):
        lines += _rows(f"each {name} by the others", held_out[name][1])
    return "\n".join(lines)


def _rows(what: str, errors: Errors) -> list[str]:
    found = {"all": errors_of(errors.values())} | by_gpu(errors)
    row = "{:<38} {:>6} {:>7.1%} {:>7.1%} {:>7.1%}".format
    first = [row(what, *found.pop("all").model_dump().values())]
    return first + [row(f"  {gpu}", *each.model_dump().values()) for gpu, each in found.items()]
