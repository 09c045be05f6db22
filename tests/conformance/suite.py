"""What every server that turnbench measures must do, whoever wrote it: inherited by one test class a server.

A class that inherits it has a fixture `peer`; the recording of a real vLLM is the measure of the second half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.asking import Answered, ask
from tests.conformance.comparing import UNANSWERED, Difference, differences, stale, table, unnamed
from tests.conformance.probes import PROBES, Kind
from tests.conformance.shape import shape
from tests.official import anthropic, openai

RECORDING = Path(__file__).with_name("recordings") / "vllm-0.32.0.json"
STORY = "Tell me a story about the harbour."
QUESTION = [{"role": "user", "content": STORY}]


@dataclass(frozen=True)
class Peer:
    """A server that runs: its name in the table of differences, its URLs, what it calls its model."""

    name: str
    urls: dict[Kind, str]
    model: str = "tiny"
    exact: dict[str, Any] = field(default_factory=lambda: {"ignore_eos": True})
    """What must be in a request so that its limit is its length; empty where that can't be had."""
    revision: str = ""
    """What it puts behind its model's name in answers."""
    without: tuple[str, ...] = ()
    """Fields of vLLM's own that it refuses wherever they stand."""
    unknown_model: type[Exception] = field(default_factory=lambda: openai.NotFoundError)
    without_paths: tuple[str, ...] = ()
    """Endpoints of vLLM's that it lacks, or has in a form of its own."""


def recorded() -> dict[str, Answered]:
    """The answers of a real vLLM, by the probe's name."""
    answers = json.loads(RECORDING.read_text(encoding="utf-8"))["answers"]
    return {
        name: Answered(each["status"], [(key, value) for key, value in each["headers"]], each["body"])
        for name, each in answers.items()
    }


def found_differences(peer: Peer) -> list[Difference]:
    """Ask everything that this peer can be asked, and compare."""
    answers, unanswered = recorded(), [row.probe for row in table(peer.name) if row.where == UNANSWERED]
    found: list[Difference] = []
    for probe in PROBES:
        if probe.name in unanswered:
            found.append(Difference(probe.name, UNANSWERED, str(answers[probe.name].status), "nothing"))
        elif probe.kind in peer.urls and probe.path not in peer.without_paths:
            here = ask(peer.urls[probe.kind], probe, peer.model, peer.without)
            found += differences(probe.name, shape(answers[probe.name]), shape(here))
    return found


class Conformance:
    """The official client first, then field by field."""

    @pytest.fixture
    def client(self, peer: Peer) -> Iterator[openai.OpenAI]:
        url = f"{peer.urls['plain']}/v1"
        with openai.OpenAI(base_url=url, api_key="none", timeout=120, max_retries=0) as made:
            yield made

    def test_a_chat_comes_whole_with_its_usage(self, peer: Peer, client: openai.OpenAI) -> None:
        got = client.chat.completions.create(
            model=peer.model, messages=QUESTION, max_tokens=8, extra_body=peer.exact
        )
        assert (got.object, got.model) == ("chat.completion", peer.model + peer.revision)
        assert (got.choices[0].message.role, got.choices[0].finish_reason) == ("assistant", "length")
        assert got.choices[0].message.content
        assert got.usage.completion_tokens == 8
        assert got.usage.total_tokens == got.usage.prompt_tokens + 8

    def test_a_chat_comes_in_a_stream_role_first_reason_last(self, peer: Peer, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model=peer.model,
            messages=QUESTION,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=peer.exact,
        )
        chunks = list(stream)
        spoken = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert (spoken[0].delta.role, spoken[0].delta.content or "") == ("assistant", "")
        assert [choice.finish_reason for choice in spoken if choice.finish_reason] == ["length"]
        assert spoken[-1].finish_reason == "length"
        assert any(choice.delta.content for choice in spoken)
        assert chunks[-1].usage.completion_tokens == 8
        assert len({chunk.id for chunk in chunks}) == 1

    def test_the_stream_counts_the_prompt_as_the_whole_answer_does(
        self, peer: Peer, client: openai.OpenAI
    ) -> None:
        body: dict[str, Any] = {"model": peer.model, "messages": QUESTION, "max_tokens": 3}
        whole = client.chat.completions.create(**body)
        *_, last = client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
        assert last.usage.prompt_tokens == whole.usage.prompt_tokens

    def test_a_longer_prompt_counts_more_tokens(self, peer: Peer, client: openai.OpenAI) -> None:
        counts = [
            client.chat.completions.create(
                model=peer.model, messages=[{"role": "user", "content": "word " * words}], max_tokens=1
            ).usage.prompt_tokens
            for words in (5, 50, 500)
        ]
        assert counts == sorted(set(counts))

    def test_the_served_model_is_listed(self, peer: Peer, client: openai.OpenAI) -> None:
        assert peer.model in [model.id for model in client.models.list()]

    def test_an_unknown_model_is_an_error_of_the_client_s(self, peer: Peer, client: openai.OpenAI) -> None:
        with pytest.raises(peer.unknown_model):
            client.chat.completions.create(model="gpt-9", messages=QUESTION)

    def test_a_body_without_messages_is_refused(self, peer: Peer, client: openai.OpenAI) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            client.post("/chat/completions", body={"model": peer.model}, cast_to=object)
        assert 400 <= caught.value.status_code < 500

    def test_every_difference_from_the_recorded_vllm_is_named_and_every_row_is_needed(
        self, peer: Peer
    ) -> None:
        found, known = found_differences(peer), table(peer.name)
        assert (unnamed(found, known), stale(found, known)) == ([], [])


class VllmDialect(Conformance):
    """What vLLM's own dialect adds, for servers that speak it."""

    @pytest.fixture
    def claude(self, peer: Peer) -> Iterator[anthropic.Anthropic]:
        """Anthropic's own client."""
        url = peer.urls["plain"]
        with anthropic.Anthropic(base_url=url, api_key="none", timeout=120, max_retries=0) as made:
            yield made

    def test_a_response_comes_whole_with_its_usage(self, peer: Peer, client: openai.OpenAI) -> None:
        got = client.responses.create(
            model=peer.model, input=STORY, max_output_tokens=8, extra_body=peer.exact
        )
        assert (got.object, got.status, got.model) == ("response", "incomplete", peer.model)
        assert got.incomplete_details.reason == "max_output_tokens"
        assert got.output_text
        assert got.usage.output_tokens == 8
        assert got.usage.total_tokens == got.usage.input_tokens + 8

    def test_a_response_comes_in_a_stream_of_numbered_events(self, peer: Peer, client: openai.OpenAI) -> None:
        events = list(
            client.responses.create(
                model=peer.model, input=QUESTION, max_output_tokens=8, stream=True, extra_body=peer.exact
            )
        )
        kinds = [event.type for event in events]
        assert kinds[:4] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
        ]
        assert kinds[-4:-1] == [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
        ]
        assert kinds[-1] in ("response.completed", "response.incomplete")
        numbers = [event.sequence_number for event in events]
        assert numbers == sorted(set(numbers))
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert said == events[-4].text == events[-1].response.output_text
        assert events[-1].response.usage.output_tokens == 8

    def test_a_response_goes_on_with_a_conversation(self, peer: Peer, client: openai.OpenAI) -> None:
        short, long = (
            client.responses.create(model=peer.model, input=items, max_output_tokens=2).usage.input_tokens
            for items in (QUESTION, [*QUESTION, {"role": "assistant", "content": "It was cold."}, *QUESTION])
        )
        assert short < long

    def test_a_message_comes_whole_with_its_usage(self, peer: Peer, claude: anthropic.Anthropic) -> None:
        got = claude.messages.create(model=peer.model, messages=QUESTION, max_tokens=4, system="Be brief.")
        assert (got.type, got.role, got.model) == ("message", "assistant", peer.model)
        assert (got.content[0].type, bool(got.content[0].text)) == ("text", True)
        assert (got.stop_reason, got.usage.output_tokens) == ("max_tokens", 4)
        assert got.usage.input_tokens > 0

    def test_a_message_comes_in_a_stream_of_blocks(self, peer: Peer, claude: anthropic.Anthropic) -> None:
        with claude.messages.stream(model=peer.model, messages=QUESTION, max_tokens=4) as stream:
            events = list(stream)
            whole = stream.get_final_message()
        kinds = [event.type for event in events if event.type != "ping"]
        assert kinds[:2] == ["message_start", "content_block_start"]
        assert kinds[-1] == "message_stop"
        assert "content_block_stop" in kinds
        assert (whole.stop_reason, whole.usage.output_tokens, bool(whole.content[0].text)) == (
            "max_tokens",
            4,
            True,
        )

    def test_a_message_of_an_unknown_model_is_not_found(
        self, peer: Peer, claude: anthropic.Anthropic
    ) -> None:
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.create(model="gpt-9", messages=QUESTION, max_tokens=4)

    def test_too_long_a_message_is_a_bad_request(self, peer: Peer, claude: anthropic.Anthropic) -> None:
        long = [{"role": "user", "content": "harbour morning " * 3000}]
        with pytest.raises(anthropic.BadRequestError, match="maximum context length is 4096 tokens"):
            claude.messages.create(model=peer.model, messages=long, max_tokens=4)

    def test_the_answer_is_as_long_as_asked_by_either_limit(self, peer: Peer, client: openai.OpenAI) -> None:
        for field_name in ("max_tokens", "max_completion_tokens"):
            got = client.chat.completions.create(
                model=peer.model, messages=QUESTION, extra_body={field_name: 5, "ignore_eos": True}
            )
            assert got.usage.completion_tokens == 5

    def test_a_stop_string_ends_the_answer_before_it(self, peer: Peer, client: openai.OpenAI) -> None:
        body: dict[str, Any] = {"model": peer.model, "messages": QUESTION, "temperature": 0, "max_tokens": 8}
        whole = client.chat.completions.create(**body, extra_body=peer.exact).choices[0].message.content
        stop = whole[len(whole) // 2 :][:4]
        cut = client.chat.completions.create(**body, stop=[stop], extra_body=peer.exact).choices[0]
        assert (cut.finish_reason, cut.message.content) == ("stop", whole[: whole.index(stop)])

    def test_a_plain_completion_comes_whole_and_in_a_stream(self, peer: Peer, client: openai.OpenAI) -> None:
        body: dict[str, Any] = {"model": peer.model, "prompt": "Once upon a time", "max_tokens": 6}
        whole = client.completions.create(**body, extra_body=peer.exact)
        assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (6, "length")
        chunks = list(client.completions.create(**body, stream=True, extra_body=peer.exact))
        assert "".join(chunk.choices[0].text for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "length"

    def test_too_long_a_prompt_is_a_bad_request(self, peer: Peer, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="maximum context length is 4096 tokens"):
            client.chat.completions.create(
                model=peer.model, messages=[{"role": "user", "content": "harbour morning " * 3000}]
            )

    def test_tokenize_counts_what_usage_counts(self, peer: Peer, client: openai.OpenAI) -> None:
        root = peer.urls["plain"]
        counted = client.post(f"{root}/tokenize", body={"messages": QUESTION}, cast_to=object)
        got = client.chat.completions.create(model=peer.model, messages=QUESTION, max_tokens=1)
        assert isinstance(counted, dict)
        assert counted["count"] == len(counted["tokens"]) == got.usage.prompt_tokens
        assert counted["max_model_len"] == 4096
