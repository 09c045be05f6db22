"""`python -m serve gpu-metrics`: what this machine's GPUs draw, as the page that a DCGM exporter writes.

It asks NVML (the package nvidia-ml-py) at each request, so it costs nothing while nobody asks. A load
generator reads it with `--gpu-metrics http://HOST:PORT/metrics`.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from turnbench import exits
from turnbench.formats.server import GpuSample
from turnbench.gpu_metrics import page_of

Say = Callable[[str], None]


class NoNvml(Exception):
    """NVML cannot be asked here; the text says what to do."""


def open_nvml() -> Any:
    """The module pynvml, ready to be asked; raises NoNvml."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        raise NoNvml("NVML's bindings are not installed: pip install nvidia-ml-py") from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NoNvml(f"no NVIDIA GPU can be asked here: {error}") from None
    return nvml


def nvml_samples(nvml: Any) -> list[GpuSample]:
    """Power, clock, memory and temperature of every GPU that says its power, now."""
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)

        def asked(question: Callable[..., Any], *more: Any, of: Any = gpu) -> Any:
            try:
                return question(of, *more)
            except nvml.NVMLError:
                return None

        power_mw = asked(nvml.nvmlDeviceGetPowerUsage)
        memory = asked(nvml.nvmlDeviceGetMemoryInfo)
        if power_mw is not None:
            found.append(
                GpuSample(
                    t_ns=time.time_ns(),
                    gpu=str(index),
                    power_w=power_mw / 1e3,
                    clock_mhz=asked(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
                    memory_used_bytes=None if memory is None else float(memory.used),
                    temperature_c=asked(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
                )
            )
    return found


def exporter(nvml: Any, host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page, listening; port 0 takes a free one. Raises OSError."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page_of(nvml_samples(nvml)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: somebody asks every second."""

    return ThreadingHTTPServer((host, port), Page)


def serve_gpu_metrics(options: argparse.Namespace, say: Say) -> int:
    """Serve the page until Ctrl-C; 2 where there is no GPU to ask."""
    try:
        nvml = open_nvml()
    except NoNvml as problem:
        say(str(problem))
        return exits.BAD_CONFIGURATION
    with exporter(nvml, options.host, options.port) as server:
        host, port = server.server_address[:2]
        print(f"ready: http://{host!s}:{port}/metrics", flush=True)
        server.serve_forever()
    return exits.OK
