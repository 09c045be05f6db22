"""Measured beside predicted: the rows of a run's levels, their table, and how far off they are."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from serve.calibrate.fit import LEAST_TURNS, too_few
from serve.calibrate.recorded import LevelFigures, RecordedLevel, RecordedTurn, figures_of
from serve.calibrate.replay import ReplayedServer, replay_people

FIGURES = {"ttft_ms": "TTFT p50, ms", "tpot_ms": "TPOT p50, ms", "aggregate_tps": "tokens/s"}
ERRORS = {"ttft_ms": "ttft_error", "tpot_ms": "tpot_error", "aggregate_tps": "tps_error"}


@dataclass(frozen=True, slots=True)
class PredictedRow:
    """One level, or a task of it, as it was and as the emulator has it."""

    users: int
    task: str
    """Empty: all of them."""
    fitted: bool
    """The emulator was fitted to it."""
    measured: LevelFigures
    predicted: LevelFigures

    def error(self, name: str) -> float:
        """Predicted over measured, less one."""
        measured: float = getattr(self.measured, name)
        return float(getattr(self.predicted, name)) / measured - 1


def predicted_rows(
    level: RecordedLevel, server: ReplayedServer, *, fitted: bool = False, by_task: bool = False
) -> list[PredictedRow]:
    """The level played again on this server; raises CannotCalibrate for one of too few turns."""
    measured, played = level.measured(), replay_people(level, server)

    def row(task: str, turns: list[RecordedTurn]) -> PredictedRow:
        if len(turns) < LEAST_TURNS:
            raise too_few(level, f"{len(turns)} measured turns{f' of {task}' if task else ''}")
        return PredictedRow(
            level.users, task, fitted, figures_of(level, turns), figures_of(played, played.the_same(turns))
        )

    if not by_task:
        return [row("", measured)]
    tasks = dict.fromkeys(turn.task for turn in measured)
    return [row(task, [turn for turn in measured if turn.task == task]) for task in tasks]


def median_errors(rows: list[PredictedRow]) -> dict[str, float | None]:
    """On the levels that no fit has seen; None where there is no such level."""
    unseen = [row for row in rows if not row.fitted]
    return {
        key: median(abs(row.error(name)) for row in unseen) if unseen else None
        for name, key in ERRORS.items()
    }


def median_errors_in_words(rows: list[PredictedRow]) -> str:
    """`TTFT 3.1%, TPOT 2.0%, tokens/s 1.5%`; empty where no level is left to judge by."""
    errors = median_errors(rows)
    shown = [
        f"{FIGURES[name].split()[0].rstrip(',')} {errors[key]:.1%}"
        for name, key in ERRORS.items()
        if errors[key] is not None
    ]
    return ", ".join(shown)


def rows_table(rows: list[PredictedRow]) -> list[str]:
    """The lines of the table."""
    width = max([len(row.task) for row in rows])
    blank = " " * (width + 1 if width else 0)
    head = "people  " + blank
    lines = [" " * len(head) + "".join(f"{title:^31}" for title in FIGURES.values())]
    lines += [head + "   measured predicted    error " * len(FIGURES) + "  turns"]
    return lines + [_line(row, f"{row.task:<{width}} " if width else "") for row in rows]


def _line(row: PredictedRow, task: str) -> str:
    cells = "".join(
        f"{getattr(row.measured, name):>11.4g}{getattr(row.predicted, name):>10.4g}{row.error(name):>+9.1%} "
        for name in FIGURES
    )
    turns = f"{row.measured.turns}/{row.predicted.turns}"
    return f"{row.users:>5}{'*' if row.fitted else ' '}  {task}{cells}{turns:>7}"
