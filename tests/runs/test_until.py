"""--until against a real emulator: levels end early, with workers and arrivals too."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "load",
    [("--levels", "4,8"), ("--levels", "6", "--processes", "2"), ("--arrival-rate", "12", "-t", "70s")],
)
def test_a_level_ends_once_its_number_is_known_and_both_files_say_so(
    server: Any, headless: Any, load: tuple[str, ...]
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "20")
    hold = () if "-t" in load else ("--hold", "60s")
    run = headless(at, *load, *hold, "--warmup", "1s", "--until", "ttg_p50=20%")
    run.end_as_judged(150)
    manifest = run.run().manifest
    for level in manifest.levels:
        until = level.until
        assert until.early, run.said
        assert until.reached <= until.share == 0.2
        assert 20 <= until.after_s <= 30
        assert (level.window_end_ns - level.window_start_ns) / 1e9 == until.after_s
    assert "--until ttg_p50=20%: within" in run.said
    summary = json.loads((run.run().path / "summary.json").read_text())
    assert summary["levels"][0]["until"]["reached"] == manifest.levels[0].until.reached
