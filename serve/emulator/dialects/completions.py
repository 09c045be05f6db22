"""Plain completions: a prompt in one of its forms, continued."""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.answers import Answer
from serve.emulator.dialects.choices import (
    ChoiceDialect,
    ChoiceEvents,
    SharedFields,
    check_fields,
    decode,
    request_of,
)
from serve.emulator.request import EmulatedModel, GenerationRequest, bad_request, bad_value

DEFAULT_TOKENS = 16
"""Length of a completion whose request names none."""


class CompletionBody(SharedFields, kw_only=True):
    """The body of a request."""

    prompt: str | list[str | int] | None = None


_decoder = msgspec.json.Decoder(CompletionBody)


class CompletionsDialect(ChoiceDialect):
    """POST /v1/completions."""

    path = "/v1/completions"

    def read(self, body: bytes, model: EmulatedModel) -> GenerationRequest:
        """The request in this body; raises RequestRefused."""
        completion = decode(_decoder, body)
        prompt = _one_prompt(completion.prompt)
        check_fields(completion, model, "max_tokens", completion.max_tokens)
        max_tokens = DEFAULT_TOKENS if completion.max_tokens is None else completion.max_tokens
        return request_of(completion, model, prompt, prompt, max_tokens)

    def events(
        self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int
    ) -> ChoiceEvents:
        """The events of the reply with this number, counted from 1."""
        return _CompletionEvents(request, answer, model, number)

    def text_event(self, text: str) -> Any:
        """An event with this text that no model made."""
        return {"choices": [{"index": 0, "text": text}]}


def _one_prompt(prompt: str | list[str | int] | None) -> str:
    if not prompt:
        raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, str):
        return prompt
    texts = [item for item in prompt if isinstance(item, str)]
    if len(texts) == len(prompt) == 1:
        return texts[0]
    if texts:
        raise bad_request("The emulator takes one prompt a request.", "prompt")
    # A prompt of token numbers: each stands for as many characters as a token has here.
    return "".join(f"{int(item) % 10_000:04d}" for item in prompt)


class _CompletionEvents(ChoiceEvents):
    id_prefix = "cmpl"
    object_name = "text_completion"
    whole_object_name = "text_completion"
    counts_created_tokens = False
    event_usage_nulls = ()
    choice_nulls = ("prompt_logprobs", "prompt_token_ids", "routed_experts")
    whole_nulls = ()

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        stop_reason = self._answer.stop_string if finish_reason else None
        return {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
            "prompt_token_ids": None,
            "token_ids": None,
        }

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"text": text}
