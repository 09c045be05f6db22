"""/metrics in Prometheus' text format, under vLLM's names."""

from __future__ import annotations

from serve.emulator.reply import Counters


def prometheus_text(model: str, counters: Counters) -> bytes:
    """The counters as a scrape would read them."""
    labels = f'model_name="{_escaped(model)}",engine="0"'
    rows = [
        ("num_requests_running", "gauge", "Requests being answered", counters.running),
        ("num_requests_waiting", "gauge", "Requests in the queue", counters.waiting),
        ("kv_cache_usage_perc", "gauge", "Share of the key-value cache in use; 1 is full", counters.kv_usage),
        ("prompt_tokens_total", "counter", "Prompt tokens taken in", counters.prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens generated", counters.generation_tokens),
        ("prefix_cache_queries_total", "counter", "Prompt tokens looked up", counters.cache_queries),
        ("prefix_cache_hits_total", "counter", "Prompt tokens found cached", counters.cache_hits),
    ]
    rows.append(("num_preemptions_total", "counter", "Requests computed again", counters.preemptions))
    lines: list[str] = []
    for name, kind, help_text, value in rows:
        lines += [*_heading(name, kind, help_text), f"vllm:{name}{{{labels}}} {float(value)}"]
    lines += _heading("request_success_total", "counter", "Requests finished, by reason")
    for reason, count in counters.finished.items():
        lines.append(f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {float(count)}')
    return ("\n".join(lines) + "\n").encode()


def _heading(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP vllm:{name} {help_text}.", f"# TYPE vllm:{name} {kind}"]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
