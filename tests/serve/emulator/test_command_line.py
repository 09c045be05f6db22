"""What a person sees who starts the emulator, rightly or wrongly."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time

import pytest

from serve.emulator.__main__ import main
from serve.emulator.reactor import Reactor
from serve.emulator.records import Lateness


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "gpt-9"], "--model gpt-9 is not in the catalogue"),
        (["--hardware", "abacus"], "--hardware abacus is not in the catalogue"),
        (["--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["--truth", "/nonexistent/truth.jsonl"], "--truth /nonexistent/truth.jsonl cannot be written"),
        (["--tls-key", "key.pem"], "--tls-key needs --tls-cert"),
        (["--tls-cert", "/nonexistent.pem"], "--tls-cert /nonexistent.pem cannot be used"),
        (["--max-model-len", "999999999"], "fewer than --max-model-len"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1:0"),
    ],
)
def test_bad_configuration_is_one_line_and_exit_code_2(capsys, options, said):
    assert main(["--port", "0", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize(
    "options", [["--ttft", "fast"], ["--itl", "-1ms"], ["--port", "70000"], ["--tokens", "0"], ["--nonsense"]]
)
def test_a_wrong_option_is_one_line_and_exit_code_2(capsys, options):
    with pytest.raises(SystemExit) as left:
        main(options)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_port_in_use_is_one_line_and_exit_code_2(fixed):
    command = [sys.executable, "-m", "serve.emulator", "--port", str(fixed.port)]
    got = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (got.returncode, got.stdout) == (2, "")
    assert re.fullmatch(r"serve\.emulator: cannot listen on .* try --port 0\n", got.stderr)


def test_any_name_goes_with_the_fixed_schedule(start_emulator, make_chat):
    emulator = start_emulator("--model", "my/model", "--schedule", "fixed", "--ttft", "1ms", "--itl", "1ms")
    assert emulator.ask(body=make_chat(max_tokens=2) | {"model": "my/model"}).status == 200
    assert emulator.ask(body=make_chat(max_tokens=2)).status == 404


def test_lateness_counts_events_and_finds_percentiles():
    lateness = Lateness()
    due_ns = [number * 20_000_000 for number in range(1, 101)]
    for late, due in enumerate(due_ns, 1):
        lateness.note(due, due + late * 1_000_000)
        if late % 60 == 0:
            lateness.fold()
    assert lateness.line() == (
        "lateness: 100 events sent, p50 50.01 ms, p99 99.01 ms, max 100.00 ms, peak 48 events/s"
    )
    assert Lateness().line().startswith("lateness: 0 events sent, p50 0.00 ms")


def test_due_moments_are_kept_in_order_and_waited_for_in_less_than_milliseconds(monkeypatch):
    reactor, really_wait = Reactor(), select.select
    began = time.monotonic_ns()
    fired: list[int] = []
    waits_s: list[float] = []

    def wait(readable, writable, odd, timeout_s):
        waits_s.append(timeout_s)
        return really_wait(readable, writable, odd, timeout_s)

    def note(due_ns: int) -> None:
        assert time.monotonic_ns() >= due_ns
        fired.append(due_ns)
        if len(fired) == 100:
            reactor.stop()

    monkeypatch.setattr(select, "select", wait)
    for number in reversed(range(100)):
        reactor.at(began + number * 300_000, note)
    reactor.run()
    assert fired == sorted(fired)
    *while_due_s, _when_idle_s = waits_s
    assert 0 < max(while_due_s) <= 300e-6
