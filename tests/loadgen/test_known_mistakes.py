"""How other tools got these numbers wrong: one test each, from bytes on a socket to the reported number.

Where the mistake is one of summing up, records are made and only the summing up is driven.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.conftest import MadeRun, cell_of, checks, level, summary_of, turn
from turnbench.clock import Timeline
from turnbench.formats import TurnRecord

GAP_S = 0.1


def reported(path: Path, records: list[TurnRecord]) -> dict[str, Any]:
    """The summary of a run that holds these records, as the analysis reads them from its directory."""
    return summary_of(MadeRun(path / "run", records, levels=[]))


def the_cell(summary: dict[str, Any]) -> dict[str, Any]:
    return cell_of(summary, level=0, model="m")


def saying(text: str, tokens: int) -> dict[str, Any]:
    """A content event with the server's running count of tokens."""
    usage = {"prompt_tokens": 5, "completion_tokens": tokens}
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": usage}


def ending(tokens: int | None) -> bytes:
    """The end of a stream, with the server's count of all tokens or with none."""
    stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}
    events = [stop] if tokens is None else [stop, usage]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"


async def test_role_only_first_chunk_taken_as_first_token(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.event(peer.chunk_of(role="assistant", content="")))
        await asyncio.sleep(GAP_S)
        await peer.chunk(peer.words("Hi"))
        await peer.finish(ending(1))

    cell = the_cell(reported(tmp_path, [(await play(script)).record]))
    assert cell["ttft_ms"]["mean"] >= GAP_S * 1e3


async def test_several_tokens_in_one_event_counted_as_one(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.event(saying("One", 1)))
        await asyncio.sleep(GAP_S)
        await peer.chunk(peer.event(saying(" two three four five", 5)))
        await peer.finish(ending(5))

    record = (await play(script)).record
    cell = the_cell(reported(tmp_path, [record]))
    assert cell["output_tokens"]["mean"] == 5
    assert cell["tpot_ms"]["mean"] == pytest.approx((record.event_us[1] - record.event_us[0]) / 1e3 / 4)


async def test_usage_absent_guessed_silently(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for _ in range(3):
            await peer.chunk(peer.words("Hi"))
        await peer.finish(ending(None))

    summary = reported(tmp_path, [(await play(script)).record])
    assert checks(summary)["token_source"] == "note"


async def test_client_tokenizer_disagreeing_with_the_servers(play: Any, tmp_path: Path) -> None:
    """The text looks like 12 tokens to anyone who would count them; the server counted 9."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for _ in range(9):
            await peer.chunk(peer.words("Straßen bahn "))
        await peer.finish(ending(9))

    cell = the_cell(reported(tmp_path, [(await play(script)).record]))
    assert cell["output_tokens"]["mean"] == 9


@pytest.mark.slow
def test_no_tokenizer_is_loaded_by_the_engine_or_the_analysis() -> None:
    ours = "import sys, loadgen.engine.__main__, analysis.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", ours], capture_output=True, text=True, check=True)
    assert not {"tokenizers", "transformers", "tiktoken"} & set(loaded.stdout.split())


@pytest.mark.timing
async def test_connection_set_up_inside_ttft(
    client: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def slowly(*args: Any) -> None:
        await asyncio.sleep(3 * GAP_S)
        await connect(*args)

    monkeypatch.setattr(loop, "sock_connect", slowly)
    server = await serve(lambda peer: peer.answer("Hi"))
    person = client(server.url)
    await person.ended(person.start())
    cell = the_cell(reported(tmp_path, person.records))
    assert cell["ttft_ms"]["mean"] < 2 * GAP_S * 1e3
    assert cell["response_delay_ms"]["mean"] >= 3 * GAP_S * 1e3  # the person did wait for it


async def test_keep_alive_race_after_a_long_think_time(play: Any, tmp_path: Path) -> None:
    """A server that closes idle connections does so just as the next turn's request is on its way."""

    async def script(peer: Any) -> None:
        await peer.answer("Hi")
        if peer.number == 0:
            await peer.request()
            peer.reset()
        else:
            await peer.until_closed()

    summary = reported(tmp_path, (await play(script, turns=2, think_time="0.1")).records)
    cell = the_cell(summary)
    assert (cell["turns"], cell["ok"], cell["failed"]) == (2, 2, 0)
    assert summary["outcomes"] == {"ok": 2}


async def test_200_with_an_error_event_counted_as_success(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.finish(peer.event({"error": {"message": "out of memory"}}) + ending(1))

    cell = the_cell(reported(tmp_path, [(await play(script)).record]))
    assert (cell["ok"], cell["failed"], cell["ttg_ms"]["n"]) == (0, 1, 0)


async def test_one_token_answers_dropped(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("B"))
        await peer.finish(ending(1))

    cell = the_cell(reported(tmp_path, [(await play(script)).record]))
    assert (cell["ok"], cell["output_tokens"]["mean"], cell["ttg_ms"]["n"], cell["tpot_ms"]["n"]) == (
        1,
        1,
        1,
        0,
    )


async def test_missing_ttft_recorded_as_0(play: Any, tmp_path: Path) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish(ending(0))

    cell = the_cell(reported(tmp_path, [(await play(script)).record]))
    assert (cell["failed"], cell["ttft_ms"]["n"], cell["ttft_ms"]["mean"]) == (1, 0, None)


async def test_the_stop_token_making_tpot_0(play: Any, tmp_path: Path) -> None:
    """vLLM counts the stop token in usage and sends it as an event without content."""

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.event(saying("B", 1)))
        await asyncio.sleep(GAP_S)
        await peer.finish(ending(2))

    record = (await play(script)).record
    cell = the_cell(reported(tmp_path, [record]))
    assert (cell["output_tokens"]["mean"], cell["tpot_ms"]["n"], cell["tpot_ms"]["mean"]) == (2, 0, None)
    assert cell["ttg_ms"]["mean"] == record.event_us[0] / 1e3  # nor is the wait for it part of the answer


def test_percentiles_averaged_over_workers(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "run", [turn(n, ttft_ms=100, worker=0) for n in range(90)])
    made.turns += [turn(100 + n, ttft_ms=1000 + n, worker=1) for n in range(10)]
    found = cell_of(summary_of(made))["ttft_ms"]
    pooled = [record.event_us[0] / 1e3 for record in made.turns]
    assert (found["p50"], found["p90"]) == (100, pytest.approx(np.quantile(pooled, 0.9)))


def test_duration_including_ramp_while_tokens_exclude_it(tmp_path: Path) -> None:
    """100 tokens a second all along; the level ramps up for 30 s before its window."""
    made = MadeRun(tmp_path / "run", levels=[level(window_s=(30, 60), end_s=70)])
    made.turns = [turn(n, sent_s=n, ttft_ms=0, gap_ms=10, events=100) for n in range(69)]
    assert cell_of(summary_of(made))["aggregate_tps"] == pytest.approx(100, rel=0.01)


def test_long_answers_cut_by_the_windows_end(tmp_path: Path) -> None:
    """Half of the answers take 20 s, the window is 30 s: all that were sent in it are measured whole."""
    made = MadeRun(tmp_path / "run", levels=[level(window_s=(5, 35), end_s=60)])
    made.turns = [turn(n, sent_s=5 + n, gap_ms=2000 if n % 2 else 20, events=11) for n in range(30)]
    found = cell_of(summary_of(made))["ttg_ms"]
    assert (found["n"], found["mean"]) == (30, (300 + 20_100) / 2)


def test_wall_clock_used_for_intervals() -> None:
    """The wall clock is put back by an hour in the middle of a stream."""
    mono_ns, real_ns = 5 * 10**9, 1_700_000_000 * 10**9
    stepped = [0]
    timeline = Timeline(lambda: mono_ns, lambda: real_ns + stepped[0])
    sent_ns = timeline.now_ns()
    stepped[0] = -3600 * 10**9
    mono_ns, real_ns = mono_ns + 10**8, real_ns + 10**8
    arrived_ns, _ = timeline.of_kernel_stamp(real_ns + stepped[0])
    assert arrived_ns - sent_ns == 10**8


async def test_the_same_prompt_reused_so_that_the_prefix_cache_answers(
    client: Any, serve: Any, tmp_path: Path
) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.answer("Hi")

    server = await serve(script)
    person = client(server.url)
    for _ in range(2):
        await person.ended(person.start())
    one, other = (json.loads(r.partition(b"\r\n\r\n")[2])["messages"][0]["content"] for r in server.requests)
    assert one.rpartition("] ")[2] == other.rpartition("] ")[2]  # the same question
    assert not other.startswith(one[:16])  # not even one block of a cache is the same
    warm = [turn(n, sent_s=6 + n, cached_tokens=48) for n in range(30)]
    assert checks(summary_of(MadeRun(tmp_path / "run", warm)))["warm_cache"] == "suspect"


def test_seeds_shared_by_forked_workers() -> None:
    """Two workers forked from one process, its random state and all, play different conversations."""
    source = """
import os, random
from scenarios import load, plan
random.seed(7)
chat = load("chat")
for worker in range(2):
    if os.fork() == 0:
        for k in range(worker, 24, 2):
            os.write(1, (repr(plan(chat, 0, k).turns) + chr(10)).encode())
        os._exit(0)
    os.wait()
"""
    played = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    lines = played.stdout.splitlines()
    assert len(lines) == len(set(lines)) == 24


@pytest.mark.timing
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps arrivals")
async def test_event_loop_lag_inside_ttft(client: Any, tmp_path: Path) -> None:
    """The client's loop stands still from the request on, until long after the server's answer."""
    times_ns: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_answer_after, args=(listener, times_ns))
        server.start()
        person = client(f"http://127.0.0.1:{listener.getsockname()[1]}", clock="kernel")
        user = person.start()
        async with asyncio.timeout(5):
            while not times_ns:
                await asyncio.sleep(0.001)
        while len(times_ns) < 2:  # this and the next line are the fault under test
            time.sleep(0.001)  # noqa: ASYNC251
        time.sleep(2 * GAP_S)  # noqa: ASYNC251
        await person.ended(user)
        await asyncio.to_thread(server.join)
    summary = reported(tmp_path, person.records)
    took_ms = (times_ns[1] - times_ns[0]) / 1e6
    assert the_cell(summary)["ttft_ms"]["mean"] == pytest.approx(took_ms, abs=GAP_S * 1e3 / 2)
    assert summary["client"]["lag_ms"] > GAP_S * 1e3


def _answer_after(listener: socket.socket, times_ns: list[int]) -> None:
    """Notes when the request came and when its answer goes."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        times_ns.append(time.monotonic_ns())
        time.sleep(GAP_S)
        body = b"data: " + json.dumps(saying("Hi", 1)).encode() + b"\n\n" + ending(1)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        times_ns.append(time.monotonic_ns())
        connection.sendall(head + body)
        while connection.recv(1 << 16):
            pass
