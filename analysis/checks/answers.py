"""What the answers themselves show: longer or shorter than asked, held back on their way, refused, cut in
their reasoning, slower than their limits allow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.evidence import LevelEvidence, RunEvidence
from analysis.turns.frame import column_of, floats
from turnbench.findings import FindingKind, note, suspect
from turnbench.formats import Finding, Severity
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED

MOST_BUFFERED = 0.5
"""Share of answers that came in large pieces, from which on it is the way and not a hiccup."""
MOST_UNLIKE = 0.01
"""Share of answers that may miss the length that was asked for before it is said."""
FAR_PROMPT, NOTED_PROMPT = 0.25, 0.10
"""How far the median prompt may be from the tokens that a trace asks for."""
_DEFAULT_EXACT = 256

# fmt: off
BUFFERED = suspect("buffered",
    "the tokens of an answer arrive all at once, or in a few large pieces, in {} of {} turns although the "
    "client was not late: something between you and the server buffers, or the server itself does; TTFT is "
    "then the time of a whole piece, TPOT is not known, and limits on it are missed",
    "switch buffering off there: with nginx proxy_buffering off, and no gzip of event streams; with haproxy "
    "option http-no-delay; else measure without the gateway, or by TTG")
MORE_TOKENS = suspect("more_tokens",
    "{} of {} answers have more tokens than were asked for: {:.0f} of {:.0f} allowed, in {} events",
    "the server ignores its limit or counts otherwise: don't trust tokens per second and TPOT")
NOT_EXACT = suspect("not_exact",
    "{} of {} answers were not {} tokens long, as --exact-tokens asks, but {:g} to {:g}: the server ignores "
    "ignore_eos and min_tokens",
    "don't compare these times as those of equal answers: use TPOT, or another server")
PROMPT_LENGTHS = FindingKind(("suspect", "note"), "prompt_lengths",
    "prompts are {:.0%} as long as the trace asks for (median of {}; {} asked for, {} counted by the "
    "server): the model's tokens are not as long as those that the filler text was made for",
    "see times as those of such prompts; a text that fits this model's tokens comes nearer")
CUT_REASONING = note("cut_reasoning",
    "{} of {} answers did not begin: the limit of tokens (finish reason {}) ended them inside their "
    "reasoning. They count as answered; TTFAT is of the others",
    "raise --max-tokens, or have the model reason less")
RATE_LIMITED = note("rate_limited",
    "{} of {} turns were refused with 429: a gateway or the server limits the rate, so this level measures "
    "that limit",
    "raise the limit there, measure without the gateway, or ask for less than it allows")
LIMITS_MISSED = note("limits_missed",
    "{missed}",
    "lower the load or the limits, or see what makes the server slow; this is why the exit is 1",
    {"missed": ["Which limit a level misses, and who set it: the reason for exit 1"]})
# fmt: on


def buffered(at: LevelEvidence) -> Iterator[Finding]:
    answered = _answered(at.rows)
    if is_held_back(at):
        yield at.finding(BUFFERED, int(answered["buffered"].sum()), len(answered))


def is_held_back(at: LevelEvidence) -> bool:
    """Whether most answers of a level came whole or in a few large pieces."""
    held = _answered(at.rows)["buffered"]
    return bool(held.any() and held.mean() > MOST_BUFFERED)


def longer_than_asked(run: RunEvidence) -> Iterator[Finding]:
    """More output tokens than the request allowed, by the server's count."""
    answered = _answered(run.study.measured)
    asked, tokens = _asked(run, answered), floats(answered["tokens"])
    over = np.flatnonzero(tokens > asked)
    if len(over):
        worst = over[np.argmax(tokens[over])]
        events = run.study.events.counts[answered.index.to_numpy()[worst]]
        yield MORE_TOKENS.finding(len(over), len(answered), tokens[worst], asked[worst], events)


def not_exact(run: RunEvidence) -> Iterator[Finding]:
    if not run.study.manifest.settings.get("exact_tokens"):
        return
    answered = _answered(run.study.measured)
    asked, tokens = _asked(run, answered), floats(answered["tokens"])
    # Where events are counted, the stop token that has none is missing.
    slack = np.where(answered["token_source"] == "events", 1.0, 0.0)
    unlike = answered[np.abs(tokens - asked) > slack]
    if len(unlike) > MOST_UNLIKE * len(answered):
        typical = ", ".join(f"{length:g}" for length in sorted(set(asked[~np.isnan(asked)]))[:3])
        seen = floats(unlike["tokens"])
        yield NOT_EXACT.finding(len(unlike), len(answered), typical, seen.min(), seen.max())


def prompts_unlike(run: RunEvidence) -> Iterator[Finding]:
    """Prompts whose length, by the server's count, is far from what the trace asks for."""
    rows = _answered(run.study.measured)[["asked_prompt_tokens", "prompt_tokens"]].dropna()
    rows = rows[rows["asked_prompt_tokens"] > 0]
    if rows.empty:
        return
    ratio = float(np.median(floats(rows["prompt_tokens"]) / floats(rows["asked_prompt_tokens"])))
    if abs(ratio - 1) <= NOTED_PROMPT:
        return
    asked, got = (int(rows[name].iloc[0]) for name in ("asked_prompt_tokens", "prompt_tokens"))
    severity: Severity = "suspect" if abs(ratio - 1) > FAR_PROMPT else "note"
    yield PROMPT_LENGTHS.finding(ratio, len(rows), asked, got, severity=severity)


def cut_reasoning(run: RunEvidence) -> Iterator[Finding]:
    answered = _answered(run.study.measured)
    cut = answered.loc[answered["answer_event"].isna(), "finish_reason"].dropna()
    if len(cut):
        yield CUT_REASONING.finding(len(cut), len(answered), cut.iloc[0])


def rate_limited(at: LevelEvidence) -> Iterator[Finding]:
    if refused := int((at.rows["outcome"] == "http_429").sum()):
        yield at.finding(RATE_LIMITED, refused, len(at.rows))


def limits_missed(at: LevelEvidence) -> Iterator[Finding]:
    limited = at.rows[at.rows["meets"].notna()]
    kept = limited["meets"].astype(bool)
    typed = at.study.manifest.settings.get("slo")
    of_command = typed if isinstance(typed, dict) else {}
    missed = []
    for task, item in at.study.limits.items():
        rows = limited[limited["task"] == task]
        if rows.empty or kept[rows.index].mean() >= item.share:
            continue
        answered = _answered(rows)
        parts = []
        for key, limit in item.limits.items():
            values, metric = floats(answered[column_of(key)]), METRICS[key]
            over = values < limit if metric.higher_is_better else values > limit
            if metric.null_meets_limit:
                over |= np.isnan(values) & answered["buffered"].to_numpy(dtype=bool)
            else:
                over |= np.isnan(values)
            if over.any():
                origin = "--slo" if key in of_command else "the scenario"
                parts.append(f"{key}={limit:g} of {origin} by {int(over.sum())}")
        if len(answered) < len(rows):
            parts.append(f"{len(rows) - len(answered)} had no answer")
        share = f"{kept[rows.index].mean():.1%} of {len(rows)} turns of {task} keep their limits"
        missed.append(f"{share}, {item.share:.0%} must: missed {', '.join(parts)}")
    if missed:
        yield at.finding(LIMITS_MISSED, missed="; ".join(missed))


def _answered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["outcome"].isin(ANSWERED)]


def _asked(run: RunEvidence, rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Tokens of the longest answer that each turn's request allowed; NaN where nobody knows any more."""
    asked = floats(rows["max_tokens"])
    settings = run.study.manifest.settings
    whole = settings.get("max_tokens") or (_DEFAULT_EXACT if settings.get("exact_tokens") else None)
    if isinstance(whole, int) and not isinstance(whole, bool):  # runs that did not write it beside each turn
        asked[np.isnan(asked)] = whole
    return asked
