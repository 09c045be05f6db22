"""`transformers serve` with the tiny model: what it does as vLLM does, and where it differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest

from serve._launch import TINY_FOLDER

pytestmark = pytest.mark.vllm

NAME = str(TINY_FOLDER.with_name("tiny-random"))
"""It knows a model by its folder only, and refuses any other name."""


@pytest.fixture(scope="module")
def url(serve_up: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    with serve_up("tiny", "--backend", "transformers") as found:
        yield found


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
