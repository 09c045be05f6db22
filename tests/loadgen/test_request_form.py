"""What a server refuses by name is left out or replaced for the rest of the run, and reported once."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from loadgen._messages import RequestChanged
from loadgen.dialects import DIALECTS
from loadgen.engine._request_form import RequestForm, refused_fields

SENT = ("stream_options", "include_usage", "continuous_usage_stats", "temperature", "top_p", "max_tokens",
        "min_tokens", "ignore_eos", "stop")  # fmt: skip


def openai_error(message: str, param: str | None = None, code: str | None = None) -> str:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return json.dumps({"error": error})


def pydantic_error(*names: str, kind: str = "extra_forbidden", said: str = "Extra inputs are not permitted",
                   given: object = 16) -> str:  # fmt: skip
    details = [{"type": kind, "loc": ["body", name], "msg": said, "input": given} for name in names]
    return json.dumps({"detail": details})


SAID = {
    "openai": (
        openai_error(
            "max_tokens can't be used; send max_completion_tokens", "max_tokens", "unsupported_parameter"
        ),
        ["max_tokens"],
    ),
    "openai's value": (
        openai_error(
            "Unsupported value: 'temperature' does not support 0. Only the default (1) value is supported."
        ),
        ["temperature"],
    ),
    "openai's arguments": (
        openai_error("Unrecognized request arguments supplied: ignore_eos, min_tokens"),
        ["ignore_eos", "min_tokens"],
    ),
    "openai's unknown": (openai_error("Unknown parameter: 'stop'.", "stop", "unknown_parameter"), ["stop"]),
    "mistral": (pydantic_error("min_tokens", "ignore_eos"), ["min_tokens", "ignore_eos"]),
    "groq": (openai_error("property 'stream_options' is unsupported"), ["stream_options"]),
    "anthropic": (openai_error("min_tokens: Extra inputs are not permitted"), ["min_tokens"]),
    "one of two": (
        openai_error("`temperature` and `top_p` cannot both be specified for this model."),
        ["top_p"],
    ),
    "gemini": (
        json.dumps([{"error": {"code": 400, "message": 'Unknown name "ignore_eos": Cannot find field.'}}]),
        ["ignore_eos"],
    ),
    "transformers": (
        json.dumps({"detail": "Unexpected keys in the request: {'min_tokens', 'ignore_eos'}"}),
        ["min_tokens", "ignore_eos"],
    ),
    "litellm": (
        openai_error(
            "litellm.UnsupportedParamsError: openai does not support parameters: ['min_tokens'], for x"
        ),
        ["min_tokens"],
    ),
    "nested": (
        openai_error("stream_options.continuous_usage_stats: unknown field"),
        ["continuous_usage_stats"],
    ),
    "plain text": ("unknown field `ignore_eos`", ["ignore_eos"]),
    "a value": (openai_error("min_tokens must be less than or equal to max_tokens=16, got 20."), []),
    "a range": (openai_error("max_tokens is too large: 300. At most 200 are supported.", "max_tokens"), []),
    "a vllm value": (openai_error("temperature must be non-negative, got -1.", "temperature"), []),
    "the whole body repeated": (
        pydantic_error("user_id", kind="missing", said="Field required", given={"max_tokens": 16}),
        [],
    ),
    "a word": (openai_error("the server has to stop now"), []),
    "nothing": ("", []),
    "another thing": (openai_error("The model `x` does not exist."), []),
}


@pytest.mark.parametrize("case", SAID)
def test_the_fields_that_a_refusal_names_are_found_in_every_server_s_words(case: str) -> None:
    text, named = SAID[case]
    assert refused_fields(text, SENT) == named


def form(dialect: str = "chat", **own: Any) -> RequestForm:
    return RequestForm(DIALECTS[dialect], own)


def learn(asked: RequestForm, body: dict[str, Any], *words: str) -> bool:
    return asked.learn(400, " ".join(words), json.dumps(body).encode(), [])


USAGE = {"include_usage": True, "continuous_usage_stats": True}
BODY = {"model": "m", "stream": True, "stream_options": USAGE, "temperature": 0, "max_tokens": 16}


def test_a_limit_is_replaced_and_never_goes_missing() -> None:
    asked = form()
    assert learn(asked, BODY, "max_tokens is not supported, use max_completion_tokens instead")
    found = asked.fit(dict(BODY))
    assert ("max_tokens" in found, found["max_completion_tokens"]) == (False, 16)
    assert not learn(asked, found, "max_completion_tokens is not supported")
    assert asked.fit(dict(BODY))["max_completion_tokens"] == 16
    assert asked.take_notes() == [
        "the server refuses max_tokens; requests have max_completion_tokens instead"
    ]
    assert asked.take_notes() == []


def test_a_field_goes_from_wherever_it_stands() -> None:
    asked = form()
    assert learn(asked, BODY, "unknown field continuous_usage_stats")
    assert asked.fit(dict(BODY))["stream_options"] == {"include_usage": True}
    assert learn(asked, BODY, "unknown fields: stream_options, temperature")
    assert asked.fit(dict(BODY)) == {"model": "m", "stream": True, "max_tokens": 16}


def test_what_a_person_put_into_body_stays() -> None:
    asked = form(temperature=0)
    assert not learn(asked, BODY, "temperature is not supported")
    assert asked.fit(dict(BODY)) == BODY
    asked = form(max_completion_tokens=256)
    assert learn(asked, BODY, "max_tokens can't be used")
    assert asked.fit(BODY | {"max_completion_tokens": 256})["max_completion_tokens"] == 256
    assert "max_tokens" not in asked.fit(BODY | {"max_completion_tokens": 256})


@pytest.mark.parametrize(
    ("dialect", "field"),
    [("messages", "max_tokens"), ("responses", "max_output_tokens"), ("chat", "messages")],
)
def test_a_field_without_which_a_request_is_none_is_never_left_out(dialect: str, field: str) -> None:
    assert not learn(form(dialect), {field: 16}, f"{field}: unknown field")


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500, None])
def test_other_statuses_say_nothing_about_fields(status: int | None) -> None:
    assert not form().learn(status, "unknown field temperature", json.dumps(BODY).encode(), [])


def test_an_id_becomes_a_uuid_and_then_goes() -> None:
    asked = form()
    first = asked.headers("run/0/1/1")
    assert first == {"X-Request-Id": "run/0/1/1"}
    assert asked.learn(400, "Invalid UUID in request header X-Request-ID", b"{}", first.values())
    second = asked.headers("run/0/1/2")
    assert uuid.UUID(second["X-Request-Id"])
    assert second == asked.headers("run/0/1/2"), "the same for the same request"
    assert asked.learn(400, "late: X-Request-ID", b"{}", first.values()), "a request that was under way"
    assert asked.headers("run/0/1/2") == second
    assert asked.learn(422, "x_request_id: none is allowed", b"{}", second.values())
    assert asked.headers("run/0/1/3") == {}
    assert not asked.learn(422, "x_request_id: none is allowed", b"{}", [])
    assert len(asked.take_notes()) == 2


async def refusing(peer: Any, refused: dict[str, str]) -> None:
    """Refuse whatever of these fields comes, one at a time, and answer what has none of them."""
    while True:
        head, _, sent = (await peer.request()).partition(b"\r\n\r\n")
        named = next((name for name in refused if name.encode() in (head if "-" in name else sent)), None)
        if named is None:
            await peer.head()
            await peer.chunk(peer.words("Hi"))
            await peer.finish()
            continue
        answer = refused[named].encode()
        await peer.head("400 Bad Request", f"Content-Length: {len(answer)}", "Content-Type: application/json")
        await peer.send(answer)


async def test_a_run_heeds_every_refusal_and_reports_each_once(play: Any) -> None:
    refused = {
        '"max_tokens"': openai_error("use max_completion_tokens", "max_tokens", "unsupported_parameter"),
        "min_tokens": openai_error("property 'min_tokens' is unsupported"),
        "ignore_eos": openai_error("Unknown parameter: 'ignore_eos'."),
        "stream_options": openai_error("stream_options is not allowed"),
    }
    played = await play(lambda peer: refusing(peer, refused), turns=2, exact_tokens=True, temperature=0.5)
    assert [(record.turn, record.attempt, record.outcome) for record in played.records] == [
        *((1, attempt, "http_4xx") for attempt in range(1, 5)),
        (1, 5, "ok"),
        (2, 1, "ok"),
    ]
    last = json.loads(played.server.requests[-1].partition(b"\r\n\r\n")[2])
    assert last.keys() == {"model", "messages", "stream", "temperature", "max_completion_tokens"}
    notes = [message.what for message in played.client.messages if isinstance(message, RequestChanged)]
    assert [note.split(";")[0].split()[-1] for note in notes] == [
        "max_tokens", "min_tokens", "ignore_eos", "stream_options"
    ]  # fmt: skip


async def test_a_server_that_wants_a_uuid_gets_one(play: Any) -> None:
    refused = {"X-Request-Id: run/": "Invalid UUID in request header X-Request-ID"}
    played = await play(lambda peer: refusing(peer, refused), turns=2)
    assert [record.outcome for record in played.records] == ["http_4xx", "ok", "ok"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_without_a_word_is_tried_with_a_uuid_once(status: int) -> None:
    asked = form()
    first = asked.headers("run/0/1/1").values()
    assert asked.learn(status, "", json.dumps(BODY).encode(), first)
    second = asked.headers("run/0/1/2").values()
    assert uuid.UUID(*second)
    assert not asked.learn(status, "", json.dumps(BODY).encode(), second)
    assert asked.fit(dict(BODY)) == BODY
    assert asked.take_notes() == [
        "the server refuses a request without a word; requests have a UUID in X-Request-Id"
    ]
    assert not form().learn(500, "", json.dumps(BODY).encode(), first)


async def test_what_can_t_be_mended_fails_once_with_the_server_s_words(play: Any) -> None:
    refused = {"temperature": openai_error("temperature must be at most 1", "temperature")}
    record = (await play(lambda peer: refusing(peer, refused), temperature=2.0)).record
    assert (record.outcome, "at most 1" in (record.error or "")) == ("http_4xx", True)


async def test_a_person_s_own_field_is_refused_once(play: Any) -> None:
    refused = {"top_k": openai_error("Unknown parameter: 'top_k'.")}
    record = (await play(lambda peer: refusing(peer, refused), body={"top_k": 5})).record
    assert (record.outcome, "top_k" in (record.error or "")) == ("http_4xx", True)
