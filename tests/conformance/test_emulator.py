"""The emulator beside the recording of a real vLLM; tests/vllm does the same with the engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.comparing import Known, differences, stale, unnamed
from tests.conformance.probes import KEY
from tests.conformance.shape import stream_shape
from tests.conformance.suite import Peer, VllmDialect, recorded
from tests.emulators import emulator

MODEL = ("--model", "tiny", "--hardware", "h200-141gb", "--seed", "1")
"""With this seed the answers that shall end by themselves are shorter than their limits."""


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    guard = {"CONFORMANCE_KEY": KEY, "VLLM_SERVER_DEV_MODE": "1"}
    with (
        emulator(*MODEL) as plain,
        emulator(*MODEL, "--api-key-env", "CONFORMANCE_KEY", **guard) as guarded,
    ):
        yield Peer("emulator", {"plain": plain, "guarded": guarded})


class TestEmulator(VllmDialect):
    """All of it."""


STREAM = recorded()["chat stream with usage"].body


@pytest.mark.parametrize(
    ("cut", "put", "where"),
    [
        ('"token_ids":null', '"token_ids":[]', "content.choices[0].token_ids"),
        ('"index":0,"delta":{"content"', '"delta":{"content"', "content.choices[0]"),
        ('"finish_reason":"length"', '"finish_reason":"stop"', "last.choices[0].finish_reason"),
        ('"prompt_tokens":29', '"prompt_tokens":"29"', "usage.usage.prompt_tokens"),
        ('{"role":"assistant","content":""}', '{"content":""}', "events"),
        ("data: [DONE]\n\n", "", "events"),
        ('"object":"chat.completion.chunk"', '"object":"chunk"', "role.object"),
    ],
)
def test_a_change_to_any_field_of_a_recorded_stream_is_found(cut: str, put: str, where: str) -> None:
    assert cut in STREAM
    found = differences("chat", stream_shape(STREAM), stream_shape(STREAM.replace(cut, put)))
    assert where in [each.where for each in found]


def test_other_words_and_another_length_are_no_difference() -> None:
    event = next(each for each in STREAM.split("\n\n") if '"content":" ' in each)
    longer = STREAM.replace(event, event.replace('"content":" ', '"content":" other ') + "\n\n" + event, 1)
    assert longer != STREAM
    assert differences("chat", stream_shape(STREAM), stream_shape(longer)) == []


def test_a_row_that_names_nothing_is_stale_and_a_difference_without_a_row_is_unnamed() -> None:
    (found,) = differences("chat whole", [("status", "200")], [("status", "201")])
    row = Known("emulator", "chat *", "status", "because")
    other = Known("emulator", "completion *", "status", "because")
    assert (unnamed([found], [row]), stale([found], [row])) == ([], [])
    assert len(unnamed([found], [other])) == len(stale([found], [other])) == 1
