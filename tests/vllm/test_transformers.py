"""`transformers serve` with the tiny model: what it does as vLLM does, and where it differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from serve.launch.command import TINY_FOLDER
from tests.conformance.probes import MESSAGES, RESPONSES
from tests.conformance.suite import QUESTION, Conformance, Peer
from tests.official import openai
from turnbench.places import weights_folder

pytestmark = pytest.mark.vllm

NAME = str(TINY_FOLDER.with_name("tiny-random"))
"""It knows a model by its folder only, and refuses any other name."""


@pytest.fixture(scope="module")
def url(serve_up: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    with serve_up("tiny", "--backend", "transformers") as found:
        yield found


class TestTransformersConformance(Conformance):
    """The common suite. It has no exact lengths, so its answers are as long as it likes, up to the limit."""

    @pytest.fixture
    def peer(self, url: str) -> Peer:
        without = ("ignore_eos", "min_tokens")
        paths = (RESPONSES, MESSAGES)
        return Peer("transformers", {"plain": url}, NAME, {}, "@main", without, openai.BadRequestError, paths)

    def test_the_served_model_is_listed(self, peer: Peer, client: openai.OpenAI) -> None:
        """It is not: see the table of differences."""
        assert client.models.list().data == []

    def test_a_chat_comes_in_a_stream_role_first_reason_last(self, peer: Peer, client: openai.OpenAI) -> None:
        """As the suite's, but usage comes with the reason and not in an event of its own."""
        stream = client.chat.completions.create(
            model=peer.model, messages=QUESTION, max_tokens=8, stream=True
        )
        first, *middle, last = list(stream)
        assert (first.choices[0].delta.role, first.choices[0].delta.content or "") == ("assistant", "")
        assert "".join(chunk.choices[0].delta.content or "" for chunk in middle)
        assert (last.choices[0].finish_reason, last.usage.completion_tokens) == ("length", 8)

    def test_a_body_without_messages_is_refused(self, peer: Peer, client: openai.OpenAI) -> None:
        """It fails inside instead: see the table of differences."""
        with pytest.raises(openai.InternalServerError):
            client.post("/chat/completions", body={"model": peer.model}, cast_to=object)


def chunks_of(url: str, **more: Any) -> list[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0) as client:
        body = {"model": NAME, "messages": [{"role": "user", "content": "Tell me more."}], **more}
        return list(client.chat.completions.create(stream=True, **body))


def test_a_stream_begins_with_a_role_and_ends_with_a_reason_and_usage(url: str) -> None:
    chunks = chunks_of(url, max_tokens=16)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[0].choices[0].delta.content
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert 1 <= chunks[-1].usage.completion_tokens <= 16


def test_usage_comes_unasked_and_on_the_last_event_unlike_vllm_s(url: str) -> None:
    chunks = chunks_of(url, max_tokens=4)
    assert chunks[-1].choices
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("field", [{"ignore_eos": True}, {"min_tokens": 4}])
def test_an_exact_number_of_tokens_cannot_be_asked_for(url: str, field: dict[str, Any]) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chunks_of(url, max_tokens=4, extra_body=field)
    assert caught.value.status_code == 422


def test_a_model_is_known_by_its_folder_only(url: str) -> None:
    with pytest.raises(openai.BadRequestError):
        chunks_of(url, model="tiny")


def test_the_description_says_transformers_and_random_weights(url: str) -> None:
    folder = Path(__file__).parents[2] / ".serve"
    facts = json.loads((folder / f"{url.rsplit(':', 1)[1]}.json").read_text(encoding="utf-8"))
    assert (facts["backend"], facts["weights"], facts["served_name"]) == ("transformers", "dummy", NAME)
    assert facts["version"].startswith("transformers ")


def test_a_real_model_of_a_package_answers_and_ends_by_itself(
    serve_up: Callable[..., AbstractContextManager[str]],
) -> None:
    name = str(weights_folder() / "smollm2-135m")
    with (
        serve_up("smollm2-135m", "--backend", "transformers", "--precision", "bf16") as found,
        openai.OpenAI(base_url=f"{found}/v1", api_key="none", timeout=120, max_retries=0) as client,
    ):
        asked: Any = [{"role": "user", "content": "What is the capital of France?"}]
        (choice,) = client.chat.completions.create(
            model=name, messages=asked, max_tokens=60, temperature=0
        ).choices
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
