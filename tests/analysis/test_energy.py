"""Joules and cost of a level, from a made record of power with a known integral."""

from __future__ import annotations

import json
import math

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import START_NS, MadeRun, S, level, summary_of, turn
from turnbench.formats.server import GpuSample
from turnbench.gpu_metrics import gpu_samples, joules_at

PAGE = """
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-1",modelName="NVIDIA A100"} 300.5
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-1"} 1410
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-1"} 1024
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1"} 60
DCGM_FI_DEV_POWER_USAGE{UUID="GPU-2",gpu="1"} nan
DCGM_FI_DEV_POWER_USAGE{gpu="2"} 100
"""


def power_w(at_s: float) -> float:
    return 250 + 100 * math.sin(at_s / 3)


def integral_j(start_s: float, end_s: float) -> float:
    return 250 * (end_s - start_s) - 300 * (math.cos(end_s / 3) - math.cos(start_s / 3))


def sampled(start_s: float, end_s: float, gpu: str = "0", offset_s: float = 0.37) -> list[GpuSample]:
    count = int(end_s - start_s)
    at = [start_s + offset_s + n for n in range(count)]
    return [GpuSample(t_ns=START_NS + round(s * S), gpu=gpu, power_w=power_w(s)) for s in at]


def test_a_dcgm_page_gives_a_sample_for_each_gpu_with_a_power() -> None:
    first, last = gpu_samples(PAGE, 5)
    assert first == GpuSample(
        t_ns=5, gpu="0", power_w=300.5, clock_mhz=1410, memory_used_bytes=2**30, temperature_c=60
    )
    assert (last.gpu, last.power_w, last.clock_mhz) == ("2", 100, None)
    assert gpu_samples("<html>" * 100, 5) == []


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_varying_power_is_integrated_within_1_percent(gpus: int) -> None:
    samples = [each for gpu in range(gpus) for each in sampled(0, 60, str(gpu))]
    edges = [START_NS + round(s * S) for s in (10, 20.5, 33)]
    found = joules_at(samples, edges)
    assert found is not None
    assert found[0] == 0
    for joules, end_s in zip(found[1:], (20.5, 33), strict=True):
        assert joules == pytest.approx(gpus * integral_j(10, end_s), rel=0.01)


def test_over_a_gap_and_outside_of_what_was_sampled_nothing_is_claimed() -> None:
    edges = [START_NS + 10 * S, START_NS + 40 * S]
    assert joules_at([], edges) is None
    assert joules_at(sampled(0, 20) + sampled(27, 60), edges) is None
    assert joules_at(sampled(0, 30), edges) is None
    assert joules_at(sampled(17, 60), edges) is None
    assert joules_at(sampled(11, 40), edges) is not None


def test_a_level_has_its_joules_and_its_cost_for_each_answer_and_token(made: MadeRun) -> None:
    made.manifest["levels"] = [level()]
    made.manifest["settings"] = {"gpu_price": 3.6}
    made.turns = [turn(n, sent_s=5 + n, ttft_ms=500, gap_ms=50, events=11) for n in range(40)]
    path = made.write()
    window = json.loads((path / "run.json").read_text())["levels"][0]
    start_s, end_s = ((window[key] - START_NS) / S for key in ("window_start_ns", "window_end_ns"))
    lines = [json.dumps({"t_ns": s.t_ns, "gpu": s.gpu, "power_w": s.power_w}) for s in sampled(0, 80)]
    (path / "gpu.jsonl").write_text("\n".join([*lines, "[]", '{"torn']))
    found = summary_of(made)["levels"][0]["energy"]
    assert found["joules"] == pytest.approx(integral_j(start_s, end_s), rel=0.01)
    # A turn a second, each a second long: as many answers as the window has seconds in which turns were sent.
    played_s = min(end_s, 45) - start_s
    assert found["answers"] == pytest.approx(played_s, rel=0.02)
    assert found["joules_per_answer"] == pytest.approx(found["joules"] / found["answers"])
    low, high = found["joules_per_answer_ci95"]
    assert low <= found["joules_per_answer"] <= high
    assert found["joules_per_1000_tokens"] == pytest.approx(
        1000 * found["joules"] / (11 * played_s), rel=0.02
    )
    # 3.6 an hour is a thousandth a second.
    cost = 0.001 * (end_s - start_s)
    assert found["cost_per_1000_answers"] == pytest.approx(1000 * cost / found["answers"])
    assert found["cost_per_million_tokens"] == pytest.approx(1e6 * cost / found["tokens"])


def test_the_report_has_a_table_of_it(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    path = made.write()
    (path / "gpu.jsonl").write_text(
        "\n".join(json.dumps({"t_ns": s.t_ns, "gpu": s.gpu, "power_w": s.power_w}) for s in sampled(0, 80))
    )
    main([str(path)])
    page = (path / "report.html").read_text()
    assert "Energy and cost" in page
    assert "J per answer" in page


def test_without_power_or_price_there_is_no_energy(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(10)]
    assert summary_of(made)["levels"][0]["energy"] is None
