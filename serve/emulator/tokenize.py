"""/tokenize: how many tokens a text has here, in vLLM's form.

A token is four characters, so there is no vocabulary: a token's number is a checksum of its text, below the
model's vocabulary size, and cannot be turned back into text.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

from serve.emulator.refusal import decode, unknown_model
from serve.emulator.request import CHARS_PER_TOKEN, Limits
from serve.emulator.template import Message, check_roles, render


class TokenizeBody(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class _PromptBody(TokenizeBody, kw_only=True):
    prompt: str


_decoder = msgspec.json.Decoder(TokenizeBody)
_prompt_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_PromptBody)


def tokenize(body: bytes, limits: Limits) -> bytes:
    """The answer to a request with a prompt or messages; raises Refusal."""
    asked = decode(_decoder, body)
    if asked.messages is None and asked.prompt is None:
        # Says which field is missing.
        decode(_prompt_decoder, body)
    if asked.model is not None and asked.model != limits.model:
        raise unknown_model(asked.model, limits.model)
    pieces = _pieces(_text(asked, limits))
    return msgspec.json.encode(
        {
            "count": len(pieces),
            "max_model_len": limits.max_model_len,
            "tokens": [crc32(piece.encode(errors="replace")) % limits.vocabulary for piece in pieces],
            "token_strs": pieces if asked.return_token_strs else None,
        }
    )


def _text(asked: TokenizeBody, limits: Limits) -> str:
    if asked.messages is None:
        return asked.prompt or ""
    check_roles(asked.messages, limits.model, limits.system_role)
    return render(asked.messages, asked.add_generation_prompt)


def _pieces(text: str) -> list[str]:
    return [text[start : start + CHARS_PER_TOKEN] for start in range(0, len(text), CHARS_PER_TOKEN)]
