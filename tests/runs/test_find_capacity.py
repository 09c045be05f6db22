"""--find-capacity against an emulator whose own parameters say where its limits stop to hold."""

from __future__ import annotations

from typing import Any

import pytest

SLOTS = 8


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_capacity_of_a_server_with_eight_slots_is_eight_people(server: Any, headless: Any) -> None:
    """A ninth person waits for an eighth of an answer of a second: 57 ms become more than 150 ms."""
    at = server("--schedule", "roofline", "--model", "yi-6b", "--max-num-seqs", str(SLOTS))
    load = headless(at, "--find-capacity", "-u", "5", "--max-tokens", "40", "--exact-tokens", "--hold", "2s",
                    "--warmup", "1s", "--slo", "ttft_ms=150,share=0.8", "--no-analysis")  # fmt: skip
    assert load.end(150) == 0, load.said
    manifest = load.run().manifest
    told = manifest.capacity
    assert told.unit == "people"
    assert told.found is True
    assert abs(told.value / SLOTS - 1) <= 0.26, told  # how near is the benchmark's affair
    assert len(told.points) <= 12
    assert [point.level for point in told.points] == list(range(len(manifest.levels)))
    assert [point.load for point in told.points] == [level.users for level in manifest.levels]
    assert f"capacity: {told.value:g} people" in load.said
    assert "level 2 of at most 12: 20 people" in load.said


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_a_search_in_arrivals_keeps_every_point_and_ends_where_nothing_holds(
    server: Any, headless: Any, more: list[str]
) -> None:
    at = server("--ttft", "20ms", "--itl", "2ms", "--tokens", "5")
    load = headless(at, "--find-capacity", "--arrival-rate", "40", "--slo", "ttft_ms=1", "--hold", "1s",
                    "--warmup", "0", "--no-analysis", *more)  # fmt: skip
    assert load.end() == 0, load.said
    manifest = load.run().manifest
    told = manifest.capacity
    assert (told.unit, told.value) == ("arrivals_per_s", None)
    assert [point.load for point in told.points] == [40.0, 10.0]
    assert [level.arrival_rate_per_s for level in manifest.levels] == [40.0, 10.0]
    assert all(point.turns >= 20 and point.met == 0 for point in told.points)
    assert "capacity: none" in load.said
