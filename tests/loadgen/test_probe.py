"""What an endpoint says of itself before a run: of any size, in any pieces, of any type; or nothing."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from loadgen.options._command_line import OptionErrors
from loadgen.options._endpoint import Endpoint
from loadgen.options._headers import headers_of
from loadgen.options._prepare import model_to_ask
from loadgen.options._probe import probe
from loadgen.options._settings import Settings
from loadgen.options._tls import ssl_of
from scenarios import MeasuredTexts

Answer = Callable[[Any], Awaitable[None]]


def body(value: Any, status: str = "200 OK", *headers: str) -> Answer:
    """A whole answer."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()

    async def answer(peer: Any) -> None:
        length = f"Content-Length: {len(text)}"
        await peer.head(status, "Content-Type: application/json", length, *headers)
        await peer.send(text)

    return answer


async def hang(peer: Any) -> None:
    await peer.until_closed()


async def reset(peer: Any) -> None:
    peer.reset()


@pytest.fixture
def ask(serve: Any) -> Any:
    """Probe a server that answers each path with one of these; a path that has none is a 404."""

    async def asked(models: Answer, tls: Any = None, settings: Any = None, **answers: Answer) -> Endpoint:
        async def script(peer: Any) -> None:
            while True:
                path = (await peer.request()).split()[1].decode().rpartition("/")[2]
                answer = models if path == "models" else answers.get(path)
                await (answer or body(b"no", "404 Not Found"))(peer)

        server = await serve(script, tls)
        return await probe(Settings(host=server.url, connect_timeout_s=1.0, **settings or {}))

    return asked


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


TWO = {"object": "list", "data": [{"id": "first"}, {"id": "second", "max_model_len": 4096}]}


@pytest.mark.parametrize("cut", [1, 57, 100])
async def test_a_list_in_pieces_is_read_to_its_end(ask: Any, cut: int) -> None:
    async def pieces(peer: Any) -> None:
        text = json.dumps(TWO).encode()
        await peer.head("200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked")
        await peer.chunk(text[:cut])
        await asyncio.sleep(0.1)
        await peer.finish(text[cut:])

    found = await ask(pieces, settings={"model": "second"})
    assert (found.models, found.max_model_len, found.problem) == (["first", "second"], 4096, None)


async def test_a_list_of_over_a_mebibyte_is_read_to_its_end(ask: Any) -> None:
    many = [{"id": f"m{n}", "note": "x" * 300} for n in range(10_000)]
    assert len((await ask(body({"data": many}))).models) == 10_000


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        ({"models": [{"name": "a:latest", "model": "a:latest"}]}, ["a:latest"]),
        ([{"id": "a"}, "b", {"id": 5}, 7, None, {"id": ""}], ["a", "b"]),
        ({"data": []}, []),
    ],
)
async def test_lists_have_several_shapes(ask: Any, listed: Any, models: list[str]) -> None:
    assert (await ask(body(listed))).models == models


async def test_a_server_that_lists_none_is_asked_for_the_model_of_its_launcher(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' server knows its model by its folder, and lists what lies in Hugging Face's cache."""

    def described(url: str, models: list[str]) -> dict[str, str]:
        return {} if models else {"served_name": "/models/tiny"}

    monkeypatch.setattr("loadgen.options._probe.described_server", described)
    assert (await ask(body({"data": []}))).models == ["/models/tiny"]
    assert (await ask(body(TWO))).models == ["first", "second"]


@pytest.mark.parametrize(
    "version", [hang, reset, body(b"\xff\xfe"), body([1]), body({"version": 7}), body(b"[" * 99999)]
)
async def test_a_version_is_optional(ask: Any, version: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.options._probe._VERSION_LIMIT_S", 0.2)
    found = await ask(body(TWO), version=version)
    assert (found.models, found.version, found.usage_in_events) == (["first", "second"], None, False)


@pytest.mark.parametrize(
    ("length", "known"),
    [(4096, 4096), (4096.0, 4096), ("4096", 4096), (True, None), (10**30, None), ("long", None), (-1, None),
     (0, None), (1.5, None), ([4096], None), ({"a": 1}, None), (None, None)],
    ids=str,
)  # fmt: skip
async def test_a_context_of_any_type_is_used_only_where_it_can_be_one(
    ask: Any, length: Any, known: int
) -> None:
    found = await ask(body({"data": [{"id": "m", "max_model_len": length, "owned_by": length}]}))
    assert (found.models, found.max_model_len) == (["m"], known)
    assert bool(found.notes) == (known is None and length is not None)


LISTED = {"data": [{"id": "llama3:latest"}, {"id": "openai/*"}]}


@pytest.mark.parametrize("model", ["llama3", "openai/gpt-x"])
async def test_a_model_that_the_list_does_not_show_is_tried(ask: Any, model: str) -> None:
    found = await ask(body(LISTED), settings={"model": model}, completions=body({}, "200 OK"))
    assert found.refused_model is None


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "The model `yi` does not exist.", "code": 404}},
        {"detail": "model 'yi' not found, try pulling it first"},
        {"error": {"code": "model_not_found", "message": "model_not_found: yi"}},
    ],
)
async def test_a_model_that_the_server_does_not_know_has_the_servers_words(ask: Any, error: Any) -> None:
    found = await ask(body(LISTED), settings={"model": "yi"}, completions=body(error, "404 Not Found"))
    assert "yi" in (found.refused_model or "")


@pytest.mark.parametrize(
    ("typed", "hint"), [("yi-7b", "did you mean yi-6b?"), ("gpt", "it serves yi-6b, phi")]
)
def test_a_model_that_is_not_served_is_refused_with_what_is(typed: str, hint: str) -> None:
    endpoint = Endpoint(url="", models=["yi-6b", "phi"], refused_model="no such model", refused_name=typed)
    with pytest.raises(OptionErrors, match=re.escape(hint)):
        model_to_ask(Settings(host="http://127.0.0.1:8000", model=typed), endpoint)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 No", "429 Slow", "401 No"])
async def test_another_refusal_says_nothing_of_the_model(ask: Any, status: str) -> None:
    refused = body({"error": {"message": "stream_options is unknown"}}, status)
    assert (await ask(body(LISTED), settings={"model": "yi"}, completions=refused)).refused_model is None


async def test_a_refusal_has_the_servers_words_and_names_the_variable(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = body({"error": {"message": "No api key passed in."}}, "401 Unauthorized")
    said = (await ask(refused)).problem or ""
    assert [
        word
        for word in ("401", "No api key passed in.", "OPENAI_API_KEY", "--api-key-env")
        if word not in said
    ] == []
    monkeypatch.setenv("MY_KEY", "sk-wrong-key")
    said = (await ask(refused, settings={"api_key_env": "MY_KEY"})).problem or ""
    assert "refused the key of $MY_KEY" in said
    assert "sk-wrong" not in said


@pytest.mark.parametrize("answer", [body(b"<html>"), body({"object": "list"}), body(7), reset, hang])
async def test_what_is_no_list_is_said(ask: Any, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.options._probe._MODELS_LIMIT_S", 0.2)
    found = await ask(answer)
    assert (found.models, bool(found.problem)) == ([], True)


def test_a_password_and_a_key_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_password = Settings(host="http://me:pw@127.0.0.1:8000")
    assert "Authorization" not in headers_of(with_password)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some-key")
    with pytest.raises(ValueError, match=r"password in the URL and a key .* exclude each other"):
        headers_of(with_password)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pw\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert headers_of(Settings(host="http://127.0.0.1:8000"))["Authorization"] == "Bearer sk-some-key"
    with pytest.raises(ValueError, match=r"netrc has a password for 127\.0\.0\.1"):
        headers_of(Settings(host="http://127.0.0.1:8000", trust_env=True))
    assert headers_of(Settings(host="http://127.0.0.2:8000", trust_env=True))["Authorization"]


def test_a_user_in_the_url_and_a_header_of_ones_own_exclude_each_other() -> None:
    settings = Settings(host="http://me@127.0.0.1:8000", headers={"authorization": "Bearer abcd"})
    with pytest.raises(ValueError, match=r"--header Authorization exclude each other;.* or drop the header"):
        headers_of(settings)


async def test_an_authority_and_a_certificate_of_ones_own(ask: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, cert = tmp_path / "ca.pem", tmp_path / "cert.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("me.example").private_key_and_cert_chain_pem.write_to_path(cert)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    assert "certificate" in ((await ask(body(TWO), server)).problem or "").lower()
    assert (await ask(body(TWO), server, {"ca": str(ca)})).models == ["first", "second"]
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    assert (await ask(body(TWO), server, {"ca": str(ca)})).models == []
    found = await ask(body(TWO), server, {"ca": str(ca), "cert": str(cert)})
    assert found.models == ["first", "second"]


def test_files_of_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for wrong in ({"ca": str(empty)}, {"cert": str(empty)}, {"ca": "/nowhere"}, {"cert": "/dev/zero"}):
        with pytest.raises(ValueError, match="--ca, --cert: "):
            ssl_of(Settings(host="https://127.0.0.1", **wrong))  # type: ignore[arg-type]


MODELS = body({"data": [{"id": "m"}]})
SHARED = {"cache": "shared:0.5"}


async def test_the_tokenizer_is_asked_where_texts_are_made_to_a_length(ask: Any) -> None:
    found = await ask(MODELS, settings=SHARED, tokenize=body({"count": 5000, "tokens": []}))
    assert found.measured == MeasuredTexts(20_000 / 5000, 5000 / 800)
    assert found.server["characters_per_token"] == 4.0


async def test_the_tokenizer_is_not_asked_where_nobody_makes_any(ask: Any) -> None:
    assert (await ask(MODELS, tokenize=body({"count": 5000}))).measured is None


@pytest.mark.parametrize(
    "answer",
    [
        body(b"no", "404 Not Found"),
        body({"count": 0}),
        body({"count": True}),
        body({"count": 10**30}),
        body({"count": "5000"}),
        body([5000]),
        body({"tokens": [1] * 5000}),
        body(b"{"),
        reset,
    ],
)
async def test_a_tokenizer_that_cannot_be_is_not_used(ask: Any, answer: Answer) -> None:
    found = await ask(MODELS, settings=SHARED, tokenize=answer)
    assert found.measured is None
    assert found.models == ["m"]
