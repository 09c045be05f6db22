"""The suite of tests/conformance against a live vLLM."""

from __future__ import annotations

import pytest

from tests.conformance.suite import Peer, VllmDialect

pytestmark = pytest.mark.vllm


class TestVllm(VllmDialect):
    """The live vLLM answers as the recorded one did; what needs a key was asked when it was recorded."""

    @pytest.fixture
    def peer(self, tiny_url: str) -> Peer:
        return Peer("vllm", {"plain": tiny_url})
