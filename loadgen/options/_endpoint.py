"""The endpoint: what -H means, and what the probe found out about it.

An address is typed in many ways: the server alone, its API's root under any version, one whole endpoint as a
provider's page shows it, with a query that every request must carry, or a socket of this machine. All of them
are read here, once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from loadgen.dialects import DIALECTS
from scenarios import MeasuredTexts
from turnbench.problems import quoted

_EXAMPLE = "http://127.0.0.1:8000"
_VERSION = re.compile(r"v\d+(alpha\d*|beta\d*)?", re.I)
_DEPLOYMENT = re.compile(r"(.*)/deployments/[^/]+", re.S)
_OTHER_ENDPOINT = re.compile(
    r"/(models|embeddings|rerank|score|tokenize|health|ping|metrics|version|docs|openapi\.json"
    r"|api/(chat|generate|tags)|generate(_stream)?|audio/.*|images/.*)$"
)
_SECRET_NAME = re.compile(r"key|token|secret|sig|passw|code|auth", re.I)
_SOCKET_ROOT = "http://localhost"
_URL_CHARACTERS_MAX = 4096


class Endpoint(msgspec.Struct, kw_only=True):
    """What the probe found. `problem` is a sentence where the endpoint could not be asked."""

    url: str
    models: list[str] = []
    max_model_len: int | None = None
    """Tokens of the model's context, where the server says."""
    version: str | None = None
    emulated: bool = False
    usage_in_events: bool = False
    """Whether it is known to understand stream_options.continuous_usage_stats (vLLM and its like)."""
    refused_model: str | None = None
    """The server's words where it knows no model of a name that was asked for."""
    refused_name: str = ""
    """That name."""
    measured: MeasuredTexts | None = None
    """How the model's tokenizer counts texts made to a length, where such are asked for and it can say."""
    server: dict[str, Any] = {}
    notes: list[str] = []
    """What the server says of itself that can't be so, a sentence each."""
    problem: str | None = None


@dataclass(frozen=True)
class Address:
    """Where requests go, from what was typed for -H."""

    server: str
    """The server's root, with whatever stands before the API's version: http://host:8000/prefix."""
    api: str
    """The path of the API's root below that, such as /v1, or nothing."""
    query: str = ""
    """What stands behind `?` in every request to the API, without the mark."""
    dialect: str | None = None
    """The dialect of the whole endpoint that was typed."""
    socket: str | None = None
    """The file of a Unix socket that stands in for host and port."""

    @property
    def root(self) -> str:
        """The API's root, as the report shows it; of a socket its file."""
        return self.server + self.api if self.socket is None else f"unix:{self.socket}"

    def of(self, path: str) -> str:
        """The URL of a path below the API's root, such as /models."""
        return f"{self.server}{self.api}{path}" + (f"?{self.query}" if self.query else "")

    def of_server(self, path: str) -> str:
        """The URL of a path that servers have beside their API, such as /metrics."""
        return self.server + path


def address_of(typed: str) -> Address:
    """What -H means; raises ValueError(shown, why) with what to write where that can't be told."""
    text = typed.strip()
    if len(text) > _URL_CHARACTERS_MAX:
        what = f"{len(text):,} characters; no server takes an address of more than {_URL_CHARACTERS_MAX:,}"
        raise ValueError(quoted(without_secrets(text[:_URL_CHARACTERS_MAX])), what)
    if text.startswith("unix:"):
        return _socket(text)
    if re.match(r"[a-z]+\+unix:|file:|/", text, re.I):
        raise ValueError(repr(without_secrets(text)), "a Unix socket is written unix:/path/of/the.sock")
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        parts, named = urlsplit(""), False
    if not (named and text.isprintable() and parts.scheme in ("http", "https") and " " not in text):
        raise ValueError(repr(without_secrets(text)), _why_no_url(text))
    if parts.fragment:
        raise ValueError(repr(without_secrets(text)), "what follows # is never sent; take it out")
    return _address(f"{parts.scheme}://{parts.netloc}", parts.path, parts.query, without_secrets(text))


def _address(origin: str, path: str, query: str, shown: str) -> Address:
    path, dialect = re.sub(r"/{2,}", "/", path).rstrip("/"), None
    # The longest first: /chat/completions ends in another dialect's path.
    for name, known in sorted(DIALECTS.items(), key=lambda each: -len(each[1].path)):
        if path.endswith(known.path):
            path, dialect = path.removesuffix(known.path), name
            break
    if dialect is None and (other := _OTHER_ENDPOINT.search(path)):
        root = origin + path.removesuffix(other.group())
        raise ValueError(
            repr(shown), f"{other.group()} is not where answers are asked for; write {without_secrets(root)}"
        )
    if path.endswith("/deployments"):
        raise ValueError(repr(shown), "a deployment's name is missing: .../deployments/NAME?api-version=...")
    if deployment := _DEPLOYMENT.fullmatch(path):
        prefix = deployment[1].removesuffix("/openai")
        return Address(origin + prefix, path.removeprefix(prefix), query, dialect)
    segments = path.split("/")
    place = next((at for at, each in enumerate(segments) if _VERSION.fullmatch(each)), None)
    if place is None:
        return Address(origin + path, "" if dialect else "/v1", query, dialect)
    return Address(origin + "/".join(segments[:place]), "/" + "/".join(segments[place:]), query, dialect)


def _socket(text: str) -> Address:
    path = text.removeprefix("unix:")
    path = "/" + path.lstrip("/") if path.startswith("//") else path
    if not (path.startswith("/") and len(path) > 1 and path.isprintable()):
        raise ValueError(repr(text), "a Unix socket is written unix:/path/of/the.sock")
    return Address(_SOCKET_ROOT, "/v1", socket=path)


def _why_no_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if not rest and text and " " not in text and scheme.isprintable():
        plain = text.rpartition("@")[2]
        if re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?|\[[\da-fA-F:]+\](:\d+)?(/.*)?", plain):
            return f"no scheme; write http://{without_secrets(plain)} or https://..., as in {_EXAMPLE}"
    host = rest.partition("/")[0].rpartition("@")[2]
    if scheme in ("http", "https") and host.count(":") > 1 and "[" not in host:
        return f"an IPv6 address stands in brackets, as in http://[::1]:8000 (IPv4: {_EXAMPLE})"
    return f"not an http:// or https:// URL; write e.g. {_EXAMPLE}"


def without_secrets(url: str) -> str:
    """The URL as it may be shown: no user and password, and no value of its query that may be a key."""
    plain, mark, query = without_userinfo(url).partition("?")
    if not mark or not _SECRET_NAME.search(query):
        return plain + mark + query
    pairs = parse_qsl(query, keep_blank_values=True)
    shown = [(name, "***" if _SECRET_NAME.search(name) else value) for name, value in pairs]
    return plain + mark + urlencode(shown, safe="*:/")


def secrets_in(url: str) -> list[str]:
    """The values of its query that may be keys."""
    query = urlsplit(url).query
    return [value for name, value in parse_qsl(query) if _SECRET_NAME.search(name)]


def without_userinfo(url: str) -> str:
    """The URL with `user:password@` replaced by `***@`."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    authority, slash, path = rest.partition("/")
    if "@" not in authority:
        return url
    return f"{scheme}{separator}***@{authority.rpartition('@')[2]}{slash}{path}"
