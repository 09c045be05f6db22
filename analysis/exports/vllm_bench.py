"""`--to vllm`: a JSON file a load as `vllm bench serve --save-result --save-detailed` writes it (vLLM 0.32).

Same keys, same units (seconds in lists, milliseconds in statistics), and statistics by the same rules: of
answered turns, percentiles by linear interpolation. What differs in meaning: `duration` is the level's
window, in which the turns were sent, so that tokens over `duration` are a rate of the steady state and not of
a drain; `queue_times` are how late a turn was sent; times come from the kernel. The facts of the run stand
where vLLM's --metadata would.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.exports.result import LoadPart, RunResult
from analysis.tables.export import write_json
from analysis.turns.frame import floats
from turnbench.outcomes import ANSWERED

_PERCENTILES = (50, 90, 95, 99)
_BACKENDS = {"completions": "openai", "messages": "anthropic"}
"""vLLM's names of the others' kinds of endpoint; chat is openai-chat."""


def write_vllm(run: RunResult, folder: Path) -> list[Path]:
    """One file for each level and model."""
    parts = run.parts()
    models = sorted({part.model for part in parts})
    written = []
    for part in parts:
        which = f"-model-{models.index(part.model)}" if len(models) > 1 else ""
        path = folder / f"vllm-level-{part.level.index}{which}.json"
        write_json(_result(run, part), path)
        written.append(path)
    return written


def _result(run: RunResult, part: LoadPart) -> dict[str, Any]:
    manifest, rows, level = run.study.manifest, part.rows, part.level
    settings = manifest.settings
    backend = _BACKENDS.get(str(settings.get("dialect")), "openai-chat")
    started = (
        datetime.fromisoformat(manifest.started_at) if manifest.started_at else datetime.fromtimestamp(0)
    )
    result: dict[str, Any] = {
        "date": started.strftime("%Y%m%d-%H%M%S"), "endpoint_type": backend, "backend": backend,
        "label": run.name, "model_id": part.model, "tokenizer_id": part.model, "num_prompts": len(rows),
    }  # fmt: skip
    result |= run.facts()
    result |= {
        "request_rate": "inf" if level.arrival_rate_per_s is None else level.arrival_rate_per_s,
        "burstiness": float(settings.get("burstiness") or 1.0),
        "max_concurrency": level.users,
    }
    return result | _measured(run, rows, level.window_s)


def _measured(run: RunResult, rows: pd.DataFrame, duration_s: float) -> dict[str, Any]:
    answered = rows["outcome"].isin(ANSWERED).to_numpy()
    arrivals_s = [each / 1e6 for each in run.arrivals_us(rows)]
    sent_s = floats(rows["sent_ns"]) / 1e9
    ttft_s, ttg_s = (np.where(answered, floats(rows[key]) / 1e3, 0.0) for key in ("ttft_ms", "ttg_ms"))
    tokens = np.where(answered, np.nan_to_num(floats(rows["tokens"])), 0).astype(int)
    prompts = np.nan_to_num(floats(rows["prompt_tokens"])).astype(int)
    gaps_s = [np.diff(at) if ok else at[:0] for at, ok in zip(arrivals_s, answered, strict=True)]
    meets = rows["meets"]
    found: dict[str, Any] = {
        "duration": duration_s,
        "completed": int(answered.sum()),
        "failed": int((~answered).sum()),
        "total_input_tokens": int(prompts[answered].sum()),
        "total_output_tokens": int(tokens.sum()),
    }
    found |= {
        "request_throughput": _rate(found["completed"], duration_s),
        "request_goodput": _rate(int(meets.fillna(False).sum()), duration_s) if meets.notna().any() else None,
        "output_throughput": _rate(found["total_output_tokens"], duration_s),
        "total_token_throughput": _rate(
            found["total_input_tokens"] + found["total_output_tokens"], duration_s
        ),
        "input_lens": prompts.tolist(),
        "output_lens": tokens.tolist(),
        "ttfts": ttft_s.tolist(),
        "itls": [gaps.tolist() for gaps in gaps_s],
        "latencies": ttg_s.tolist(),
        "start_times": np.nan_to_num(sent_s).tolist(),
        "queue_times": (np.nan_to_num(floats(rows["sent_ns"]) - floats(rows["due_ns"])) / 1e9).tolist(),
        "generated_texts": [""] * len(rows),
        "errors": [
            "" if ok else str(error or outcome)
            for ok, error, outcome in zip(answered, rows["error"], rows["outcome"], strict=True)
        ],
        "max_output_tokens_per_s": _busiest_second(sent_s, arrivals_s, answered),
        "max_concurrent_requests": _most_at_once(sent_s[answered], ttg_s[answered]),
        "rtfx": 0.0,
    }
    all_gaps_s = np.concatenate([*gaps_s, np.array([])])
    samples = {
        "ttft": ttft_s[answered] * 1e3, "tpot": floats(rows["tpot_ms"])[answered], "itl": all_gaps_s * 1e3,
        "e2el": ttg_s[answered] * 1e3,
    }  # fmt: skip
    for name, values in samples.items():
        found |= _statistics(name, values[np.isfinite(values)])
    return found


def _statistics(name: str, values_ms: npt.NDArray[np.float64]) -> dict[str, float]:
    """vLLM's: 0 where there is no value."""
    values = values_ms if len(values_ms) else np.zeros(1)
    found = {"mean": values.mean(), "median": np.median(values), "std": values.std()}
    found |= {f"p{rank}": np.percentile(values, rank) for rank in _PERCENTILES}
    return {f"{key}_{name}_ms": float(value) for key, value in found.items()}


def _rate(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0


def _busiest_second(
    sent_s: npt.NDArray[np.float64],
    arrivals_s: list[npt.NDArray[np.float64]],
    answered: npt.NDArray[np.bool_],
) -> float:
    """Most events of answered turns in a second, counted from when the first was sent."""
    at = [sent + at_s for sent, at_s, ok in zip(sent_s, arrivals_s, answered, strict=True) if ok]
    if not at or not len(every := np.concatenate(at)):
        return 0.0
    return float(np.bincount((every - np.nanmin(sent_s)).astype(int)).max())


def _most_at_once(sent_s: npt.NDArray[np.float64], ttg_s: npt.NDArray[np.float64]) -> int:
    """The most turns under way at one moment."""
    moments = np.concatenate((sent_s, sent_s + ttg_s))
    steps = np.concatenate((np.ones(len(sent_s)), -np.ones(len(sent_s))))
    return int(np.cumsum(steps[np.lexsort((steps, moments))]).max(initial=0))
