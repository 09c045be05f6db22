"""Asks an endpoint who it is: `python -m loadgen.options._probe`, Settings in, Endpoint out, as JSON.

A process of its own, because aiohttp can't run under gevent and Locust's process can't do without it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from loadgen.dialects import DIALECTS, TurnRequest, failure_of_data
from loadgen.options._endpoint import Address, Endpoint, address_of
from loadgen.options._headers import dialect_of, headers_of, key_advice, secrets_of
from loadgen.options._settings import Settings
from loadgen.options._tls import ssl_of
from loadgen.options._values import model_shares
from scenarios import MeasuredTexts, parse, plan, texts_to_measure
from scenarios import names as built_in_names
from turnbench.cleaning import clean
from turnbench.server_facts import described_server

_BODY_BYTES = 16 << 20
"""A list of models may be long; what is longer is none."""
_MODELS_LIMIT_S = 30.0
_VERSION_LIMIT_S = 5.0
_WORDS_BYTES = 4096
_NO_SUCH_MODEL = re.compile(
    r"(model|deployment)\b.*(not found|not exist|n't exist|unknown|not available|not support|not served)"
    r"|(unknown|invalid|unsupported|no such) (model|deployment)|model_not_found",
    re.I | re.S,
)
_ONE_WORD = """
format: turnbench-scenario/1
name: probe
tasks: [{name: ask, texts: t, prompt: "{q}", max_tokens: 1}]
sets: {t: [{q: Hello}]}
"""
_TEXT_CHARS = 200
_CONTEXT_NAMES = ("max_model_len", "context_length", "context_window", "max_context_length")
"""What servers call the tokens of a model's context; the first is vLLM's and SGLang's."""
_LONGEST_CONTEXT = 1 << 31
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@dataclass(frozen=True)
class _Answer:
    """The answer to a GET."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON; None where it is none, or no success."""
        try:
            return json.loads(self.body) if self.status == 200 else None
        except (ValueError, RecursionError):
            return None

    @property
    def words(self) -> str:
        """The server's own words, for a person."""
        return failure_of_data(self.body) or clean(self.body[:300])


async def _get(session: aiohttp.ClientSession, url: str, limit_s: float) -> _Answer:
    """The whole answer, in however many pieces it comes; raises what aiohttp raises where there is none."""
    timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=session.timeout.sock_connect)
    async with session.get(url, allow_redirects=False, timeout=timeout) as response:
        return _Answer(response.status, response.headers, await _whole(response))


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body, in however many pieces it comes, up to a limit."""
    body = bytearray()
    while len(body) < _BODY_BYTES and (part := await response.content.read(_BODY_BYTES - len(body))):
        body += part
    return bytes(body)


async def probe(settings: Settings) -> Endpoint:
    """Models, version and kind of the endpoint; one or two small requests. Only the models are needed."""
    address = address_of(settings.host)
    endpoint = Endpoint(url=address.root)
    headers = {k: v for k, v in headers_of(settings).items() if k not in ("Content-Type", "Accept")}
    connect_s = max(settings.connect_timeout_s, 1.0)
    trusted = ssl_of(settings)
    connector = (
        aiohttp.TCPConnector(ssl=trusted) if address.socket is None else aiohttp.UnixConnector(address.socket)
    )
    async with aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(sock_connect=connect_s),
        trust_env=settings.trust_env,
        connector=connector,
    ) as session:
        version = asyncio.create_task(_get(session, address.of_server("/version"), _VERSION_LIMIT_S))
        try:
            models = await _get(session, address.of("/models"), _MODELS_LIMIT_S)
        except _NO_ANSWER as error:
            version.cancel()
            await asyncio.wait({version})
            endpoint.problem = clean((str(error) or type(error).__name__).encode("utf-8", "replace"))
            return endpoint
        entries = _entries(models.value)
        names = [] if settings.model is None else list(model_shares(settings.model))
        listed = [entry["id"] for entry in entries or ()]
        for name in names if entries else ():
            if name not in listed and endpoint.refused_model is None:
                endpoint.refused_model = await _try_model(session, address, settings, name)
                endpoint.refused_name = name
        if listed and (settings.cache.startswith("shared") or settings.scenario not in built_in_names()):
            endpoint.measured = await _measured(session, address, (names or listed)[0])
        await asyncio.wait({version})
        about = None if version.exception() is not None else version.result().value
    endpoint.emulated = "X-Turnbench-Emulated" in models.headers
    if entries is None:
        endpoint.problem = _refusal(models, settings)
        return endpoint
    endpoint.models = [entry["id"] for entry in entries]
    asked = [entry for entry in entries if entry["id"] in names] or entries[:1]
    contexts = [_context(entry, endpoint.notes) for entry in asked]
    endpoint.max_model_len = min((each for each in contexts if each is not None), default=None)
    if isinstance(about, dict) and isinstance(about.get("version"), str):
        endpoint.version = clean(about["version"].encode("utf-8", "replace"))[:_TEXT_CHARS]
        endpoint.usage_in_events = True
    owner = entries[0].get("owned_by") if entries else None
    owner = clean(owner.encode("utf-8", "replace"))[:_TEXT_CHARS] if isinstance(owner, str) else None
    endpoint.server = {"owned_by": owner, "version": endpoint.version}
    endpoint.server["max_model_len"] = endpoint.max_model_len
    if endpoint.measured is not None:
        endpoint.server["characters_per_token"] = round(endpoint.measured.characters_per_token, 3)
    known = described_server(address.root, endpoint.models)
    if not endpoint.models and known.get("served_name"):
        endpoint.models = [str(known["served_name"])]
    endpoint.server |= known
    endpoint.emulated |= bool(known.get("emulated"))
    return endpoint


async def _try_model(
    session: aiohttp.ClientSession, address: Address, settings: Settings, model: str
) -> str | None:
    """Ask an unlisted model for one token: the server's words if it has none of that name, else None."""
    dialect = DIALECTS[dialect_of(settings)]
    conversation = plan(parse(_ONE_WORD), 0, 0)
    prompt = dialect.prompt(conversation, [], salt="", level=0, turns_dropped=0, system_role=True)
    request = TurnRequest(model, prompt, 1, False, (), {}, (), False)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    try:
        async with session.post(
            address.of(dialect.path),
            json=dialect.body(request) | settings.body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=_MODELS_LIMIT_S),
        ) as response:
            body = await response.content.read(_WORDS_BYTES) if response.status >= 400 else b""
    except _NO_ANSWER:
        return None
    words = _Answer(response.status, response.headers, body).words
    return words if response.status in (400, 404, 422) and _NO_SUCH_MODEL.search(words) else None


async def _measured(session: aiohttp.ClientSession, address: Address, model: str) -> MeasuredTexts | None:
    """What the model's tokenizer makes of the texts that are made to a length; None where it can't be asked.

    `/tokenize` beside the API, as vLLM and SGLang have it.
    """
    counts = []
    for text in texts_to_measure():
        asked = {"model": model, "prompt": text, "add_special_tokens": False}
        timeout = aiohttp.ClientTimeout(total=_VERSION_LIMIT_S)
        try:
            async with session.post(
                address.of_server("/tokenize"), json=asked, allow_redirects=False, timeout=timeout
            ) as response:
                answer = _Answer(response.status, response.headers, await _whole(response))
        except _NO_ANSWER:
            return None
        count = answer.value.get("count") if isinstance(answer.value, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= 4 * len(text):
            return None
        counts.append(count)
    return MeasuredTexts.of_counts(*counts)


def _entries(value: Any) -> list[dict[str, Any]] | None:
    """The models of a list, each with its id; None where this is no list of models."""
    listed = value
    if isinstance(value, dict):
        listed = next((value[name] for name in ("data", "models") if isinstance(value.get(name), list)), None)
    if not isinstance(listed, list):
        return None
    entries = [{"id": entry} if isinstance(entry, str) else entry for entry in listed]
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            name = next((entry[n] for n in ("id", "name", "model") if isinstance(entry.get(n), str)), "")
            if name:
                found.append(entry | {"id": name.encode("utf-8", "replace").decode()})
    return found


def _context(entry: dict[str, Any], notes: list[str]) -> int | None:
    """Tokens of the model's context; None, and a note, where what is said can be none."""
    for name in _CONTEXT_NAMES:
        length = entry.get(name)
        if length is None:
            continue
        if isinstance(length, str) and length.isascii() and length.isdigit() and len(length) < 12:
            length = int(length)
        if isinstance(length, float) and length.is_integer():
            length = int(length)
        if isinstance(length, int) and not isinstance(length, bool) and 0 < length < _LONGEST_CONTEXT:
            return length
        shown = clean(str(type(length).__name__ if isinstance(length, dict | list) else length)[:40].encode())
        notes.append(f"the server gives its model's {name} as {shown}, which can be none: it is not used")
    return None


def _refusal(models: _Answer, settings: Settings) -> str:
    """Why there is no list of models, in the server's words, and what to set where a key is missing."""
    said = f"{models.status}: {models.words}" if models.words else str(models.status)
    if location := models.headers.get("Location"):
        said += f" (redirected to {clean(location.encode('utf-8', 'replace'))}, not followed)"
    if models.status in (401, 403):
        said += f"; {key_advice(settings)}"
    return f"the list of models answered {said}"


def main() -> int:
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    try:
        found = asyncio.run(probe(settings))
        said = secrets_of(settings, headers_of(settings))
    except ValueError as error:  # a header's variable that is not set here
        print(error, file=sys.stderr)
        return 2
    # Models keep their names: requests carry them. Whoever shows one takes the secrets out.
    found.problem = found.problem and said.scrubbed(found.problem)
    found.refused_model = found.refused_model and said.scrubbed(found.refused_model)
    found.version = found.version and said.scrubbed(found.version)
    found.notes = [said.scrubbed(note) for note in found.notes]
    found.server = said.scrubbed_json(found.server)
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
