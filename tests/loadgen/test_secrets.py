"""No key is kept or sent to a stranger, and the environment stays outside.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.options._headers import headers_of, recorded, secrets_of
from loadgen.options._settings import Settings
from turnbench.credentials import Secrets


@pytest.mark.parametrize("how", ["refusal", "error event", "page", "cut off"])
async def test_no_secret_that_the_server_repeats_is_kept(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def script(peer: Any) -> None:
        request = await peer.request()
        lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        echoed = " ".join(line for line in lines if line.startswith(("Auth", "X-Tenant")))
        echoed += " Incorrect API key sk-very-secret"
        if how == "cut off":
            echoed = "x" * 490 + "sk-very-secret"
        if how == "error event":
            await peer.head()
            await peer.finish(peer.event({"error": {"message": echoed}}))
        else:
            status = "200 OK" if how == "page" else "401 Unauthorized"
            await peer.head(status, "Content-Type: text/plain", f"Content-Length: {len(echoed)}")
            await peer.send(echoed.encode())

    server = await serve(script)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("TENANT", "tenant-secret")
    person = client(server.url, headers={"X-Tenant": "$TENANT"})
    await person.ended(person.start())
    (line,) = person.lines
    assert b"very-secret" not in line
    assert b"tenant-secret" not in line
    assert b"sk-v" not in line
    assert b"***" in line
    assert b"Authorization: Bearer sk-very-secret\r\n" in server.requests[0], "else this test shows nothing"


async def test_a_key_in_a_typed_authorization_header_is_scrubbed_with_and_without_its_scheme(
    serve: Any, client: Any
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("401 No", "Content-Length: 24")
        await peer.send(b"bad key sk-typed-secret!")

    server = await serve(script)
    person = client(server.url, headers={"Authorization": "Bearer sk-typed-secret"})
    await person.ended(person.start())
    assert person.records[0].error == "bad key ***!"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Accept-Encoding", "gzip", "gzip"),
        ("ACCEPT", "text/event-stream, text/plain", "text/plain"),
        ("User-Agent", "$AGENT", "***"),
        ("X-Tenant", "gzip", "***"),
    ],
)
def test_words_of_every_day_in_a_typed_header_hide_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("AGENT", "a-secret-agent")
    settings = Settings(host="http://h", headers={name: value})
    sent = headers_of(settings)
    words = sent.get(name) or next(sent[each] for each in sent if each.lower() == name.lower())
    assert secrets_of(settings, sent).scrubbed(words.rpartition(" ")[2]) == said
    assert recorded(settings)["headers"] == {name: "***"}


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r:>40}".format, lambda held: str([{"key": held}])]
)
def test_however_secrets_are_printed_they_are_stars(show: Callable[[Secrets], str]) -> None:
    assert show(Secrets(["Bearer sk-very-secret"])).strip() in ("***", "[{'key': ***}]")


async def test_a_password_in_the_url_is_sent_and_scrubbed(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        request = await peer.request()
        basic = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization: Basic"))
        echoed = basic + b" of hunter2"
        await peer.head("401 No", f"Content-Length: {len(echoed)}")
        await peer.send(echoed)

    server = await serve(script)
    person = client(server.url.replace("//", "//me:hunter2@"))
    await person.ended(person.start())
    (record,) = person.records
    assert record.error == "Authorization: Basic *** of ***"


async def test_a_secret_that_a_model_says_is_not_in_the_text_kept(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = await serve(lambda peer: peer.answer("Your key is sk-very", "-secret, isn't it"))
    person = client(server.url, keep_text=True)
    await person.ended(person.start())
    assert person.records[0].text == "Your key is ***, isn't it"


def test_a_secret_typed_in_another_place_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    settings = Settings(
        host="http://127.0.0.1:8000",
        labels={"key": "sk-very-secret"},
        body={"auth": {"keys": ["Bearer sk-very-secret"]}},
        headers={"X-Other": "$NOT_SET_HERE", "X-Tenant": "tenant-secret"},
    )
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    shown = recorded(settings)
    assert "tenant-secret" not in str(shown)
    assert shown["labels"] == {"key": "***"}
    assert shown["body"] == {"auth": {"keys": ["Bearer ***"]}}


async def test_proxy_variables_are_ignored_unless_asked_for(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = await serve(lambda peer: peer.answer("From the proxy"))
    server = await serve(lambda peer: peer.answer("From the server"))
    monkeypatch.setenv("http_proxy", proxy.url)
    for trust_env, asked in ((False, server), (True, proxy)):
        person = client(server.url, trust_env=trust_env)
        await person.ended(person.start())
        assert person.records[0].outcome == "ok"
        assert asked.connections == 1
        assert recorded(person.driver.run.job.settings)["trust_env"] is trust_env
    assert (server.connections, proxy.connections) == (1, 1)


async def test_netrc_is_ignored(
    serve: Any, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = await serve(lambda peer: peer.answer())
    person = client(server.url)
    await person.ended(person.start())
    assert b"Authorization" not in server.requests[0]
