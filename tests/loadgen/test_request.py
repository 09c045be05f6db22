"""What is sent for a turn."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen._messages import Job
from loadgen.dialects import DIALECTS, Prompt
from loadgen.engine._history import body_of_turn
from loadgen.engine._person import patience_of, think_s
from loadgen.options._headers import headers_of, secrets_of
from loadgen.options._settings import Settings
from scenarios import Turn, parse, plan

HOST = "http://127.0.0.1:8000"
SCENARIO = """
format: turnbench-scenario/1
name: test
tasks:
  - {name: ask, texts: t, prompt: "{q}", max_tokens: 16, stop: ["END"], sampling: {temperature: 0, top_k: 5}}
sets: {t: [{q: Hello}]}
"""
MESSAGES = [{"role": "user", "content": "Hello"}]


def body(usage_in_events: bool = False, **settings: Any) -> dict[str, Any]:
    conversation = plan(parse(SCENARIO), 0, 0)
    job = Job(
        run="r", worker=0, workers=1, settings=Settings(host=HOST, **settings), scenario=SCENARIO, salt="",
        model="m", usage_in_events=usage_in_events,
    )  # fmt: skip
    return body_of_turn(job, DIALECTS["chat"], conversation, conversation.turns[0], Prompt(MESSAGES, 5, 1))


def test_a_request_is_made_of_plan_and_settings() -> None:
    assert body() == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_k": 5,
        "max_tokens": 16,
        "stop": ["END"],
    }


def test_running_counts_are_asked_of_servers_that_know_them() -> None:
    assert body(usage_in_events=True)["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


def test_the_command_line_goes_before_the_scenario_and_body_before_both() -> None:
    found = body(temperature=0.7, top_p=0.9, max_tokens=99, body={"top_p": 0.1, "seed": 1})
    assert (found["temperature"], found["top_p"], found["max_tokens"], found["seed"]) == (0.7, 0.1, 99, 1)


@pytest.mark.parametrize(("asked", "tokens"), [(None, 256), (40, 40)])
def test_exact_answers_have_one_length_and_nothing_that_ends_them_early(
    asked: int | None, tokens: int
) -> None:
    found = body(exact_tokens=True, max_tokens=asked)
    assert (found["max_tokens"], found["min_tokens"], found["ignore_eos"]) == (tokens, tokens, True)
    assert "stop" not in found


@pytest.mark.parametrize(
    ("choice", "seconds"),
    [("none", 0.0), ("scenario", 8.0), ("scenario*0.5", 4.0), ("scenario*0", 0.0), ("0.25", 0.25)],
)
def test_think_time_is_as_chosen(choice: str, seconds: float) -> None:
    turn = Turn(user="x", think_s=8.0, max_tokens=1, stop=())
    assert think_s(Settings(host=HOST, think_time=choice), turn, 99) == seconds


@pytest.mark.parametrize(("choice", "seconds"), [("scenario", 63.0), ("scenario*2", 126.0), ("7", 7.0)])
def test_who_reads_and_types_takes_as_long_as_the_real_reply_asks(choice: str, seconds: float) -> None:
    """238 words to read at 238 a minute; 2 words to type at 40."""
    turn = Turn(user="And then?", think_s=5.0, max_tokens=1, read_wpm=238, type_wpm=40)
    assert think_s(Settings(host=HOST, think_time=choice), turn, 238) == pytest.approx(seconds)


def test_the_result_of_a_tool_comes_at_once() -> None:
    turn = Turn(user="42", think_s=0.0, max_tokens=1, call={"id": "1", "name": "add", "arguments": {}})
    assert think_s(Settings(host=HOST, think_time="7"), turn, 9) == 0.0


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("none", None), ("scenario*0", None), ("scenario*3", (60.0, 6.0)), ("1", (20.0, 2.0))],
)
def test_the_dial_of_human_time_turns_patience_too(choice: str, expected: tuple[float, float] | None) -> None:
    turn = Turn(user="x", think_s=8.0, max_tokens=1, patience_s=20.0, leave_after_s=2.0)
    found = patience_of(turn, Settings(host=HOST, think_time=choice))
    assert (found and (found.first_s, found.after_s)) == expected


def test_header_values_come_from_the_environment_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-1")
    monkeypatch.setenv("TENANT", "blue")
    settings = Settings(host=HOST, api_key_env="MY_KEY", headers={"X-Tenant": "$TENANT", "X-Plain": "a$b"})
    found = headers_of(settings)
    assert (found["Authorization"], found["X-Tenant"], found["X-Plain"]) == ("Bearer sk-1", "blue", "a$b")
    assert found["Accept-Encoding"] == "identity"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENANT", raising=False)
    with pytest.raises(ValueError, match=r"X-Tenant.*TENANT is not set"):
        headers_of(Settings(host=HOST, headers={"X-Tenant": "$TENANT"}))


@pytest.mark.parametrize("name", ["authorization", "Accept-encoding"])
def test_a_typed_header_takes_the_place_of_ours_whatever_its_case(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    found = headers_of(Settings(host=HOST, headers={name: "mine"}))
    assert [value for key, value in found.items() if key.lower() == name.lower()] == ["mine"]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "TENANT"])
def test_a_value_of_the_environment_that_no_header_can_carry_is_reported_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A key read from a file often ends in a line end; that one is taken off."""
    monkeypatch.setenv("TENANT", "x")
    monkeypatch.setenv(name, "sk-1\nX-Evil: 1")
    with pytest.raises(ValueError, match=name) as caught:
        headers_of(Settings(host=HOST, headers={"X-Tenant": "$TENANT"}))
    assert "sk-1" not in str(caught.value)
    monkeypatch.setenv(name, "sk-1\n")
    assert "sk-1\n" not in headers_of(Settings(host=HOST, headers={"X-Tenant": "$TENANT"})).values()


def test_secrets_are_known_in_every_form_and_never_shown() -> None:
    settings = Settings(host="http://me:hunter2@h", headers={"X-A": "abc", "X-B": "Token long-secret"})
    found = secrets_of(
        settings, {"Authorization": "Bearer sk-12345", "X-A": "abc", "X-B": "Token long-secret"}
    )
    for said in ("sk-12345", "Bearer sk-12345", "Token long-secret", "hunter2", "bWU6aHVudGVyMg=="):
        assert found.scrubbed(f"you sent {said}, it seems") == "you sent ***, it seems"
    assert found.scrubbed("abc") == "abc", "too short to be one"
    assert "hunter2" not in f"{found} {found!r}"
