"""How long did a number take, against what a plan foresaw? One row a server, as Markdown.

    python -m benchmarks.how_long -H http://127.0.0.1:8000 [--levels 16] [--pilot 30s] [--key ttg_p50=5%]
                                  [--hold 5m] [-- OPTIONS OF turnbench run]

First a pilot run of fixed length; from it the window that `turnbench plan` foresees, with its range; then a
run with --until, whose level ends by itself. The load and the number are the same in both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis.plan import FEW_BATCHES, LEAST_WINDOW_S, PilotCell, pilot_cells
from analysis.turns.study import study_run
from loadgen.options._values import until
from turnbench.formats import LevelEntry
from turnbench.run_directory import read_run
from turnbench.units import duration

HEADS = ("server", "people", "number", "pilot knew it to", "plan", "8 in 10", "took", "within")


def main() -> int:
    """Print one row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-H", "--host", required=True)
    parser.add_argument("--name", default="", help="what the row calls the server")
    parser.add_argument("--levels", default="16")
    parser.add_argument("--pilot", default="30s")
    parser.add_argument("--key", default="ttg_p50=5%")
    parser.add_argument("--hold", default="5m")
    parser.add_argument("more", nargs="*", help="after --: further options of a run")
    options = parser.parse_args()
    asked = until(options.key)
    common = ["-H", options.host, "--levels", options.levels, *options.more]
    with tempfile.TemporaryDirectory() as folder:
        pilot, then = Path(folder) / "pilot", Path(folder) / "then"
        _play(pilot, [*common, "--hold", options.pilot])
        cells = [cell for cell in pilot_cells([study_run(read_run(pilot))]) if cell.key == asked.key]
        _play(then, [*common, "--hold", options.hold, "--until", options.key, "--seed", "1"])
        manifest = read_run(then).manifest
    print("|", " | ".join(HEADS), "|")
    print("|---" * len(HEADS) + "|")
    if len(cells) != len(manifest.levels):
        print(
            f"no plan for each level: the pilot run of {options.pilot} finished too few turns",
            file=sys.stderr,
        )
        return 1
    for cell, level in zip(cells, manifest.levels, strict=True):
        print("|", " | ".join(_row(options.name or manifest.endpoint.model, cell, level, asked.share)), "|")
    return 0


def _row(server: str, cell: PilotCell, level: LevelEntry, asked_share: float) -> list[str]:
    foreseen_s, reached = cell.window_for(asked_share), level.until or None
    share, plan, spread = cell.runs[0].share, "not known", "-"
    if foreseen_s is not None:
        plan = duration(foreseen_s)
        spread = " to ".join(duration(max(foreseen_s * factor, LEAST_WINDOW_S)) for factor in FEW_BATCHES)
    return [
        server,
        cell.load,
        cell.key,
        "not known" if share is None else f"{share:.1%}",
        plan,
        spread,
        "-" if reached is None else duration(reached.after_s) + " (--hold)" * (not reached.early),
        "not known" if reached is None or reached.reached is None else f"{reached.reached:.1%}",
    ]


def _play(path: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "turnbench", "run", "--run-dir", str(path), "--no-analysis", *options]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
