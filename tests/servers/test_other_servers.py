"""llama.cpp's Python server and transformers' own: the same plan, and what they do not take."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.conftest import PLAN_TOKENS, PLAN_TURNS, Play, free_port, program
from tests.servers.install import python_of
from tests.vllm.conftest import launched

pytestmark = pytest.mark.servers

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port, python = tmp_path_factory.mktemp("llama"), free_port(), str(python_of(".venv-llama-cpp"))
    subprocess.run([python, str(HERE / "tiny_gguf.py"), str(home / "tiny.gguf")], check=True, timeout=60)
    command = [python, "-m", "llama_cpp.server", "--model", str(home / "tiny.gguf"), "--model_alias", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--n_threads", "1"]
    with program(command, [port], home / "said.txt"):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("dialect", ["chat", "completions"])
def test_llama_cpp_s_python_server_plays_the_plan(play: Play, llama_cpp: str, dialect: str) -> None:
    """It wants a UUID for a request's id, and streams no usage: its events are its tokens."""
    played = play(llama_cpp, "--dialect", dialect, people=1)
    assert {turn.outcome for turn in played.turns} == {"ok"}, played.said
    assert len(played.turns) == PLAN_TURNS
    assert {turn.token_source for turn in played.turns} == {"events"}
    assert {turn.output_tokens for turn in played.turns} == {PLAN_TOKENS}
    assert {turn.finish_reason for turn in played.turns} == {"length"}
    assert "token_source" in played.findings
    assert "X-Request-Id" in played.said
    assert played.summary["levels"][0]["server"] is None, "it has no metrics"


def test_transformers_serve_plays_the_plan_without_a_typed_path(
    play: Play, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = tmp_path_factory.mktemp("transformers") / "said.txt"
    with launched(said, "tiny", "--backend", "transformers", core="0") as url:
        played = play(url)
    assert {turn.outcome for turn in played.turns} == {"ok"}, played.said
    assert {turn.token_source for turn in played.turns} == {"usage"}
    assert max(turn.output_tokens or 0 for turn in played.turns) <= PLAN_TOKENS
    assert "ignore_eos" in played.said, "what it refuses is left out for the run, and reported"
