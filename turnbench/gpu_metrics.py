"""What GPUs draw: the page of a DCGM exporter read, and power integrated over a window.

NVIDIA's DCGM exporter writes one Prometheus sample a GPU and field: `DCGM_FI_DEV_POWER_USAGE{gpu="0"} 250.1`.
`serve gpu-metrics` offers the same names from NVML, so whoever asks needs to know one page only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from turnbench.formats.server import GpuSample

_FIELDS = {
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_DEV_SM_CLOCK": ("clock_mhz", 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", float(2**20)),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1.0),
}
"""Names of the exporter's default fields, ours, and our units in theirs."""
_LINE = re.compile(r'^(\w+)\{(?:[^}]*,)?gpu="(\w{1,20})"[^}]*\} +([^ ]{1,40})')
MOST_GAP_S = 5.0
"""Between two samples of a GPU; over a longer gap its energy is not known."""


def gpu_samples(page: str, t_ns: int) -> list[GpuSample]:
    """A sample for each GPU whose power the page gives; what is no number is discarded."""
    found: dict[str, dict[str, float]] = {}
    for line in page.splitlines():
        if line.startswith("DCGM_") and (match := _LINE.match(line)) and match[1] in _FIELDS:
            name, unit = _FIELDS[match[1]]
            try:
                value = float(match[3]) * unit
            except ValueError:
                continue
            if math.isfinite(value) and value >= 0:
                found.setdefault(match[2], {})[name] = value
    return [GpuSample(t_ns=t_ns, gpu=gpu, **values) for gpu, values in found.items() if "power_w" in values]


def page_of(samples: Iterable[GpuSample]) -> str:
    """These samples as the exporter writes them."""
    lines = []
    for sample in samples:
        for name, (ours, unit) in _FIELDS.items():
            value = getattr(sample, ours)
            if value is not None:
                lines.append(f'{name}{{gpu="{sample.gpu}"}} {value / unit:g}')
    return "\n".join(lines) + "\n"


def joules_at(samples: Sequence[GpuSample], edges_ns: Sequence[int]) -> list[float] | None:
    """Energy of all GPUs from the first of these moments to each: the trapezoids between samples.

    None unless every GPU was sampled from before the first moment to after the last without a long gap.
    """
    by_gpu: dict[str, list[GpuSample]] = {}
    for sample in sorted(samples, key=lambda each: each.t_ns):
        by_gpu.setdefault(sample.gpu, []).append(sample)
    wanted_s = np.array([(edge - edges_ns[0]) / 1e9 for edge in edges_ns])
    total = np.zeros(len(edges_ns))
    for mine in by_gpu.values():
        at_s = np.array([(sample.t_ns - edges_ns[0]) / 1e9 for sample in mine])
        power_w = np.array([sample.power_w for sample in mine])
        inside = at_s[(at_s > 0) & (at_s < wanted_s[-1])]
        before, after = at_s[at_s <= 0][-1:], at_s[at_s >= wanted_s[-1]][:1]
        # A GPU that was first asked just after the window began, or last just before it ended, is known too.
        ends = (before if len(before) else [0.0]), (after if len(after) else wanted_s[-1:])
        if np.diff(np.concatenate([ends[0], inside, ends[1]])).max() > MOST_GAP_S:
            return None
        points = np.union1d(at_s, wanted_s)
        power = np.interp(points, at_s, power_w)
        sums = np.concatenate([[0.0], np.cumsum(np.diff(points) * (power[1:] + power[:-1]) / 2)])
        total += np.interp(wanted_s, points, sums) - np.interp(0.0, points, sums)
    return [float(each) for each in total] if by_gpu else None
