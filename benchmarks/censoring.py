"""What is reported where turns were given up before their answers had ended? Made runs whose truth is known.

    python -m benchmarks.censoring [--turns 2000]

Every answer is drawn whole, then none, a tenth, three tenths and six tenths of them are ended early: the
slowest by one deadline, or any by a person who leaves at a moment of their own. The table has, for each
number, the truth, what is reported, and what those alone say that ended (in brackets).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from analysis.summary import summarise
from analysis.turns.study import study_run
from benchmarks.scale import START_NS
from turnbench.formats import RUN_FORMAT, CellSummary, Distribution, TurnRecord
from turnbench.metrics import METRICS, Metric
from turnbench.run_directory import read_run
from turnbench.turns import Floats, turns_of

How = Literal["deadline", "abandoned"]
SHARES = (0.0, 0.1, 0.3, 0.6)
LIMITS = {"t": {"ttft_ms": 1000.0, "ttg_ms": 3000.0}}
WINDOW_S = 600.0
_PER_CONVERSATION = 2


@dataclass(frozen=True)
class Censored:
    """One made run: what is reported of it, and the whole answers that it would have had."""

    cell: CellSummary
    true: dict[str, Floats]
    """Each metric of the whole answers, without turns that have none."""
    ended: dict[str, Floats]
    """Of those alone that ended."""
    met: int
    """Whole answers within all limits that ended, too."""


def drawn(turns: int, seed: int) -> list[TurnRecord]:
    """Whole answers: log-normal first tokens, lengths and speeds that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(turns):
        events = int(np.clip(rng.lognormal(4.4, 0.6), 2, 2000))
        gaps_ms = 20 * rng.lognormal(0, 0.3) * rng.lognormal(0, 0.3, events - 1)
        at_ms = np.concatenate(([0.0], np.cumsum(gaps_ms))) + rng.lognormal(5.7, 0.5)
        sent_ns = START_NS + round(number / turns * WINDOW_S * 1e9)
        found.append(
            TurnRecord(
                run="made",
                conversation=number // _PER_CONVERSATION,
                turn=number % _PER_CONVERSATION + 1,
                last=number % _PER_CONVERSATION == 1,
                task="t",
                model="m",
                due_ns=sent_ns - round(rng.exponential(1e6)),
                sent_ns=sent_ns,
                end_ns=sent_ns + round(at_ms[-1] * 1e6),
                event_us=np.round(at_ms * 1e3).astype(int).tolist(),
                event_words=[1] * events,
                event_tokens=[1] * events,
                answer_event=0,
                output_tokens=events,
                prompt_tokens=50,
                token_source="continuous_usage",
                words=events,
                chars=5 * events,
                finish_reason="stop",
                status=200,
            )
        )
    return found


def given_up(whole: list[TurnRecord], share: float, how: How, seed: int) -> list[TurnRecord]:
    """The same turns, this share of them ended before their answers had."""
    last_ms = np.array([record.event_us[-1] / 1e3 for record in whole])
    if share == 0:
        return whole
    if how == "deadline":
        watched_ms = np.full(len(whole), float(np.quantile(last_ms, 1 - share)))
    else:  # uniform up to a time that leaves the share of turns open
        uniform = np.random.default_rng(seed).random(len(whole))
        watched_ms = uniform * float(np.quantile(last_ms / uniform, 1 - share))
    found = []
    for record, last, until_ms in zip(whole, last_ms.tolist(), watched_ms.tolist(), strict=True):
        seen = sum(us <= until_ms * 1e3 for us in record.event_us)
        cut = msgspec.structs.replace(
            record, outcome=how, end_ns=(record.sent_ns or 0) + round(until_ms * 1e6), output_tokens=None,
            event_us=record.event_us[:seen], event_words=record.event_words[:seen],
            event_tokens=(record.event_tokens or [])[:seen], answer_event=0 if seen else None, words=seen,
            chars=5 * seen, finish_reason=None,
        )  # fmt: skip
        found.append(cut if last > until_ms else record)
    return found


def made(share: float, how: How, turns: int = 2000, seed: int = 1) -> Censored:
    """What is reported of a run of so many turns of which this share was given up."""
    whole = drawn(turns, seed)
    records = given_up(whole, share, how, seed)
    times = dict.fromkeys(("start_ns", "window_start_ns"), START_NS)
    times |= dict.fromkeys(("window_end_ns", "end_ns"), START_NS + round(WINDOW_S * 1e9))
    level = {"index": 0, "users": 4} | times
    manifest = {"format": RUN_FORMAT, "status": "finished", "levels": [level], "workers": [], "slo": LIMITS}
    with tempfile.TemporaryDirectory(prefix="turnbench-censoring-") as folder:
        path = Path(folder)
        (path / "run.json").write_bytes(msgspec.json.encode(manifest))
        (path / "turns-0.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(records))
        cell = summarise(study_run(read_run(path))).cells[0]
    kept = [record for record in records if record.outcome == "ok"]
    true, ended = values(whole), values(kept)
    ttft, ttg = (metric.compute(turns_of(kept)) for metric in (METRICS["ttft_ms"], METRICS["ttg_ms"]))
    met = int(((ttft <= LIMITS["t"]["ttft_ms"]) & (ttg <= LIMITS["t"]["ttg_ms"])).sum())
    return Censored(cell, true, ended, met)


def values(records: list[TurnRecord]) -> dict[str, Floats]:
    """Each metric of a turn over these, without those that have none."""
    found = {}
    for metric in per_turn():
        of_all = metric.compute(turns_of(records))
        found[metric.key] = of_all[~np.isnan(of_all)]
    return found


def per_turn() -> list[Metric]:
    """The metrics of a turn; gaps between events are of answers that ended."""
    return [metric for metric in METRICS.values() if metric.per == "turn"]


def in_words(found: Distribution, name: str) -> str:
    """A percentile of waits or rates as reported: the number, or what it is at least."""
    value = getattr(found, name)
    if value is not None:
        return f"{value:.0f}"
    return f">= {found.bound[name]:.0f}" if name in found.bound else "null"


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=2000)
    turns = parser.parse_args().turns
    heads = " | ".join(f"{share:.0%} given up" for share in SHARES)
    print(f"| {turns} turns | truth | {heads} |\n|---|---|{'---|' * len(SHARES)}")
    for how, words in (("deadline", "by a deadline"), ("abandoned", "by people who leave")):
        runs = [made(share, how, turns) for share in SHARES]  # type: ignore[arg-type]
        for key in ("ttft_ms", "ttg_ms", "ttg256_ms", "tpot_ms", "request_tps"):
            metric, true = METRICS[key], runs[0].true[key]
            for name, quantile in (("p50", 0.5), ("p90", 0.9)):
                cells = []
                for run in runs:
                    alone = run.ended[key]
                    ended = f"{np.quantile(alone, quantile):.0f}" if len(alone) else "none"
                    cells.append(f"{in_words(run.cell.values[key], name)} ({ended})")
                label = f"{metric.label} {name}, {metric.unit}, {words}"
                print(f"| {label} | {np.quantile(true, quantile):.0f} | {' | '.join(cells)} |")
        means = []
        for run in runs:
            ttg = run.cell.values["ttg_ms"]
            horizon = np.inf if ttg.mean_to is None else ttg.mean_to
            means.append(f"{ttg.mean:.0f}, of {np.minimum(run.true['ttg_ms'], horizon).mean():.0f}")
        print(f"| TTG restricted mean, of the truth up to the same time, {words} | | {' | '.join(means)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
