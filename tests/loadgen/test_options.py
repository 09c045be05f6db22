"""Options to settings: the documented defaults, every mistake at once, and no secret written down."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._messages import TO_ENGINE, Job, StartRun, Unpacker, pack
from loadgen.options._command_line import OPTIONS, OptionErrors, add_options, settings_from
from loadgen.options._headers import recorded
from loadgen.options._settings import Settings
from loadgen.options._shapes import shape_of
from loadgen.options._values import ListenAt
from scenarios import load

HOST = "http://127.0.0.1:8000"

# Each option's default as a person reads it, and what it becomes.
DEFAULTS: dict[str, tuple[Any, str, Any]] = {
    "scenario": ("chat", "scenario", "chat"),
    "skip-bad-rows": (False, "skip_bad_rows", False),
    "model": ("", "model", None),
    "dialect": ("auto", "dialect", "auto"),
    "levels": ("", "levels", None),
    "hold": ("", "hold_s", 60.0),
    "until": ("", "until", None),
    "warmup": ("5s", "warmup_s", 5.0),
    "arrival-rate": ("", "arrival_rate", None),
    "burstiness": ("1", "burstiness", 1.0),
    "replay-speed": ("", "replay_speed", None),
    "once": (False, "once", False),
    "find-capacity": (False, "find_capacity", False),
    "think-time": ("", "think_time", "scenario"),
    "max-tokens": ("", "max_tokens", None),
    "exact-tokens": (False, "exact_tokens", False),
    "temperature": ("", "temperature", None),
    "top-p": ("", "top_p", None),
    "body": ("", "body", {}),
    "slo": ("", "slo", {}),
    "connect-timeout": ("5s", "connect_timeout_s", 5.0),
    "idle-timeout": ("30s", "idle_timeout_s", 30.0),
    "deadline": ("600s", "deadline_s", 600.0),
    "drain": ("60s", "drain_s", 60.0),
    "retry": ("0", "retry", 0),
    "abort-errors": ("1", "abort_errors", 1.0),
    "clock": ("auto", "clock", "auto"),
    "seed": ("0", "seed", 0),
    "salt": ("", "salt", None),
    "cache": ("cold", "cache", "cold"),
    "run-dir": ("", "run_dir", None),
    "label": (None, "labels", {}),
    "no-analysis": (False, "no_analysis", False),
    "keep-text": (False, "keep_text", False),
    "header": (None, "headers", {}),
    "insecure": (False, "insecure", False),
    "ca": ("", "ca", None),
    "cert": ("", "cert", None),
    "trust-env": (False, "trust_env", False),
    "api-key-env": ("OPENAI_API_KEY", "api_key_env", "OPENAI_API_KEY"),
    "gpu-metrics": ("", "gpu_metrics", None),
    "metrics-port": ("", "metrics_port", None),
    "otlp": ("", "otlp", None),
    "gpu-price": ("", "gpu_price", None),
    "server-facts": ("", "server_facts", None),
}  # type: ignore[assignment]


class _Parser(argparse.ArgumentParser):
    """argparse with the extra words that Locust's parser takes."""

    def add_argument(self, *flags: str, **words: Any) -> Any:  # type: ignore[override]
        words.pop("include_in_web_ui", None)
        self.env_vars = [*getattr(self, "env_vars", []), words.pop("env_var", None)]
        return super().add_argument(*flags, **words)


def typed(*words: str) -> dict[str, Any]:
    parser = _Parser()
    add_options(parser)
    return {"host": HOST} | vars(parser.parse_args(words))


def read(*words: str, **more: Any) -> Settings:
    return settings_from(typed(*words) | more)


def problems(*words: str, **more: Any) -> list[str]:
    with pytest.raises(OptionErrors) as caught:
        read(*words, **more)
    return caught.value.problems


def test_every_option_has_its_documented_default() -> None:
    assert [option.name for option in OPTIONS] == list(DEFAULTS)
    found = typed()
    for name, (default, _, _) in DEFAULTS.items():
        assert found[name.replace("-", "_")] == default, name


def test_nothing_typed_gives_the_defaults_of_settings() -> None:
    assert read() == Settings(host=HOST)
    for name, (_, field, value) in DEFAULTS.items():
        if field is not None:
            assert getattr(read(), field) == value, name


def test_every_option_can_come_from_the_environment() -> None:
    parser = _Parser()
    add_options(parser)
    wanted = ["TURNBENCH_" + name.replace("-", "_").upper() for name in DEFAULTS]
    assert [name for name in parser.env_vars if name] == wanted


def test_every_option_has_a_help_text() -> None:
    assert all(option.help.endswith(".") for option in OPTIONS)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--scenario", "my.yaml"], "scenario", "my.yaml"),
        (["--model", "org/name"], "model", "org/name"),
        (["--levels", "1, 4,16"], "levels", [1, 4, 16]),
        (["--levels", "1", "--hold", "2m"], "hold_s", 120.0),
        (["--warmup", "0"], "warmup_s", 0.0),
        (["--once"], "once", True),
        (["--think-time", "none"], "think_time", "none"),
        (["--think-time", "scenario"], "think_time", "scenario"),
        (["--think-time", "scenario*0.50"], "think_time", "scenario*0.5"),
        (["--think-time", "250ms"], "think_time", "0.25"),
        (["--max-tokens", "64"], "max_tokens", 64),
        (["--exact-tokens"], "exact_tokens", True),
        (["--temperature", "0"], "temperature", 0.0),
        (["--top-p", "0.9"], "top_p", 0.9),
        (["--body", '{"top_k": 20}'], "body", {"top_k": 20}),
        (
            ["--slo", "ttft_ms=500, tpot_ms=50,share=0.9"],
            "slo",
            {"ttft_ms": 500, "tpot_ms": 50, "share": 0.9},
        ),
        (["--connect-timeout", "1s"], "connect_timeout_s", 1.0),
        (["--idle-timeout", "100ms"], "idle_timeout_s", 0.1),
        (["--deadline", "1h"], "deadline_s", 3600.0),
        (["--drain", "0"], "drain_s", 0.0),
        (["--retry", "3"], "retry", 3),
        (["--abort-errors", "0.5"], "abort_errors", 0.5),
        (["--clock", "user"], "clock", "user"),
        (["--metrics-port", "9650"], "metrics_port", ListenAt(9650, "127.0.0.1")),
        (["--metrics-port", "[::]:9650"], "metrics_port", ListenAt(9650, "::")),
        (["--seed", "7"], "seed", 7),
        (["--salt", "9F3C"], "salt", "9f3c"),
        (["--run-dir", "out/x"], "run_dir", "out/x"),
        (["--label", "gpu=a100", "--label", "note=a=b"], "labels", {"gpu": "a100", "note": "a=b"}),
        (["--keep-text"], "keep_text", True),
        (["--header", "X-A: b:c", "--header", "X-D:$VAR"], "headers", {"X-A": "b:c", "X-D": "$VAR"}),
        (["--insecure"], "insecure", True),
        (["--trust-env"], "trust_env", True),
        (["--api-key-env", "MY_KEY"], "api_key_env", "MY_KEY"),
        (["--server-facts", "facts.json"], "server_facts", "facts.json"),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else ""
    ),
)
def test_an_option_becomes_its_setting(words: list[str], field: str, value: Any) -> None:
    assert getattr(read(*words), field) == value


@pytest.mark.parametrize("words", [["--levels", "1,2"], ["--once"]], ids=" ".join)
def test_levels_and_once_leave_no_time_to_think_unless_asked(words: list[str]) -> None:
    assert read(*words).think_time == "none"
    assert read(*words, "--think-time", "scenario").think_time == "scenario"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--levels", "1,x"], "1,4,16"),
        (["--levels", "0,4"], "at least 1"),
        (["--levels", "1,9999999999999999999999"], "more than 1000000"),
        (["--levels", "-3"], "at least 1"),
        (["--levels", ","], "1,4,16"),
        (["--hold", "soon", "--levels", "1"], "90s"),
        (["--hold", "0", "--levels", "1"], "longer than zero"),
        (["--warmup", "-1"], "90s"),
        (["--deadline", "9" * 400], "90s"),
        (["--think-time", "scenario*x"], "from 0"),
        (["--think-time", "later"], "90s"),
        (["--max-tokens", "0"], "at least 1"),
        (["--max-tokens", "²"], "whole number"),
        (["--max-tokens", "++5"], "whole number"),
        (["--temperature", "nan"], "from 0 to 100"),
        (["--top-p", "1.5"], "from 0 to 1"),
        (["--body", "[1]"], "JSON object"),
        (["--body", "{x"], "not JSON"),
        (["--body", '{"a": NaN}'], "not JSON"),
        (["--body", '{"a": 1e999}'], "not JSON"),
        (["--body", '{"a": 1' + "0" * 40 + "}"], "not JSON"),
        (["--body", '{"a":' * 100_000], "not JSON"),
        (["--slo", "ttft=5"], "ttft_ms"),
        (["--slo", "share=2"], "from 0 to 1"),
        (["--slo", "ttft_ms=inf"], "from 0 to"),
        (["--retry", "-1"], "whole number"),
        (["--abort-errors", "2"], "from 0 to 1"),
        (["--replay-speed", "0"], "'0' is not a number from 1e-06"),
        (["--arrival-rate", "1..9"], "say with -t within what time"),
        (["--find-capacity", "--arrival-rate", "1,9"], "takes one --arrival-rate"),
        (["--clock", "atomic"], "kernel or user"),
        (["--otlp", "collector:4318"], "http://127.0.0.1:4318"),
        (["--otlp", "http://h:99999"], "Port out of range"),
        (["--otlp", "http://me:key@collector:4318"], "OTEL_EXPORTER_OTLP_HEADERS"),
        (["--metrics-port", "0"], "such as 9650"),
        (["--metrics-port", "65536"], "such as 9650"),
        (["--metrics-port", ":9650"], "0.0.0.0:9650"),
        (["--metrics-port", "http://127.0.0.1:9650/metrics"], "0.0.0.0:9650"),
        (["--seed", "1.5"], "whole number"),
        (["--seed", "9" * 40], "whole number"),
        (["--salt", "xyz"], "hexadecimal"),
        (["--label", "gpu"], "NAME=VALUE"),
        (["--label", "=x"], "NAME=VALUE"),
        (["--header", "X-A"], "NAME:VALUE"),
        (["--header", "X A: b"], "not a header's name"),
        (["--header", "X-A: b\nX-B: c"], "control character"),
        (["--api-key-env", "sk-not-a-name"], "name of an environment variable"),
        (["--model", "a\udc80"], "not valid text"),
        (["--label", "a=\udc80"], "not valid text"),
    ],
    ids=lambda value: (
        " ".join(value)[:30].encode("ascii", "replace").decode() if isinstance(value, list) else ""
    ),
)
def test_a_mistake_is_reported_with_its_option_and_a_hint(words: list[str], hint: str) -> None:
    (problem,) = problems(*words)
    assert problem.startswith(words[0])
    assert hint in problem
    assert "\n" not in problem
    assert len(problem) < 300


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems(
        "--hold", "x", "--seed", "y", "--levels", "z", "--header", "bad", "--once", host="nowhere"
    )
    assert {problem.split()[0].rstrip(":") for problem in found} == {
        "--hold", "--seed", "--levels", "--header", "--once", "-H",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "more", "flags"),
    [
        (["--levels", "1,2"], {"num_users": 4, "turnbench_users_given": True}, ("--levels", "-u")),
        (["--levels", "1,2"], {"turnbench_run_time_s": "90s"}, ("--levels", "-t")),
        (["--once", "--hold", "5s"], {}, ("--once", "--hold")),
        (["--once", "--hold", "60s"], {}, ("--once", "--hold")),
        (["--once"], {"turnbench_run_time_s": "9s"}, ("--once", "-t")),
        (["--once", "--levels", "1,2"], {}, ("--once", "several --levels")),
        (["--arrival-rate", "5"], {"num_users": 4, "turnbench_users_given": True}, ("--arrival-rate", "-u")),
        (["--arrival-rate", "5", "--levels", "1,2"], {}, ("--arrival-rate", "--levels")),
        (["--arrival-rate", "1,9"], {"turnbench_run_time_s": "9s"}, ("--arrival-rate A,B,C", "-t")),
        (["--find-capacity", "--levels", "1,2"], {}, ("--find-capacity", "--levels")),
        (["--replay-speed", "2"], {"num_users": 4, "turnbench_users_given": True}, ("--replay-speed", "-u")),
        (["--replay-speed", "2", "--levels", "3"], {}, ("--replay-speed", "--levels")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_exclude_each_other_are_refused(
    words: list[str], more: dict[str, Any], flags: tuple[str, str]
) -> None:
    (problem,) = problems(*words, **more)
    assert problem.startswith(f"{flags[0]} and {flags[1]} exclude each other")


def test_a_hold_without_levels_is_refused_and_not_passed_over() -> None:
    (problem,) = problems("--hold", "10s", num_users=4, turnbench_users_given=True)
    assert "--levels" in problem


@pytest.mark.parametrize("people", [0, -3])
def test_nobody_or_less_is_refused(people: int) -> None:
    (problem,) = problems(num_users=people, turnbench_users_given=True)
    assert problem.startswith(f"-u {people}:")


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_spawn_rate_at_which_nobody_comes_is_refused(rate: float) -> None:
    (problem,) = problems(spawn_rate=rate)
    assert problem.startswith("-r ")


def test_a_time_that_is_over_before_its_people_are_warm_is_refused() -> None:
    def refused(run_time: str) -> list[str]:
        settings = read(num_users=50, spawn_rate=1.0, turnbench_run_time_s=run_time)
        return shape_of(settings).impossible(load("chat"), {})

    assert refused("56s") == []
    (why,) = refused("55s")
    assert "leaves nothing to measure: 50 people at 1/s take 50 s and the warm-up 5 s" in why


def test_users_and_time_are_locusts() -> None:
    found = read(num_users=8, spawn_rate=2.5, turnbench_run_time_s="2m")
    assert (found.users, found.spawn_rate, found.run_time_s) == (8, 2.5, 120.0)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1:8000",
        "ftp://x",
        "localhost",
        "http://",
        "http://[",
        "http://h:x",
        "http://h:99999",
        "http://a\nb",
    ],
)
def test_a_host_that_is_no_url_is_refused_with_an_example(host: str) -> None:
    (problem,) = problems(host=host)
    assert problem.startswith("-H")
    assert "http://127.0.0.1:8000" in problem


def test_a_refused_host_shows_no_password() -> None:
    assert "hunter2" not in problems(host="me:hunter2@server:8000")[0]


def test_an_address_of_a_hundred_thousand_characters_is_refused_in_a_short_line() -> None:
    (problem,) = problems(host="http://me:hunter2@server/" + "v" * 100_000)
    assert "100,025 characters" in problem
    assert len(problem) < 300
    assert "hunter2" not in problem


def test_a_model_of_a_hundred_thousand_characters_is_refused_in_a_short_line() -> None:
    (problem,) = problems(model="m" * 100_000)
    assert "100,000 characters" in problem
    assert len(problem) < 300


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Expect", "UPGRADE"])
def test_a_header_that_says_where_a_request_ends_is_refused(name: str) -> None:
    (problem,) = problems(header=[f"{name}: 5"])
    assert "leave it out" in problem


def test_a_mistaken_header_or_key_is_not_repeated() -> None:
    """What is wrong may be a key typed in the wrong place, and messages end up in logs."""
    assert "sk-123" not in "".join(problems("--header", "Authorization sk-123"))
    assert "sk-123" not in "".join(problems("--api-key-env", "sk-123"))
    assert "sk-123" not in "".join(problems("--header", "X: sk-123\x00y"))


texts = st.text() | st.sampled_from(
    ["-1", "nan", "inf", "1e999", "9" * 5000, "{}", "1,2", "5s", "a=b", "a:b", "x\udcff"]
)


@given(
    st.dictionaries(st.sampled_from([o.dest for o in OPTIONS if not o.repeats]), texts, max_size=6),
    st.lists(texts, max_size=3),
    st.lists(texts, max_size=3),
    texts,
)
def test_any_text_gives_settings_that_can_be_sent_or_option_errors(
    options: dict[str, str], labels: list[str], headers: list[str], host: str
) -> None:
    try:
        found = settings_from(options | {"label": labels, "header": headers, "host": "http://" + host})
    except OptionErrors:
        return
    job = Job(
        run="r", worker=0, workers=1, settings=found, scenario="", salt="", model="m", usage_in_events=False
    )
    assert Unpacker(TO_ENGINE).feed(pack(StartRun(job))) == [StartRun(job)]
    json.dumps(recorded(found), allow_nan=False).encode()
