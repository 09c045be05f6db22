"""What one turn measured: every metric is one function here, and the only definition of it.

A metric that `@metric` registers appears as a distribution in every cell of summary.json, in summary.csv, in
the report's glossary and in docs/metrics.md; one with `limit` is also a key of --slo. Nothing else needs to
know of it. Functions compute all turns at once; NaN where a number has no meaning for a turn, never 0.

a_1..a_k are the arrivals of a turn's content events, n_i the tokens in event i, N_k those counted up to a_k
and N all output tokens (see `turnbench.turns.Turns`, which knows how tokens are counted).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from turnbench.turns import Bools, Events, Floats, Ints, Turns, Whole

Compute = Callable[[Turns], Floats]


@dataclass(frozen=True)
class Metric:
    """A number of a turn, or of each gap between two events of a turn."""

    key: str
    """Its name in summary.json, with its unit."""
    label: str
    """What tables and plots call it."""
    unit: str
    definition: str
    """What it is, in a sentence or two for the glossary."""
    source: str
    """Where the definition comes from."""
    compute: Compute
    """A value for each turn; for `per="gap"` one for each gap, turn after turn."""
    per: Literal["turn", "gap"] = "turn"
    higher_is_better: bool = False
    """Then a turn that did not end ranks below all others, and not above."""
    limit: bool = False
    """Whether --slo and a scenario's `slo` may limit it."""
    null_meets_limit: bool = False
    """Whether a turn without this number meets a limit on it."""
    early: bool = False
    """Whether it is settled before the answer ends, so that a turn which never ended may have it."""


METRICS: dict[str, Metric] = {}
"""Every metric by its key, in the order in which summaries and tables show them."""


def metric(
    *,
    label: str,
    unit: str,
    source: str,
    per: Literal["turn", "gap"] = "turn",
    higher_is_better: bool = False,
    limit: bool = False,
    null_meets_limit: bool = False,
    early: bool = False,
) -> Callable[[Compute], Compute]:
    """Register a function as the metric of its name, its docstring's first paragraph as the definition."""

    def register(compute: Compute) -> Compute:
        first_paragraph = inspect.cleandoc(compute.__doc__ or "").split("\n\n")[0]
        key, definition = compute.__name__, " ".join(first_paragraph.split())
        METRICS[key] = Metric(
            key,
            label,
            unit,
            definition,
            source,
            compute,
            per,
            higher_is_better,
            limit,
            null_meets_limit,
            early,
        )
        return compute

    return register


_USUAL = "as vLLM's and other serving benchmarks define it, with arrivals stamped by the kernel"
_STUDY = "Conde et al., IEEE Computer 2024"


@metric(label="TTFT", unit="ms", source=_USUAL, limit=True, early=True)
def ttft_ms(turns: Turns) -> Floats:
    """Time to first token, a_1 - sent: from the last byte of the request to the arrival of the first event
    with content, of any kind."""
    return turns.events.first(turns.events.at_us) / 1e3


@metric(label="TTFAT", unit="ms", source="TTFT for models that reason before they answer", early=True)
def ttfat_ms(turns: Turns) -> Floats:
    """Time to first answer token: as TTFT, of the first event that is not reasoning."""
    index, events = turns.answer_event, turns.events
    present = (index >= 0) & (index < events.counts)
    out = np.full(len(index), np.nan)
    out[present] = events.at_us[events.offsets[:-1][present] + index[present].astype(np.int64)] / 1e3
    return out


@metric(
    label="response delay",
    unit="ms",
    source="counting from when a request was due avoids coordinated omission (Tene 2013)",
    limit=True,
    early=True,
)
def response_delay_ms(turns: Turns) -> Floats:
    """First token minus the moment the turn was due, a_1 - due: what the person waited, also for a client or
    queue that was late."""
    return ttft_ms(turns) + turns.late_ms


@metric(label="TTG", unit="ms", source=_STUDY, limit=True)
def ttg_ms(turns: Turns) -> Floats:
    """Time to generate, a_k - sent, the headline: from the last byte of the request to the arrival of the
    last piece of the answer."""
    return turns.events.last(turns.events.at_us) / 1e3


_EXACT_TOKENS = 256


@metric(label="TTG@256", unit="ms", source=f"{_STUDY}, whose answers had 256 tokens", early=True)
def ttg256_ms(turns: Turns) -> Floats:
    """From the last byte of the request to the arrival of the 256th token; none where the answer was shorter,
    never extrapolated."""
    return turns.events.reaching(turns.events.tokens, _EXACT_TOKENS) / 1e3


@metric(label="TPOT", unit="ms", source=_USUAL, limit=True, null_meets_limit=True)
def tpot_ms(turns: Turns) -> Floats:
    """Time per output token after the first event, (a_k - a_1) / (N_k - n_1); none where all tokens came
    with the first event, or where a gateway held the answer back and sent it whole."""
    found = _ratio(ttg_ms(turns) - ttft_ms(turns), turns.later_tokens)
    found[turns.buffered] = np.nan
    return found


@metric(label="inter-event", unit="ms", source=_USUAL, per="gap")
def itl_ms(turns: Turns) -> Floats:
    """Time between two events with content, a_(i+1) - a_i. Between tokens only where each event carries
    one."""
    first = np.zeros(len(turns.events.at_us), dtype=bool)
    first[turns.events.offsets[:-1][turns.events.counts > 0]] = True
    return turns.events.gaps_ms(np.flatnonzero(~first))


@metric(label="decode rate", unit="tokens/s", source="1 / TPOT", higher_is_better=True)
def decode_tokens_per_s(turns: Turns) -> Floats:
    """Tokens a second after the first event, 1 / TPOT: the speed without the wait before it."""
    return _ratio(np.full(len(turns.outcomes), 1e3), tpot_ms(turns))


@metric(label="request TPS", unit="tokens/s", source=_STUDY, higher_is_better=True)
def request_tps(turns: Turns) -> Floats:
    """Tokens a second of one turn, N / TTG: short answers are mostly the wait for the first token."""
    return _ratio(turns.output_tokens, ttg_ms(turns) / 1e3)


@metric(label="stall", unit="ms", source="reading speed: Brysbaert, Journal of Memory and Language 2019")
def stall_ms(turns: Turns) -> Floats:
    """Time that a reader at 238 words a minute waits for text after the first word.

    Who starts at the first word and never reads ahead of the text has waited, at the end, the largest of
    (arrival of a word - first arrival - time to read the words before it).
    """
    events, us_per_word = turns.events, 60e6 / turns.words_per_min
    words = _answer_words(turns)
    late_us = np.where(words > 0, events.at_us - events.before(words) * us_per_word, -np.inf)
    stall_us = events.maxima(late_us) - events.reaching(words, 1)
    return np.where(np.isfinite(stall_us), stall_us / 1e3, np.nan)


@metric(label="output tokens", unit="tokens", source="the server's usage, else counted events")
def output_tokens(turns: Turns) -> Floats:
    """All tokens of the answer, N, as the server counts them."""
    return turns.output_tokens


def fluidity(events: Events, prefill_ms: Floats, decode_ms: Floats) -> tuple[Floats, Floats]:
    """(deadlines met, deadlines in all) of each turn's tokens; both 0 for a turn without events.

    After Metron/Etalon (arXiv 2407.07000). Token i is due at prefill + i * decode, each turn's own deadlines.
    An early token keeps the slack it earned; a late one misses every deadline that went by until it came,
    and the deadlines after it start anew from its arrival.
    """
    met, missed = events.sums(events.tokens), np.zeros(len(events.counts))
    due, decode = prefill_ms.astype(np.float64), decode_ms.astype(np.float64)
    # Most turns meet every first deadline and need no second look.
    spent_ms = events.before(events.tokens) * np.repeat(decode_ms, events.counts)
    latest_ms = events.maxima(events.at_us / 1e3 - spent_ms)
    behind = np.flatnonzero(latest_ms > prefill_ms - _ROUNDING_MS)
    met[behind] = 0
    order = behind[np.argsort(-events.counts[behind], kind="stable")]
    counts = events.counts[order]
    longest = int(counts[0]) if len(order) else 0
    lives = np.searchsorted(-counts, -np.arange(longest), side="left")
    for step, live in enumerate(lives):  # turns with an i-th event are the first `live` in this order
        rows: Ints = order[:live]
        where = events.offsets[rows] + step
        at_ms, tokens = events.at_us[where] / 1e3, events.tokens[where]
        # The first token of an event has the nearest deadline, the rest come at the same time.
        late: Bools = (tokens > 0) & (at_ms > due[rows])
        missed[rows] += np.where(late, np.floor((at_ms - due[rows]) / decode[rows]) + 1, 0.0)
        met[rows] += tokens - late
        due[rows] = np.where(late, at_ms, due[rows]) + tokens * decode[rows]
    return met, met + missed


_ROUNDING_MS = 1e-6


def metrics_page() -> str:
    """The text of docs/metrics.md."""
    lines = [
        "# Metrics of a turn",
        "",
        "Generated from `turnbench/metrics.py` by `turnbench schema`; edit it there.",
        "",
        "`sent` is the last byte of the request, `due` the moment the turn should start, `a_1..a_k` the",
        "arrivals of the events with content, `n_i` the tokens in event i, `N_k` the tokens counted up to",
        "`a_k`, `N` all output tokens.",
        "",
        "| key | name | unit | definition | source | limit of --slo |",
        "|---|---|---|---|---|---|",
    ]
    for one in METRICS.values():
        cells = (f"`{one.key}`", one.label, one.unit, one.definition, one.source, "yes" if one.limit else "")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(above: Floats, below: Floats) -> Floats:
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _answer_words(turns: Turns) -> Whole:
    """Words of each event, without those of the reasoning before the answer."""
    answer, events = np.nan_to_num(turns.answer_event, nan=np.inf), turns.events
    if not ((answer > 0) & (events.counts > 0)).any():
        return events.words
    index = np.arange(len(events.at_us)) - np.repeat(events.offsets[:-1], events.counts)
    return np.where(index >= np.repeat(answer, events.counts), events.words, 0)
