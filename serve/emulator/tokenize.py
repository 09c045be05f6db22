"""/tokenize: how many tokens a text has here, in vLLM's form.

A token is four characters, so there is no vocabulary: a token's number is a checksum of its text, below the
model's vocabulary size, and cannot be turned back into text.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

from serve.emulator.dialects.chat import ChatMessage, check_roles, render
from serve.emulator.dialects.choices import decode
from serve.emulator.request import CHARS_PER_TOKEN, EmulatedModel, unknown_model


class TokenizeBody(msgspec.Struct, kw_only=True):
    """The body of a request: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class _WithPrompt(TokenizeBody, kw_only=True):
    prompt: str


_decoder = msgspec.json.Decoder(TokenizeBody)
_prompt_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_WithPrompt)


def tokenize(body: bytes, model: EmulatedModel) -> bytes:
    """The answer to a request; raises RequestRefused."""
    asked = decode(_decoder, body)
    if asked.messages is None and asked.prompt is None:
        # Says which field is missing.
        decode(_prompt_decoder, body)
    if asked.model is not None and asked.model != model.name:
        raise unknown_model(asked.model, model.name)
    text = asked.prompt or ""
    if asked.messages is not None:
        check_roles(asked.messages, model)
        text = render(asked.messages, asked.add_generation_prompt)
    pieces = [text[start : start + CHARS_PER_TOKEN] for start in range(0, len(text), CHARS_PER_TOKEN)]
    return msgspec.json.encode(
        {
            "count": len(pieces),
            "max_model_len": model.max_model_len,
            "tokens": [crc32(piece.encode(errors="replace")) % model.vocabulary for piece in pieces],
            "token_strs": pieces if asked.return_token_strs else None,
        }
    )
