"""What is written down of the settings, and the endpoint as it is typed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.dialects import DIALECTS
from loadgen.options import _prepare
from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._endpoint import address_of, without_secrets, without_userinfo
from loadgen.options._headers import dialect_of, recorded
from loadgen.options._settings import Settings

HOST = "http://127.0.0.1:8000"


@given(
    st.lists(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=6), min_size=1, max_size=4)
)
def test_header_values_are_never_recorded(values: list[str]) -> None:
    headers = [f"X-{number}: VALUE{value}" for number, value in enumerate(values)]
    found = recorded(settings_from({"host": HOST, "header": headers}))
    assert found["headers"] == {f"X-{number}": "***" for number in range(len(values))}
    assert "VALUE" not in json.dumps(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hunter2@h:8000/v1", "http://***@h:8000/v1"),
        ("https://token@h", "https://***@h"),
        ("http://a:b@c@h/x@y", "http://***@h/x@y"),
        ("me:hunter2@h", "***@h"),
        ("http://h:8000/v1", "http://h:8000/v1"),
    ],
)
def test_a_password_in_the_url_is_never_recorded(url: str, shown: str) -> None:
    assert without_userinfo(url) == shown
    assert recorded(Settings(host=url))["host"] == shown


ROOTS = {
    "http://h:8000": "http://h:8000/v1",
    "http://h:8000/": "http://h:8000/v1",
    "http://h:8000/v1": "http://h:8000/v1",
    " http://h:8000/v1/ ": "http://h:8000/v1",
    "https://h/prefix": "https://h/prefix/v1",
    "https://h/prefix//v1": "https://h/prefix/v1",
    "https://h/openai/v1": "https://h/openai/v1",
    "https://h/api/v3": "https://h/api/v3",
    "https://h/api/paas/v4/": "https://h/api/paas/v4",
    "https://h/v1beta/openai": "https://h/v1beta/openai",
    "https://h/v1beta/openai/": "https://h/v1beta/openai",
    "http://[::1]:8000": "http://[::1]:8000/v1",
    "http://[fe80::1]": "http://[fe80::1]/v1",
    "https://h/openai/deployments/d1": "https://h/openai/deployments/d1",
    "https://h/openai/deployments/v2": "https://h/openai/deployments/v2",
}


@pytest.mark.parametrize("typed_host", ROOTS)
def test_the_endpoint_may_be_typed_with_or_without_its_version(typed_host: str) -> None:
    found = address_of(typed_host)
    assert (found.root, found.of("/x"), found.dialect) == (ROOTS[typed_host], f"{ROOTS[typed_host]}/x", None)


@pytest.mark.parametrize(
    ("typed", "dialect", "asked"),
    [
        ("https://h/chat/completions", "chat", "https://h/chat/completions"),
        ("http://h/v1/chat/completions/", "chat", "http://h/v1/chat/completions"),
        ("http://h/v1/completions", "completions", "http://h/v1/completions"),
        ("http://h/v1/responses", "responses", "http://h/v1/responses"),
        ("https://h/anthropic/v1/messages", "messages", "https://h/anthropic/v1/messages"),
        (
            "https://h/openai/deployments/d/chat/completions?api-version=1",
            "chat",
            "https://h/openai/deployments/d/chat/completions?api-version=1",
        ),
    ],
)
def test_a_whole_endpoint_says_its_dialect(typed: str, dialect: str, asked: str) -> None:
    found = address_of(typed)
    assert (found.dialect, found.of(DIALECTS[dialect].path)) == (dialect, asked)
    settings = Settings(host=typed)
    assert dialect_of(settings) == recorded(settings)["dialect"] == dialect


def test_what_stands_in_no_path_is_chat_and_a_dialect_that_is_asked_for_is_taken() -> None:
    assert dialect_of(settings_from({"host": HOST})) == "chat"
    assert dialect_of(settings_from({"host": HOST, "dialect": "messages"})) == "messages"


def test_a_dialect_beside_another_ones_endpoint_is_refused_with_both_remedies() -> None:
    with pytest.raises(OptionErrors, match="give the server's address alone, or drop --dialect messages"):
        settings_from({"host": f"{HOST}/v1/responses", "dialect": "messages"})
    assert settings_from({"host": f"{HOST}/v1/responses", "dialect": "responses"})


def test_a_query_goes_with_every_request_to_the_api_and_not_to_the_server_s_pages() -> None:
    found = address_of("https://r1.openai.azure.com/openai/deployments/d1?api-version=2024-10-21")
    asked = "https://r1.openai.azure.com/openai/deployments/d1/chat/completions?api-version=2024-10-21"
    assert found.of("/chat/completions") == asked
    assert found.of_server("/metrics") == "https://r1.openai.azure.com/metrics"
    assert address_of("http://h/prefix/v1").of_server("/metrics") == "http://h/prefix/metrics"
    assert address_of("http://h/v1beta/openai").of_server("/version") == "http://h/version"


@pytest.mark.parametrize("typed", ["unix:/run/x.sock", "unix:///run/x.sock"])
def test_a_unix_socket_is_an_address(typed: str) -> None:
    found = address_of(typed)
    assert (found.socket, found.root) == ("/run/x.sock", "unix:/run/x.sock")
    assert found.of("/models") == "http://localhost/v1/models"


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("h:8000", "write http://h:8000"),
        ("localhost", "write http://localhost"),
        ("[::1]:8000", "write http://[::1]:8000"),
        ("http://::1:8000", "http://[::1]:8000"),
        ("http://fe80::1", "http://[::1]:8000"),
        ("http://h/v1/models", "write http://h/v1"),
        ("http://h:11434/api/chat", "write http://h:11434"),
        ("http://h/v1/embeddings?x=1", "write http://h/v1"),
        ("https://h/openai/deployments?api-version=1", ".../deployments/NAME?api-version=..."),
        ("http://h/v1#chat", "take it out"),
        ("unix:x.sock", "unix:/path/of/the.sock"),
        ("http+unix://%2Frun%2Fx.sock", "unix:/path/of/the.sock"),
        ("/run/x.sock", "unix:/path/of/the.sock"),
        ("ftp://h", "http://127.0.0.1:8000"),
    ],
)
def test_an_address_that_can_t_be_meant_is_refused_with_what_to_write(typed: str, advice: str) -> None:
    with pytest.raises(OptionErrors) as caught:
        settings_from({"host": typed})
    (problem,) = caught.value.problems
    assert problem.startswith("-H ")
    assert advice in problem


def test_a_key_in_the_query_is_not_recorded() -> None:
    typed = "https://h/v1?api-version=2&key=sk-secret&sig=hush-hush"
    assert without_secrets(typed) == "https://h/v1?api-version=2&key=***&sig=***"
    shown = recorded(Settings(host=typed, labels={"a": "sk-secret"}))
    assert "sk-secret" not in json.dumps(shown)
    assert "hush" not in json.dumps(shown)


def test_what_is_there_without_being_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prepare, "_LIBRARIES", ("msgspec", "copied-here-by-hand"))
    assert list(_prepare.versions()) == ["python", "msgspec"]
