"""What servers call their own metrics on /metrics, and how those of several engines are put together.

One table for vLLM's versions, SGLang, TGI, llama.cpp, TensorRT-LLM under Triton, and LiteLLM: the load
generator decides by it what to keep, the analysis what a number means. A count is summed over engines, a
share averaged: two engines that fill 0.40 and 0.50 of their memory fill 0.45 of it, not 0.90.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

PREFIXES = (
    *("vllm:", "sglang:", "tgi_", "llamacpp:", "nv_trt_llm_", "nv_inference_", "nv_energy_", "nv_gpu_"),
    *("trtllm_", "litellm_", "lmdeploy:", "dynamo_"),
)
"""How the names of model servers' metrics begin; the others of a page are its process's and its runtime's."""

How = Literal["count", "level", "share", "histogram"]
"""count: it only grows, summed. level: it rises and falls, summed. share: averaged. histogram: seconds."""


@dataclass(frozen=True)
class ServerMetric:
    """One thing that servers say of themselves."""

    key: str
    """Its name among ours."""
    what: str
    how: How
    names: tuple[str, ...]
    """The servers' names of it, newest first."""


SERVER_METRICS = (
    ServerMetric("running", "requests being answered", "level", (
        "vllm:num_requests_running", "sglang:num_running_reqs", "tgi_batch_current_size",
        "llamacpp:requests_processing", 'nv_trt_llm_request_metrics{request_type="active"}',
        "trtllm_num_requests_running", "litellm_in_flight_requests",
    )),
    ServerMetric("waiting", "requests in the server's queue", "level", (
        "vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size", "llamacpp:requests_deferred",
        'nv_trt_llm_request_metrics{request_type="waiting"}', "trtllm_num_requests_waiting",
        "nv_inference_pending_request_count",
    )),
    ServerMetric("kv_share", "key-value cache in use", "share", (
        "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio", 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',
        "trtllm_kv_cache_utilization",
    )),
    ServerMetric("prompt_tokens", "prompt tokens taken in", "count", (
        "vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total",
        "tgi_request_input_length_sum", "litellm_input_tokens_metric_total",
    )),
    ServerMetric("output_tokens", "tokens made", "count", (
        "vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total",
        "tgi_request_generated_tokens_sum", "litellm_output_tokens_metric_total",
    )),
    ServerMetric("cache_queries", "prompt tokens looked up in the prefix cache", "count", (
        "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total",
    )),
    ServerMetric("cache_hits", "prompt tokens found in the prefix cache", "count", (
        "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "sglang:cached_tokens_total",
        "llamacpp:prompt_tokens_cached_total", "litellm_input_cached_tokens_metric_total",
    )),
    ServerMetric("cache_hit_share", "prompts found in the prefix cache", "share", (
        "sglang:cache_hit_rate", "vllm:gpu_prefix_cache_hit_rate", "trtllm_kv_cache_hit_rate",
    )),
    ServerMetric("preemptions", "requests computed again for want of memory", "count", (
        "vllm:num_preemptions_total", "sglang:num_retracted_requests_total",
        "sglang:num_retracted_reqs_total",
    )),
    ServerMetric("drafted_tokens", "tokens drafted by speculation", "count", (
        "vllm:spec_decode_num_draft_tokens_total", "llamacpp:spec_decode_num_draft_tokens_total",
    )),
    ServerMetric("accepted_tokens", "drafted tokens that were accepted", "count", (
        "vllm:spec_decode_num_accepted_tokens_total", "llamacpp:spec_decode_num_accepted_tokens_total",
    )),
    ServerMetric("acceptance_share", "drafted tokens that were accepted", "share", (
        "vllm:spec_decode_draft_acceptance_rate", "sglang:spec_accept_rate",
    )),
    ServerMetric("ttft_s", "time to first token", "histogram", (
        "vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds",
        "trtllm_time_to_first_token_seconds", "nv_inference_first_response_histogram_ms",
        "litellm_llm_api_time_to_first_token_metric",
    )),
    ServerMetric("itl_s", "time from token to token", "histogram", (
        "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds",
        "tgi_request_mean_time_per_token_duration", "trtllm_time_per_output_token_seconds",
    )),
    ServerMetric("queue_s", "wait in the server's queue", "histogram", (
        "vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration",
        "trtllm_request_queue_time_seconds", "litellm_request_queue_time_seconds",
    )),
    ServerMetric("e2e_s", "whole request", "histogram", (
        "vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds", "tgi_request_duration",
        "trtllm_e2e_request_latency_seconds", "litellm_request_total_latency_metric",
    )),
)  # fmt: skip
"""In the order in which they are shown."""

BY_KEY = {metric.key: metric for metric in SERVER_METRICS}
SHARES = frozenset(name for metric in SERVER_METRICS if metric.how == "share" for name in metric.names)
HISTOGRAMS = frozenset(
    name for metric in SERVER_METRICS if metric.how == "histogram" for name in metric.names
)
TELLING_LABELS = {
    "nv_trt_llm_request_metrics": "request_type",
    "nv_trt_llm_kv_cache_block_metrics": "kv_cache_block_type",
    "nv_trt_llm_inflight_batcher_metrics": "inflight_batcher_specific_metric",
}
"""Names that say what they are of by a label, which is kept."""
_SHARE_NAME = re.compile(r"_(perc|percent|percentage|ratio|fraction|utilization)$")


def is_share(name: str) -> bool:
    """Whether this is a share of something, by the table or, for names that it lacks, by how it ends."""
    return name in SHARES or _SHARE_NAME.search(name) is not None


def named(values: Mapping[str, float]) -> dict[str, float]:
    """What a sample says by our keys: counts, levels and shares."""
    found = {}
    for metric in SERVER_METRICS:
        if metric.how != "histogram":
            name = next((name for name in metric.names if name in values), None)
            if name is not None:
                found[metric.key] = values[name]
    return found


def bucket_name(name: str, upper: str) -> str:
    """How a sample names the bucket of a histogram: that of the values up to `upper`, a number or +Inf."""
    return f'{name}_bucket{{le="{upper}"}}'


_BUCKET = re.compile(r'(.+)_bucket\{le="([^"]+)"\}$')


@dataclass(frozen=True)
class ServerHistogram:
    """What a server measured of one wait between two samples."""

    uppers_s: tuple[float, ...]
    """Upper bounds of the buckets, rising; the last may be infinite."""
    counts: tuple[float, ...]
    """Values in each bucket, those of the buckets below not included."""
    sum_s: float
    """Sum of all values; NaN where the server does not say."""

    @property
    def count(self) -> float:
        return sum(self.counts)

    @property
    def mean_s(self) -> float:
        return self.sum_s / self.count if self.count else math.nan

    def percentile_s(self, q: float) -> tuple[float, float]:
        """The bounds between which the q-th quantile lies (0 < q < 1); NaN for a histogram of nothing."""
        wanted, passed, below = q * self.count, 0.0, 0.0
        for upper, count in zip(self.uppers_s, self.counts, strict=True):
            passed += count
            if count and passed >= wanted:
                return below, upper
            below = upper
        return math.nan, math.nan


def histogram(key: str, before: Mapping[str, float], after: Mapping[str, float]) -> ServerHistogram | None:
    """What came to a histogram between two samples; None where the server has none, or was restarted."""
    for name in BY_KEY[key].names:
        ends = sorted(_uppers(name, after))
        if not ends:
            continue
        totals = [after[label] - before.get(label, 0.0) for _, label in ends]
        counts = [now - was for now, was in zip(totals, [0.0, *totals], strict=False)]
        if min(counts) < 0 or not math.isfinite(sum(counts)):
            return None
        total, unit_s = f"{name}_sum", 1e-3 if name.endswith("_ms") else 1.0
        sum_s = (after[total] - before.get(total, 0.0)) * unit_s if total in after else math.nan
        return ServerHistogram(tuple(upper * unit_s for upper, _ in ends), tuple(counts), sum_s)
    return None


def _uppers(name: str, values: Mapping[str, float]) -> Iterable[tuple[float, str]]:
    for label in values:
        if label.startswith(name) and (match := _BUCKET.match(label)) and match[1] == name:
            try:
                upper = float(match[2])
            except ValueError:
                continue
            if not math.isnan(upper):
                yield upper, label
