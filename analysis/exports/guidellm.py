"""`--to guidellm`: benchmarks.json as GuideLLM 0.8 writes and reads it (report version 2), a benchmark a
level.

Everything that its reader requires is there, and of what it may leave out what a run knows. A distribution's
percentiles are of pooled turns, as GuideLLM's are. What differs in meaning: `time_per_output_token_ms` counts
from the request, as GuideLLM has it, while our TPOT is its `inter_token_latency_ms`; times come from the
kernel, and a benchmark lasts as long as the level's window. Answers are not in the file.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.exports.result import LoadPart, RunResult
from analysis.tables.export import write_json
from analysis.turns.frame import floats
from turnbench.formats.run import RunManifest
from turnbench.outcomes import ANSWERED, CENSORED

GUIDELLM = "0.8.1"
"""The version whose form this is."""
_RANKS = {"p001": 0.1, "p01": 1, "p05": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95,
          "p99": 99, "p999": 99.9}  # fmt: skip
_STATUSES = ("successful", "errored", "incomplete")
_MEASURES: dict[str, Callable[[pd.DataFrame], pd.Series[Any]]] = {
    "request_latency": lambda row: row["ttg_ms"] / 1e3,
    "request_streaming_iterations_count": lambda row: row["events"],
    "prompt_token_count": lambda row: row["prompt_tokens"],
    "output_token_count": lambda row: row["tokens"],
    "total_token_count": lambda row: row["prompt_tokens"] + row["tokens"],
    "time_to_first_token_ms": lambda row: row["ttft_ms"],
    "time_to_first_output_token_ms": lambda row: row["ttfat_ms"],
    "time_per_output_token_ms": lambda row: row["ttg_ms"] / row["tokens"],
    "inter_token_latency_ms": lambda row: row["tpot_ms"],
    "prompt_tokens_per_second": lambda row: row["prompt_tokens"] / row["ttg_ms"] * 1e3,
    "output_tokens_per_second": lambda row: row["tokens"] / row["ttg_ms"] * 1e3,
    "tokens_per_second": lambda row: (row["prompt_tokens"] + row["tokens"]) / row["ttg_ms"] * 1e3,
    "output_tokens_per_iteration": lambda row: row["tokens"] / row["events"],
    "iter_tokens_per_iteration": lambda row: row["shown_tokens"] / row["events"],
}
"""GuideLLM's metrics of a request, of a table of turns."""
_NOT_MEASURED = ("time_to_last_round_trip_ms", "avg_round_trip_time_ms")
_KINDS = {
    "text": ("tokens", "words", "characters"), "image": ("tokens", "images", "pixels", "bytes"),
    "video": ("tokens", "frames", "seconds", "bytes"), "audio": ("tokens", "samples", "seconds", "bytes"),
    "tool_call": ("tokens", "mixed_tokens", "count"),
}  # fmt: skip


def write_guidellm(run: RunResult, folder: Path) -> list[Path]:
    """benchmarks.json, GuideLLM's own name."""
    path, manifest = folder / "benchmarks.json", run.study.manifest
    parts = run.parts()
    report = {
        "metadata": {
            "version": 2, "guidellm_version": GUIDELLM,
            "python_version": manifest.versions.get("python", platform.python_version()),
            "platform": str(manifest.host.get("system", "")),
        },
        "config": {
            "metadata": {"labels": run.facts()},
            "spec": {"backend": _backend(manifest), "profile": _profile([part.level.users for part in parts]),
                     "data": [{"kind": "text_file", "path": "scenario.yaml"}]},
        },
        "benchmarks": [_benchmark(run, part, index) for index, part in enumerate(parts)],
    }  # fmt: skip
    write_json(report, path)
    return [path]


def _backend(manifest: RunManifest) -> dict[str, Any]:
    return {"kind": "openai_http", "target": manifest.endpoint.url, "model": manifest.endpoint.model}


def _profile(streams: list[int | None]) -> dict[str, Any]:
    """People are GuideLLM's streams; arrivals at a rate have no number of them."""
    known = [each for each in streams if each]
    return {"kind": "concurrent", "streams": known} if known else {"kind": "throughput"}


def _benchmark(run: RunResult, part: LoadPart, index: int) -> dict[str, Any]:
    level, manifest = part.level, run.study.manifest
    rows = part.rows.assign(events=run.study.events.counts[part.rows.index], status=_status(part.rows))
    start_s = (level.window_start_ns or 0) / 1e9
    end_s = start_s + level.window_s
    counts = {status: int((rows["status"] == status).sum()) for status in _STATUSES}
    totals = counts | {"total": len(rows)}
    late_s = np.nan_to_num(floats(rows["sent_ns"]) - floats(rows["due_ns"])) / 1e9
    lasted_s = floats(rows["ttg_ms"])[(rows["status"] == "successful").to_numpy()] / 1e3
    mean_s, mean_late_s = (float(each.mean()) if len(each) else 0.0 for each in (lasted_s, late_s))
    strategy: dict[str, Any] = {"type_": "concurrent", "streams": level.users, "max_concurrency": level.users}
    if level.users is None:
        strategy = {"type_": "throughput"}
    return {
        "type_": "generative_benchmark",
        "config": {
            "id_": str(uuid.uuid5(uuid.NAMESPACE_URL, f"turnbench/{manifest.started_at}/{run.name}/{index}")),
            "run_id": run.name,
            "run_index": index, "strategy": strategy, "constraints": {}, "profile": _profile([level.users]),
            "requests": {"scenario": str(manifest.settings.get("scenario", "")), "task": "all"},
            "backend": _backend(manifest) | {"model": part.model},
            "environment": {"str": "turnbench"} | run.facts(),
        },
        "scheduler_state": {
            "start_time": start_s, "end_time": end_s, "created_requests": len(rows),
            "processed_requests": len(rows),
            "successful_requests": counts["successful"], "errored_requests": counts["errored"],
            "cancelled_requests": counts["incomplete"],
        },
        "scheduler_metrics": {
            "start_time": start_s, "request_start_time": start_s, "measure_start_time": start_s,
            "measure_end_time": end_s, "request_end_time": end_s, "end_time": end_s, "requests_made": totals,
            "queued_time_avg": 0.0, "resolve_start_delay_avg": 0.0,
            "resolve_targeted_start_delay_avg": mean_late_s,
            "request_start_delay_avg": 0.0, "request_targeted_start_delay_avg": mean_late_s,
            "request_time_avg": mean_s, "resolve_end_delay_avg": 0.0, "resolve_time_avg": mean_s,
            "finalized_delay_avg": 0.0, "processed_delay_avg": 0.0, "strategy_type": strategy["type_"],
        },
        "metrics": _metrics(rows, totals, level.window_s),
        "requests": {
            status: [_request(run.name, row) for row in rows[rows["status"] == status].to_dict("records")]
            for status in _STATUSES
        },
        "start_time": start_s, "end_time": end_s, "duration": level.window_s, "warmup_duration": 0.0,
        "cooldown_duration": 0.0,
    }  # fmt: skip


def _status(rows: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Answered, given up before the end, or failed, as GuideLLM calls them."""
    outcomes = rows["outcome"]
    return np.select(
        [outcomes.isin(ANSWERED), outcomes.isin(CENSORED)], ["successful", "incomplete"], "errored"
    )


def _metrics(rows: pd.DataFrame, totals: dict[str, int], window_s: float) -> dict[str, Any]:
    values = {key: floats(measure(rows).astype("Float64")) for key, measure in _MEASURES.items()}
    status = rows["status"].to_numpy()
    found: dict[str, Any] = {"request_totals": totals}
    found |= {key: _by_status(each, status) for key, each in values.items()}
    found |= {key: _by_status(np.array([]), np.array([])) for key in _NOT_MEASURED}
    found["requests_per_second"] = _constant(
        {k: n / window_s if window_s else 0.0 for k, n in totals.items()}
    )
    busy_s = {name: float(np.nansum(values["request_latency"][status == name])) for name in _STATUSES}
    busy_s["total"] = sum(busy_s.values())
    found["request_concurrency"] = _constant(
        {k: s / window_s if window_s else 0.0 for k, s in busy_s.items()}
    )
    nothing = {f"{side}{kind}": None for side in ("input", "output", "total")
               for kind in ("", "_per_second", "_concurrency")}  # fmt: skip
    for medium, units in _KINDS.items():
        found[medium] = dict.fromkeys(units)
    for unit, sides in {
        "tokens": ("prompt_tokens", "tokens"), "words": (None, "words"), "characters": (None, "chars"),
    }.items():  # fmt: skip
        counts = {side: column for side, column in zip(("input", "output"), sides, strict=True) if column}
        found["text"][unit] = nothing | {
            side: _by_status(floats(rows[column]), status) for side, column in counts.items()
        }
    return found


def _by_status(values: npt.NDArray[np.float64], status: npt.NDArray[Any]) -> dict[str, Any]:
    found = {name: _distribution(values[status == name]) for name in _STATUSES}
    return found | {"total": _distribution(values)}


def _distribution(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """GuideLLM's: percentiles are values that occurred, and all is 0 where there is none."""
    values = values[np.isfinite(values)]
    count = len(values)
    if not count:
        values = np.zeros(1)
    ranks = {key: float(np.percentile(values, rank, method="inverted_cdf")) for key, rank in _RANKS.items()}
    kinds, often = np.unique(values, return_counts=True)
    return {
        "mean": float(values.mean()), "median": ranks["p50"], "mode": float(kinds[often.argmax()]),
        "variance": float(values.var()), "std_dev": float(values.std()), "min": float(values.min()),
        "max": float(values.max()), "count": count, "total_sum": float(values.sum()), "percentiles": ranks,
    }  # fmt: skip


def _constant(by_status: dict[str, float]) -> dict[str, Any]:
    """A mean over the window, of which no distribution was kept."""
    return {name: _distribution(np.array([value])) for name, value in by_status.items()}


def _request(run: str, row: dict[Any, Any]) -> dict[str, Any]:
    def seconds(ns: Any) -> float | None:
        return None if pd.isna(ns) else ns / 1e9

    def whole(value: Any) -> int | None:
        return None if pd.isna(value) else int(value)

    sent_s, ttft_s, ttg_s = seconds(row["sent_ns"]), row["ttft_ms"] / 1e3, row["ttg_ms"] / 1e3
    first_s, last_s = (None if sent_s is None or pd.isna(wait) else sent_s + wait for wait in (ttft_s, ttg_s))
    name = f"{run}/{row['conversation']}/{row['turn']}/{row['attempt']}"
    ended_s = last_s if row["status"] == "successful" else seconds(row["end_ns"])
    status = {"successful": "completed", "errored": "errored", "incomplete": "cancelled"}[row["status"]]
    return {
        "type_": "generative_request_stats",
        "request_id": name,
        "info": {
            "request_id": name, "conversation_id": f"{run}/{row['conversation']}",
            "turn_index": row["turn"] - 1, "history_len": row["turn"] - 1, "agent_id": row["task"],
            "status": status,
            "scheduler_process_id": row["worker"],
            "error": None if row["status"] == "successful" else str(row["error"] or row["outcome"]),
            "timings": {
                "targeted_start": seconds(row["due_ns"]), "request_start": sent_s,
                "first_request_iteration": first_s, "first_token_iteration": first_s,
                "last_token_iteration": last_s, "last_request_iteration": last_s,
                "request_iterations": row["events"], "token_iterations": row["events"],
                "request_end": ended_s, "resolve_end": ended_s,
            },
        },
        "input_metrics": {
            "text_tokens": whole(row["prompt_tokens"]), "cached_tokens": whole(row["cached_tokens"]),
        },
        "output_metrics": {
            "text_tokens": whole(row["tokens"]), "text_words": row["words"], "text_characters": row["chars"],
        },
    }  # fmt: skip
