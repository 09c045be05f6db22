"""--find-capacity against an emulator whose own parameters say where its limits stop to hold."""

from __future__ import annotations

from typing import Any

SLOTS = 8


def test_the_capacity_of_a_server_with_eight_slots_is_eight_people(server: Any, headless: Any) -> None:
    """A ninth person waits for an eighth of an answer of a second: 57 ms become more than 150 ms."""
    at = server("--schedule", "roofline", "--model", "yi-6b", "--max-num-seqs", str(SLOTS))
    load = headless(at, "--find-capacity", "--max-tokens", "60", "--exact-tokens", "--hold", "3s",
                    "--warmup", "1500ms", "--slo", "ttft_ms=150,share=0.8")  # fmt: skip
    assert load.end(150) == 0, load.said
    manifest = load.run().manifest
    told = manifest["capacity"]
    assert told["unit"] == "people"
    assert told["found"] is True
    assert abs(told["value"] / SLOTS - 1) <= 0.13, told  # a whole person is 12 % here
    assert len(told["points"]) <= 12
    assert [point["level"] for point in told["points"]] == list(range(len(manifest["levels"])))
    assert [point["load"] for point in told["points"]] == [level["users"] for level in manifest["levels"]]
    assert f"capacity: {told['value']:g} people" in load.said


def test_a_search_without_limits_is_refused(server: Any, headless: Any) -> None:
    load = headless(server(), "--find-capacity", "--levels", "1,2")
    assert load.end() == 2
    assert "--find-capacity and --levels exclude each other" in load.said
