"""Whether a turn meets its limits, by the definitions of the analysis."""

from __future__ import annotations

from collections.abc import Mapping

from turnbench.formats import TurnRecord


def meets(record: TurnRecord, limits: Mapping[str, float]) -> bool:
    """Its outcome is ok and every limited value is at or under its limit; a null TPOT passes."""
    if record.outcome != "ok" or record.sent_ns is None or not record.event_us:
        return False
    first_ms, last_ms = record.event_us[0] / 1000, record.event_us[-1] / 1000
    values = {
        "ttft_ms": first_ms,
        "response_delay_ms": first_ms + (record.sent_ns - record.due_ns) / 1e6,
        "ttg_ms": last_ms,
        "tpot_ms": _tpot_ms(record),
    }
    return all(
        value is None or value <= limits[name] + 1e-9 for name, value in values.items() if name in limits
    )


def _tpot_ms(record: TurnRecord) -> float | None:
    """(a_k - a_1) / (N_k - n_1); null where k = 1 or nothing was counted after the first event."""
    tokens = record.event_tokens or [1] * len(record.event_us)
    after = sum(tokens) - tokens[0]
    if len(record.event_us) < 2 or after <= 0:
        return None
    return (record.event_us[-1] - record.event_us[0]) / 1000 / after
