"""A made DCGM exporter beside an emulator: its power is in the run, and its joules are right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from analysis.summary import summarise
from analysis.turns.study import study_run
from turnbench.run_directory import read_run

START_S = time.time()


def power_w(at_s: float) -> float:
    """A power that rises evenly with the time."""
    return 200 + 15 * (at_s - START_S)


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        power = power_w(time.time())
        page = f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-1"}} {power:.3f}\n'
        page += 'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1"} 55\n'
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.slow
def test_what_an_exporter_says_is_recorded_and_integrated_within_1_percent(
    server: Callable[..., Any], headless: Callable[..., Any]
) -> None:
    at = server()
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as exporter:
        threading.Thread(target=exporter.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{exporter.server_address[1]}"
        load = headless(
            at, "--levels", "2", "--hold", "4s", "--warmup", "1s", "--gpu-metrics", url, "--gpu-price", "3",
            "--no-analysis",
        )  # fmt: skip
        assert load.end() == 0, load.said
        exporter.shutdown()
    run = read_run(load.run().path)
    samples = list(run.gpus())
    assert len(samples) >= 4
    assert {sample.temperature_c for sample in samples} == {55}
    (level,) = summarise(study_run(run)).levels
    entry = run.manifest.levels[0]
    assert level.energy is not None
    assert entry.window_start_ns is not None
    assert entry.window_end_ns is not None
    middle_s = (entry.window_start_ns + entry.window_end_ns) / 2e9
    assert level.energy.joules == pytest.approx(power_w(middle_s) * level.window_s, rel=0.01)
    assert level.energy.joules_per_answer is not None
    assert level.energy.cost_per_1000_answers is not None
