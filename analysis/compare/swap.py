"""The swap table: how long would model A take for answers as long as model B's?"""

from __future__ import annotations

from typing import Any

import pandas as pd


def swap_of(rows: pd.DataFrame) -> dict[str, Any] | None:
    """`{names, time_ms}`: row A, column B is A's mean TTFT + A's time per token x B's mean length.

    The diagonal is each model's own mean time to generate. Lengths are in tokens after the first event, each
    counted by the tokenizer of the model that wrote them. None with fewer than two models.
    """
    ok = rows[(rows["outcome"] == "ok") & rows["ttft_ms"].notna() & rows["later_tokens"].notna()]
    if ok["name"].nunique() < 2:
        return None
    by = ok.assign(after_ms=ok["ttg_ms"] - ok["ttft_ms"]).groupby("name", sort=True)
    first_ms, length = by["ttft_ms"].mean(), by["later_tokens"].mean()
    pace_ms = (by["after_ms"].sum() / by["later_tokens"].sum().where(lambda total: total > 0)).astype(float)
    names = [str(name) for name in first_ms.index]
    table = [
        [
            None if pd.isna(pace_ms.iloc[a]) else float(first_ms.iloc[a] + pace_ms.iloc[a] * length.iloc[b])
            for b in range(len(names))
        ]
        for a in range(len(names))
    ]
    return {"names": names, "time_ms": table}
