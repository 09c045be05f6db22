"""A GPU that NVML speaks for, offered as a DCGM exporter's page."""

from __future__ import annotations

import math
import sys
import threading
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest

from serve.__main__ import main
from serve.gpu_metrics import exporter, nvml_samples
from turnbench.gpu_metrics import gpu_samples, joules_at, page_of


class MadeNvml(SimpleNamespace):
    """Two GPUs; the second one says nothing but its power."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return (250_500, 80_000)[gpu]

    def _first_only(self, gpu: int, value: Any) -> Any:
        if gpu:
            raise self.NVMLError("not supported")
        return value

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return self._first_only(gpu, SimpleNamespace(used=20 * 2**30))

    def nvmlDeviceGetClockInfo(self, gpu: int, _kind: int) -> Any:
        return self._first_only(gpu, 1410)

    def nvmlDeviceGetTemperature(self, gpu: int, _kind: int) -> Any:
        return self._first_only(gpu, 61)


def test_what_nvml_says_comes_through_the_page_unchanged() -> None:
    nvml = MadeNvml(broken=False)
    with exporter(nvml, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/metrics") as answer:
            page = answer.read().decode()
        server.shutdown()
    first, second = gpu_samples(page, 7)
    assert (first.t_ns, first.gpu, first.power_w, first.clock_mhz) == (7, "0", 250.5, 1410)
    assert (first.memory_used_bytes, first.temperature_c) == (20 * 2**30, 61)
    assert (second.power_w, second.clock_mhz, second.memory_used_bytes) == (80, None, None)
    assert [each.power_w for each in nvml_samples(nvml)] == [250.5, 80]


def test_the_energy_of_what_nvml_said_each_second_is_right_within_1_percent() -> None:
    """Two GPUs: one whose power swings, which NVML gives in whole milliwatts, and one of 80 W."""

    def swing_w(at_s: float) -> float:
        return 300 + 120 * math.sin(at_s / 4)

    nvml, samples = MadeNvml(broken=False), []
    for second in range(62):
        at_s = second + 0.2
        nvml.nvmlDeviceGetPowerUsage = lambda gpu, now_s=at_s: 80_000 if gpu else round(1e3 * swing_w(now_s))
        samples += gpu_samples(page_of(nvml_samples(nvml)), round(1e9 * at_s))
    begin_s, end_s = 3.7, 58.1
    found = joules_at(samples, [round(1e9 * begin_s), round(1e9 * end_s)])
    swung_j = 300 * (end_s - begin_s) - 480 * (math.cos(end_s / 4) - math.cos(begin_s / 4))
    assert found is not None
    assert found[1] == pytest.approx(swung_j + 80 * (end_s - begin_s), rel=0.01)


@pytest.mark.parametrize(
    ("module", "says"), [(None, "pip install nvidia-ml-py"), (MadeNvml(broken=True), "no driver")]
)
def test_without_a_gpu_it_says_what_to_do(
    module: Any, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert main(["gpu-metrics", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
