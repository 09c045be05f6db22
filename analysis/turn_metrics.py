"""What one turn measured: each number as `docs/metrics.md` defines it, for all turns at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.arrays import Bools, Events, Floats
from analysis.fluidity import fluidity

WORDS_PER_MIN = 238.0
"""Silent reading of most adults (Brysbaert 2019)."""
_EXACT_TOKENS = 256


def turn_metrics(frame: pd.DataFrame, events: Events, prefill_ms: Floats, decode_ms: Floats) -> pd.DataFrame:
    """Metrics of every row; NaN where a number has no meaning for a turn, never 0.

    prefill_ms, decode_ms: each row's deadlines for the fluidity index.
    """
    first_ms, last_ms = events.first(events.at_us) / 1e3, events.last(events.at_us) / 1e3
    counted = events.sums(events.tokens)
    output = floats(frame["output_tokens"])
    output = np.where(np.isnan(output), np.where(events.counts > 0, counted, np.nan), output)
    split_known, scale = _token_scale(frame, counted, output)
    late_ms = floats(frame["sent_ns"] - frame["due_ns"]) / 1e6
    met, total = fluidity(events, prefill_ms, decode_ms)
    tpot_ms = _tpot_ms(events, first_ms, last_ms, counted, scale)
    ttg_ms = last_ms
    return pd.DataFrame(
        {
            "ttft_ms": first_ms,
            "ttfat_ms": _first_answer_ms(frame, events),
            "response_delay_ms": first_ms + late_ms,
            "ttg_ms": ttg_ms,
            "ttg256_ms": np.where(split_known, _arrival_of_token_ms(events, _EXACT_TOKENS), np.nan),
            "tpot_ms": tpot_ms,
            "request_tps": _ratio(output, ttg_ms / 1e3),
            "decode_tokens_per_s": _ratio(np.full(len(frame), 1e3), tpot_ms),
            "stall_ms": _stall_ms(frame, events),
            "tokens": output,
            "token_scale": scale,
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


def _tpot_ms(events: Events, first_ms: Floats, last_ms: Floats, counted: Floats, scale: Floats) -> Floats:
    """(a_k - a_1) / (N_k - n_1); null for one event, or where all tokens came with the first."""
    later = (counted - events.first(events.tokens)) * scale
    return _ratio(last_ms - first_ms, np.where(events.counts > 1, later, 0.0))


def _first_answer_ms(frame: pd.DataFrame, events: Events) -> Floats:
    index = floats(frame["answer_event"])
    present = (index >= 0) & (index < events.counts)
    out = np.full(len(frame), np.nan)
    out[present] = events.at_us[events.offsets[:-1][present] + index[present].astype(np.int64)] / 1e3
    return out


def _arrival_of_token_ms(events: Events, number: int) -> Floats:
    """Arrival of the number-th token; null where fewer came, never extrapolated."""
    arrived = np.where(events.running(events.tokens) >= number, -events.at_us, -np.inf)
    earliest = -events.maxima(arrived)
    return np.where(np.isfinite(earliest), earliest / 1e3, np.nan)


def _stall_ms(frame: pd.DataFrame, events: Events, words_per_min: float = WORDS_PER_MIN) -> Floats:
    """Time a reader of the answer waits for text after its first word.

    A reader who starts at the first word and never reads ahead of the text has waited, at the end,
    the largest of (arrival of a word - first arrival - time to read the words before it).
    """
    ms_per_word = 60e3 / words_per_min
    index = np.arange(len(events.at_us)) - np.repeat(events.offsets[:-1], events.counts)
    answer = np.repeat(np.nan_to_num(floats(frame["answer_event"]), nan=np.inf), events.counts)
    words = np.where(index >= answer, events.words, 0)
    before = events.running(words) - words
    slack = np.where(words > 0, events.at_us / 1e3 - before * ms_per_word, -np.inf)
    first = np.where((words > 0) & (before == 0), slack, -np.inf)
    has_words = events.sums(words) > 0
    return np.subtract(events.maxima(slack), events.maxima(first), where=has_words, out=_nans(len(frame)))


def _nans(length: int) -> Floats:
    return np.full(length, np.nan)
