"""The official client, as people use it, against the emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.official import openai

KEY = "let-me-in"
MESSAGES = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def guarded(start_emulator):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMULATOR_TEST_KEY", KEY)
        options = ("--schedule", "fixed", "--ttft", "5ms", "--itl", "1ms")
        return start_emulator(*options, "--api-key-env", "EMULATOR_TEST_KEY")


def client_for(emulator, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=emulator.url + "/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(guarded) -> Iterator[openai.OpenAI]:
    with client_for(guarded, KEY) as made:
        yield made


def test_a_chat_comes_whole(client):
    got = client.chat.completions.create(model="yi-6b", messages=MESSAGES, max_tokens=12)
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].message.content
    assert got.choices[0].finish_reason == "length"
    assert got.usage.completion_tokens == 12
    assert got.usage.prompt_tokens_details.cached_tokens == 0


def test_a_chat_comes_in_a_stream(client):
    stream = client.chat.completions.create(
        model="yi-6b", messages=MESSAGES, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) == 12
    assert chunks[-1].usage.completion_tokens == 12


def test_a_completion_comes_whole_and_in_a_stream(client):
    whole = client.completions.create(model="yi-6b", prompt="Once", max_tokens=6)
    assert whole.usage.completion_tokens == 6
    stream = client.completions.create(model="yi-6b", prompt="Once", max_tokens=6, stream=True)
    assert sum(bool(chunk.choices[0].text) for chunk in stream) == 6


def test_the_model_list_is_readable(client):
    assert [model.id for model in client.models.list()] == ["yi-6b"]


def test_a_wrong_key_is_an_authentication_error(guarded):
    with client_for(guarded, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="yi-6b", messages=MESSAGES)
    assert guarded.get("/health").status == 200


def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)


def test_too_long_a_request_is_a_bad_request_error(client):
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="yi-6b", messages=[{"role": "user", "content": "x" * 20_000}])
