"""What one turn measured, for all turns at once.

a_1..a_k are the arrivals of its content events, N_k the tokens counted up to a_k, N all output tokens.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.stats.arrays import Bools, Events, Floats, Whole
from analysis.turns.fluidity import fluidity

WORDS_PER_MIN = 238.0
"""Silent reading of most adults (Brysbaert 2019)."""
_EXACT_TOKENS = 256


def turn_metrics(
    frame: pd.DataFrame,
    events: Events,
    prefill_ms: Floats,
    decode_ms: Floats,
    words_per_min: float = WORDS_PER_MIN,
) -> pd.DataFrame:
    """Metrics of every row; NaN where a number has no meaning for a turn, never 0.

    prefill_ms, decode_ms: each row's deadlines for the fluidity index; words_per_min: the reader's speed,
    for stalls.
    """
    first_ms, last_ms = events.first(events.at_us) / 1e3, events.last(events.at_us) / 1e3
    counted = events.sums(events.tokens)
    output = floats(frame["output_tokens"])
    output = np.where(np.isnan(output), np.where(events.counts > 0, counted, np.nan), output)
    split_known, scale = _token_scale(frame, counted, output)
    late_ms = floats(frame["sent_ns"] - frame["due_ns"]) / 1e6
    met, total = fluidity(events, prefill_ms, decode_ms)
    later = np.where(events.counts > 1, (counted - events.first(events.tokens)) * scale, 0.0)
    # TPOT is (a_k - a_1) / (N_k - n_1); null for one event, or where all tokens came with the first.
    tpot_ms = _ratio(last_ms - first_ms, later)
    ttg_ms = last_ms
    return pd.DataFrame(
        {
            "ttft_ms": first_ms,
            "ttfat_ms": _first_answer_ms(frame, events),
            "response_delay_ms": first_ms + late_ms,
            "ttg_ms": ttg_ms,
            "ttg256_ms": np.where(split_known, events.reaching(events.tokens, _EXACT_TOKENS) / 1e3, np.nan),
            "tpot_ms": tpot_ms,
            "request_tps": _ratio(output, ttg_ms / 1e3),
            "decode_tokens_per_s": _ratio(np.full(len(frame), 1e3), tpot_ms),
            "stall_ms": _stall_ms(frame, events, words_per_min),
            "tokens": output,
            "event_token_sum": counted,
            "token_scale": scale,
            "later_tokens": np.where(events.counts > 0, later, np.nan),
            "fluid_met": met,
            "fluid_total": total,
        },
        index=frame.index,
    )


def floats(series: pd.Series) -> Floats:
    """A column as floats, NaN where it is null."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def _ratio(above: Floats, below: Floats) -> Floats:
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _token_scale(frame: pd.DataFrame, counted: Floats, output: Floats) -> tuple[Bools, Floats]:
    """(whether the events' tokens are known, tokens that one counted token stands for), a turn.

    Where the server gives only a final count that the events can't explain (one more is the stop token),
    events carried several tokens: the count is the server's, spread evenly, instead of one an event.
    """
    odd = (frame["token_source"] == "usage").to_numpy(copy=True) & (counted > 0)
    odd &= (output > counted + 1) | (output < counted)
    scale = np.ones(len(frame))
    np.divide(output, counted, out=scale, where=odd)
    return ~odd, scale


def _first_answer_ms(frame: pd.DataFrame, events: Events) -> Floats:
    index = floats(frame["answer_event"])
    present = (index >= 0) & (index < events.counts)
    out = np.full(len(frame), np.nan)
    out[present] = events.at_us[events.offsets[:-1][present] + index[present].astype(np.int64)] / 1e3
    return out


def _stall_ms(frame: pd.DataFrame, events: Events, words_per_min: float) -> Floats:
    """Time a reader of the answer waits for text after its first word.

    A reader who starts at the first word and never reads ahead of the text has waited, at the end,
    the largest of (arrival of a word - first arrival - time to read the words before it).
    """
    us_per_word = 60e6 / words_per_min
    words = _answer_words(frame, events)
    late_us = np.where(words > 0, events.at_us - events.before(words) * us_per_word, -np.inf)
    stall_us = events.maxima(late_us) - events.reaching(words, 1)
    return np.where(np.isfinite(stall_us), stall_us / 1e3, np.nan)


def _answer_words(frame: pd.DataFrame, events: Events) -> Whole:
    """Words of each event, without those of the reasoning before the answer."""
    answer = np.nan_to_num(floats(frame["answer_event"]), nan=np.inf)
    if not ((answer > 0) & (events.counts > 0)).any():
        return events.words
    index = np.arange(len(events.at_us)) - np.repeat(events.offsets[:-1], events.counts)
    return np.where(index >= np.repeat(answer, events.counts), events.words, 0)
