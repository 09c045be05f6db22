"""Every metric a second time, in plain loops over records, written from the definitions alone.

It imports nothing of ours, so that it cannot share a mistake: a record is the JSON object of its line.
"""

from __future__ import annotations

import math
from typing import Any

Record = dict[str, Any]

ANSWERED = {"ok"}
CENSORED = {"unfinished", "deadline", "stalled", "abandoned"}
BROKEN_OFF = {"truncated", "disconnected"}
NOT_MEASURED = {"cut", "lost", "dropped"}
LEAST = {"p50": (0.5, 11), "p90": (0.9, 64), "p95": (0.95, 130), "p99": (0.99, 662), "p999": (0.999, 6636)}


def was_answered(r: Record) -> bool:
    """ok, or cut by its length inside its reasoning."""
    return r["outcome"] in ANSWERED or (r["outcome"] == "reasoning_only" and r["finish_reason"] == "length")


def tokens_of(r: Record, stop_counted: bool) -> list[float]:
    """n_1 .. n_k."""
    k = len(r["event_us"])
    if r.get("event_tokens"):
        return [float(n) for n in r["event_tokens"]]
    if r["token_source"] == "usage" and r["output_tokens"] is not None and k:
        shown = r["output_tokens"]
        if r["answer_event"] == 0:
            shown -= r.get("reasoning_tokens") or 0
        if stop_counted and r["finish_reason"] == "stop":
            shown -= 1
        if shown >= 1:
            return [shown / k] * k
    return [1.0] * k


def metrics_of(r: Record, stop_counted: bool) -> dict[str, float | None]:
    """The metrics of one turn that was answered, or what was seen of one that was not."""
    a = [us / 1e3 for us in r["event_us"]]
    n = tokens_of(r, stop_counted)
    k = len(a)
    out: dict[str, float | None] = dict.fromkeys(
        ("ttft_ms", "ttfat_ms", "response_delay_ms", "ttg_ms", "ttg256_ms", "tpot_ms")
    )
    total = r["output_tokens"] if r["output_tokens"] is not None else (sum(n) if k else None)
    out["output_tokens"] = total
    if k:
        out["ttft_ms"], out["ttg_ms"] = a[0], a[-1]
        out["response_delay_ms"] = a[0] + (r["sent_ns"] - r["due_ns"]) / 1e6
        if r["answer_event"] is not None and r["answer_event"] < k:
            out["ttfat_ms"] = a[r["answer_event"]]
        later = sum(n) - n[0]
        if k > 1 and later > 1e-12:
            out["tpot_ms"] = (a[-1] - a[0]) / later
        seen = 0.0
        for at, tokens in zip(a, n, strict=True):
            seen += tokens
            if seen >= 256 - 1e-6:
                out["ttg256_ms"] = at
                break
    tpot, ttg = out["tpot_ms"], out["ttg_ms"]
    out["decode_tokens_per_s"] = 1e3 / tpot if tpot else None
    out["request_tps"] = total / (ttg / 1e3) if total is not None and ttg else None
    out["stall_ms"] = _stall(r, a)
    return out


def _stall(r: Record, a: list[float], words_per_min: float = 238.0) -> float | None:
    """A reader who starts at the first word of the answer and waits whenever the next has not come."""
    per_word = 60e3 / words_per_min
    start = r["answer_event"]
    if start is None:
        return None  # reasoning is not read
    clock, waited = None, 0.0
    for i, at in enumerate(a):
        words = r["event_words"][i] if i < len(r["event_words"]) else 0
        if not words or i < start:
            continue
        if clock is None:
            clock = at
        if at > clock:
            waited, clock = waited + at - clock, at
        clock += words * per_word
    return None if clock is None else waited


def percentile(values: list[float], share: float) -> float:
    """The linear one."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    if place == low:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (place - low)


def kaplan_meier_mean(times: list[float], ended: list[bool]) -> float:
    """Area under the curve up to the longest time."""
    alive, area, last = 1.0, 0.0, 0.0
    for t in sorted(set(times)):
        area += alive * (t - last)
        at_risk = sum(x >= t for x in times)
        alive *= 1 - sum(x == t and e for x, e in zip(times, ended, strict=True)) / at_risk
        last = t
    return area


def cell_of(records: list[Record], stop_counted: bool) -> dict[str, Any]:
    """The numbers of measured turns: those without a percentile's least n are for the caller to leave out."""
    ok = [r for r in records if was_answered(r)]
    open_ended = [
        r for r in records if r["outcome"] in CENSORED or (r["outcome"] in BROKEN_OFF and r["event_us"])
    ]
    failed = [r for r in records if not was_answered(r) and r["outcome"] not in CENSORED]
    each = [metrics_of(r, stop_counted) for r in ok]
    cell: dict[str, Any] = {
        "turns": len(records),
        "ok": len(ok),
        "failed": len(failed),
        "failed_share": len(failed) / len(records),
    }
    ttg_s = sum((m["ttg_ms"] or 0) / 1e3 for m in each)
    tokens = sum(m["output_tokens"] or 0 for m in each)
    if ttg_s:
        cell["tps"] = tokens / ttg_s
        cell["visible_tps"] = sum(sum(tokens_of(r, stop_counted)) for r in ok) / ttg_s
        cell["chars_per_s"] = sum(r["chars"] for r in ok) / ttg_s
        cell["words_per_s"] = sum(r["words"] for r in ok) / ttg_s
    known = [r for r in ok if r["cached_tokens"] is not None and r["prompt_tokens"] is not None]
    prompts = sum(r["prompt_tokens"] for r in known)
    cell["cached_share"] = sum(r["cached_tokens"] for r in known) / prompts if prompts else None
    per_token = [m["ttg_ms"] / 1e3 / m["output_tokens"] for m in each if m["output_tokens"] and m["ttg_ms"]]
    cell["normalised_latency_s"] = sum(per_token) / len(per_token) if per_token else None
    for key in ("ttft_ms", "ttfat_ms", "response_delay_ms", "ttg_ms", "ttg256_ms", "tpot_ms", "stall_ms"):
        cell[key] = _waits(key, each, open_ended, stop_counted)
    for key in ("decode_tokens_per_s", "request_tps"):
        values = [m[key] for m in each if m[key] is not None]
        cell[key] = {"n": len(values) + len(open_ended)}
        if values and not open_ended:
            cell[key] |= {"mean": sum(values) / len(values)}
            cell[key] |= {name: percentile(values, q) for name, (q, _) in LEAST.items()}
    gaps = [(b - a) / 1e3 for r in ok for a, b in zip(r["event_us"], r["event_us"][1:], strict=False)]
    cell["itl_ms"] = {"n": len(gaps)} | ({"mean": sum(gaps) / len(gaps)} if gaps else {})
    return cell


def _waits(
    key: str, each: list[dict[str, float | None]], open_ended: list[Record], stop_counted: bool
) -> dict[str, Any]:
    values, known, ended = [], [], []
    for m in each:
        if m[key] is not None:
            values.append(m[key])
            known.append(m[key])
            ended.append(True)
    for r in open_ended:
        m = metrics_of(r, stop_counted)
        watched = (r["end_ns"] - r["sent_ns"]) / 1e6
        if key in ("ttft_ms", "ttfat_ms", "response_delay_ms", "ttg256_ms") and m[key] is not None:
            values.append(m[key])
            known.append(m[key])
            ended.append(True)
            continue
        n = tokens_of(r, stop_counted)
        bound = watched
        if key == "tpot_ms":
            bound = (watched - m["ttft_ms"]) / max(sum(n) - n[0], 1) if n else 0.0
        elif key == "response_delay_ms":
            bound = watched + (r["sent_ns"] - r["due_ns"]) / 1e6
        elif key == "stall_ms":
            bound = m[key] or 0.0
        values.append(math.inf)
        known.append(bound)
        ended.append(False)
    found: dict[str, Any] = {"n": len(values)}
    if not values:
        return found
    found["mean"] = None
    if all(ended):
        found["mean"] = sum(known) / len(known)
    elif any(ended):
        found["mean"] = kaplan_meier_mean(known, ended)
        found["mean_to"] = max(known)
    found["max"] = max(values) if all(ended) else None
    bound_of = {} if all(ended) else {"max": max(known)}
    for name, (q, _) in LEAST.items():
        value = percentile(values, q)
        found[name] = value if math.isfinite(value) else None
        if not math.isfinite(value):
            bound_of[name] = percentile(known, q)
    found["bound"] = bound_of
    return found


Limits = dict[str, dict[str, float]]
"""The limits of each task, beside the `share` of its turns that must meet them."""


def fluidity(records: list[Record], limits: Limits, stop_counted: bool) -> float | None:
    """Deadlines met over all, token by token; of a total spread evenly, token j comes with event j k / V."""
    met = missed = 0
    for r in records:
        if not was_answered(r):
            continue
        mine = limits.get(r["task"], {})
        first_ms, each_ms = mine.get("ttft_ms", 2000), mine.get("tpot_ms", 100)
        n, due = tokens_of(r, stop_counted), first_ms
        whole, before = [], 0.0
        for tokens in n:
            whole.append(math.floor(before + tokens + 1e-9) - math.floor(before + 1e-9))
            before += tokens
        for us, count in zip(r["event_us"], whole, strict=True):
            at = us / 1e3
            for _ in range(count):
                if at <= due:
                    met, due = met + 1, due + each_ms
                else:
                    missed += math.floor((at - due) / each_ms) + 1
                    due = at + each_ms
    return met / (met + missed) if met + missed else None


def meets_all(r: Record, limits: Limits, stop_counted: bool) -> bool | None:
    """Whether a turn kept every limit of its task at once; None where its task has none."""
    mine = {key: most for key, most in limits.get(r["task"], {}).items() if key != "share"}
    if not mine:
        return None
    m = metrics_of(r, stop_counted)
    # A turn whose tokens all came at once has no time per token that could be too long.
    return was_answered(r) and all(
        key == "tpot_ms" if m[key] is None else m[key] <= most for key, most in mine.items()
    )


def turn_goodput(records: list[Record], limits: Limits, window_s: float, stop_counted: bool) -> float | None:
    """Turns a second that meet all limits."""
    met = [meets_all(r, limits, stop_counted) for r in records]
    return sum(m is True for m in met) / window_s if any(m is not None for m in met) else None


def conversation_goodput(
    talks: list[list[Record]], limits: Limits, window_s: float, stop_counted: bool
) -> tuple[float, int] | None:
    """(conversations a second of which every turn met all limits and that ended by plan, conversations that
    were cut), of conversations whose first turn was sent in the window; a list of turns in order each."""
    good = cut = 0
    limited = False
    for turns in talks:
        met = [m for r in turns if (m := meets_all(r, limits, stop_counted)) is not None]
        if not met:
            continue
        limited, last = True, turns[-1]
        good += was_answered(last) and last["last"] and all(met)
        cut += (was_answered(last) and not last["last"]) or last["outcome"] in NOT_MEASURED | {"unfinished"}
    return (good / window_s, cut) if limited else None


def arrived(records: list[Record], start_ns: int, end_ns: int, stop_counted: bool) -> float:
    """Tokens of all records that arrived in a window; those after the last event at the end of the stream."""
    total = 0.0
    for r in records:
        if r["sent_ns"] is None:
            continue
        n = tokens_of(r, stop_counted)
        for us, tokens in zip(r["event_us"], n, strict=True):
            total += tokens * (start_ns <= r["sent_ns"] + us * 1000 < end_ns)
        reported = r["output_tokens"]
        if reported is not None and r["end_ns"] is not None and start_ns <= r["end_ns"] < end_ns:
            total += max(reported - sum(n), 0.0)
    return total
