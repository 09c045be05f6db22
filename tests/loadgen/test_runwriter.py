"""The run directory as it is written: names that stay where they belong, and files that are whole."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._messages import TurnBegun
from loadgen.control._run_files import RunWriter, iso_now, new_run_dir
from loadgen.options._headers import recorded
from loadgen.options._settings import Settings
from turnbench.formats import HealthLine, RunManifest, ServerSample, TurnRecord
from turnbench.formats.turn import encode
from turnbench.names import slug
from turnbench.run_directory import read_run

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 2, 12, 0, 5, tzinfo=UTC)
NAME = "20260102T120005Z"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(st.text() | st.text(st.sampled_from("./\\- a\x00\n~$*é")))
def test_a_slug_is_one_plain_name_from_any_text(name: str) -> None:
    found = slug(name)
    assert 1 <= len(found) <= 60
    assert found.isascii()
    assert all(char.isalnum() or char in "._-" for char in found)
    assert found[0] not in ".-"
    assert (Path("runs") / found).parent == Path("runs")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("chat", "chat"),
        ("../../etc/passwd", "passwd"),
        ("..", "run"),
        ("/", "run"),
        ("", "run"),
        ("a/b.yaml", "b"),
        ("mistralai/Mistral-7B-v0.1", "Mistral-7B-v0.1"),
        ("v0.1", "v0.1"),
        ("mine.yml", "mine"),
        (".hidden", "hidden"),
        ("a b\n\x1b[31mc", "a-b-31mc"),
    ],
)
def test_these_names_become_these(name: str, found: str) -> None:
    assert slug(name) == found


def test_a_run_directory_is_named_by_time_and_scenario() -> None:
    assert new_run_dir(None, "../chat", NOON) == Path("runs") / f"{NAME}-chat"


def test_runs_of_the_same_second_are_numbered() -> None:
    names = [new_run_dir(None, "chat", NOON).name for _ in range(3)]
    assert names == [f"{NAME}-chat", f"{NAME}-chat-2", f"{NAME}-chat-3"]


def test_a_directory_that_exists_is_refused() -> None:
    assert new_run_dir("deep/er/mine", "chat", NOON) == Path("deep/er/mine")
    with pytest.raises(FileExistsError):
        new_run_dir("deep/er/mine", "chat", NOON)


def test_a_second_start_in_the_web_ui_is_numbered() -> None:
    assert [new_run_dir("mine", "chat", NOON, again=True).name for _ in range(3)] == [
        "mine",
        "mine-2",
        "mine-3",
    ]


def _record() -> TurnRecord:
    times = {"due_ns": 1, "sent_ns": 1, "end_ns": 2}
    return TurnRecord(run="one", conversation=0, turn=1, task="chat", model="m", **times)


def test_what_was_appended_can_be_read_back() -> None:
    writer = _writer("one")
    record = _record()
    writer.append("turns", 3, encode(record))
    writer.append("health", 3, b'{"t_ns": 1, "worker": 3}')
    writer.append("server", 3, b'{"t_ns": 2, "up": 1}')
    writer.close()
    assert sorted(path.name for path in writer.path.glob("*.jsonl")) == [
        "health-3.jsonl",
        "server.jsonl",
        "turns-3.jsonl",
    ]
    run = read_run(writer.path)
    assert (list(run.turns()), list(run.health()), list(run.server())) == (
        [record],
        [HealthLine(t_ns=1, worker=3)],
        [ServerSample(2, {"up": 1})],
    )
    assert (run.torn, run.scenario_text()) == (0, "name: é\n")


def test_flushed_lines_are_on_disk_before_the_end() -> None:
    writer = _writer("one")
    writer.append("health", 0, b"{}")
    writer.flush()
    assert (writer.path / "health-0.jsonl").read_bytes() == b"{}\n"
    writer.close()


def test_a_torn_last_line_is_counted_and_the_others_are_read() -> None:
    writer = _writer("one")
    record = _record()
    writer.append("turns", 0, encode(record))
    writer.append("turns", 0, encode(record)[:40])
    writer.close()
    run = read_run(writer.path)
    assert len(list(run.turns())) == 1
    assert run.torn == 1


def test_the_manifest_is_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at the worst moment, between writing and replacing, leaves the manifest from before."""
    writer = _writer("one")
    writer.manifest.status = "finished"
    monkeypatch.setattr(os, "replace", _killed)
    with pytest.raises(KeyboardInterrupt):
        writer.write_manifest()
    assert read_run(writer.path).manifest.status == "running"
    monkeypatch.undo()


def test_a_write_that_fails_half_way_leaves_the_old_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = _writer("one")
    writer.manifest.status = object()  # type: ignore[assignment]
    with pytest.raises(TypeError):
        writer.write_manifest()
    assert read_run(writer.path).manifest.status == "running"


def test_latest_points_to_the_newest_run() -> None:
    _writer("one")
    second = _writer("two")
    assert (Path("runs") / "LATEST").resolve() == second.path.resolve()
    assert not list(Path("runs").glob(".LATEST*"))


def test_somebodys_own_file_named_latest_is_left_alone() -> None:
    Path("runs").mkdir()
    (Path("runs") / "LATEST").write_text("mine")
    _writer("one")
    assert (Path("runs") / "LATEST").read_text() == "mine"


def test_a_latest_that_points_nowhere_is_mended() -> None:
    first = _writer("one")
    os.unlink(first.path / "run.json")
    (first.path / "scenario.yaml").unlink()
    first.path.rmdir()
    second = _writer("two")
    assert (Path("runs") / "LATEST").resolve() == second.path.resolve()


def test_times_of_the_manifest_are_in_utc() -> None:
    assert datetime.fromisoformat(iso_now()).utcoffset() == datetime.now(UTC).utcoffset()


def _writer(name: str) -> RunWriter:
    path = new_run_dir(f"runs/{name}", "chat", NOON)
    return RunWriter(path, RunManifest(), "name: é\n")


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_manifest_is_json_for_every_reader() -> None:
    writer = _writer("one")
    assert json.loads((writer.path / "run.json").read_text()) == msgspec.to_builtins(writer.manifest)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "fixtures").rglob("run.json")), ids=lambda p: p.parent.name
)
def test_a_run_of_the_version_before_would_be_written_with_the_same_keys_and_values(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    folder = new_run_dir("again", "chat", NOON)
    RunWriter(folder, msgspec.convert(stored, RunManifest), "")
    assert json.loads((folder / "run.json").read_text()) == stored
    keys = list(recorded(Settings(host="http://127.0.0.1:8000")))
    newer = (
        "no_analysis", "until", "dialect", "skip_bad_rows", "ca", "cert", "cache", "gpu_metrics", "gpu_price",
        "metrics_port", "otlp",
    )  # fmt: skip
    assert [key for key in keys if key not in newer] == list(stored["settings"])


async def test_turns_are_counted_in_the_file_that_outlives_the_engine_before_the_server_sees_them(
    serve: Any, client: Any, tmp_path: Path
) -> None:
    path, seen = tmp_path / "counts-0.json", []
    path.touch()

    async def script(peer: Any) -> None:
        for _ in range(2):
            await peer.request()
            seen.append(msgspec.json.decode(path.read_bytes(), type=HealthLine))
            await peer.head()
            await peer.finish(peer.words("Hi") + peer.END)

    server = await serve(script)
    person = client(server.url, turns=2, counts_path=str(path))
    await person.ended(person.start())
    assert [(line.planned, line.begun, line.finished) for line in seen] == [(1, 1, 0), (2, 2, 1)]
    assert not any(isinstance(message, TurnBegun) for message in person.messages)


@pytest.mark.parametrize("path", ["", "/nowhere/counts-0.json"])
async def test_turns_are_reported_where_that_file_is_on_another_machine(
    serve: Any, client: Any, path: str
) -> None:
    server = await serve(lambda peer: peer.answer())
    person = client(server.url, counts_path=path)
    await person.ended(person.start())
    assert [message.begun for message in person.messages if isinstance(message, TurnBegun)] == [1]
