"""What is written down of the settings, and the endpoint as it is typed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.options._command_line import settings_from
from loadgen.options._endpoint import base_url, without_userinfo
from loadgen.options._headers import recorded
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


@pytest.mark.parametrize(
    "typed_host", ["http://h:8000", "http://h:8000/", "http://h:8000/v1", " http://h:8000/v1/ "]
)
def test_the_endpoint_may_be_typed_with_or_without_v1(typed_host: str) -> None:
    assert base_url(typed_host) == "http://h:8000/v1"
