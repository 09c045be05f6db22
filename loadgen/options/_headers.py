"""What every request carries besides its body, and what of it must never be written down."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from loadgen.dialects import DIALECTS
from loadgen.options._endpoint import address_of, secrets_in, without_secrets
from loadgen.options._settings import Settings
from loadgen.options._shape import Shape
from loadgen.options._shapes import shape_of
from turnbench.credentials import Secrets

_DEFAULT_DIALECT = "chat"
_KEY_HEADERS = ("authorization", "x-api-key")
_PLAIN_HEADERS = (
    *("accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-type"),
    *("user-agent", "anthropic-version", "anthropic-beta", "openai-beta"),
)
"""Headers whose values are words of everyday use: to hide `gzip` would garble what a server says."""


def dialect_of(settings: Settings) -> str:
    """The dialect in which the server is asked: that of --dialect, of the endpoint in -H, or chat."""
    if settings.dialect != "auto":
        return settings.dialect
    with suppress(ValueError):  # a host that is none is refused elsewhere
        return address_of(settings.host).dialect or _DEFAULT_DIALECT
    return _DEFAULT_DIALECT


def headers_of(settings: Settings, dialect: str | None = None) -> dict[str, str]:
    """Headers of every request of this worker; the key and `$VAR` values come from its own environment.

    `dialect`: the run's, where it is known already.

    Raises ValueError naming a variable that is not set, or two credentials of which one alone can be sent.
    """
    _refuse_two_credentials(settings)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    headers["Accept-Encoding"] = "identity"
    headers |= DIALECTS[dialect or dialect_of(settings)].headers(_variable(settings.api_key_env) or "")
    for name, value in settings.headers.items():
        ours = next((known for known in headers if known.lower() == name.lower()), name)
        headers[ours] = _from_environment(name, value)
    return headers


def key_advice(settings: Settings) -> str:
    """What to do where a server wants a key: which variable to set, or that the one there was refused."""
    name = settings.api_key_env
    if any(each.lower() == "authorization" for each in settings.headers):
        return "the server refused what --header Authorization says"
    if _variable(name):
        return f"the server refused the key of ${name}: see that it is this server's"
    return f"set the key in the environment variable {name} (--api-key-env names another)"


def secrets_of(settings: Settings, headers: dict[str, str]) -> Secrets:
    """What must never be written down: keys, header values, the user's name and password in the URL.

    A server may repeat a key with or without `Bearer` before it.
    """
    plain = {name.lower() for name, value in settings.headers.items() if not value.startswith("$")}
    secret = ({name.lower() for name in settings.headers} | set(_KEY_HEADERS)) - plain.intersection(
        _PLAIN_HEADERS
    )
    values = [value for name, value in headers.items() if name.lower() in secret]
    values += secrets_in(settings.host)
    with suppress(ValueError):  # a host that is none is refused elsewhere
        parts = urlsplit(settings.host)
        if parts.password is not None:
            password = unquote(parts.password)
            pair = f"{unquote(parts.username or '')}:{password}"
            values += [password, parts.password, b64encode(pair.encode()).decode()]
        elif parts.username:  # a token alone, as in https://TOKEN@host
            values += [parts.username, unquote(parts.username)]
    if settings.trust_env:
        values += _environment_passwords(settings)
    return Secrets(values)


def secrets_here(settings: Settings) -> Secrets:
    """The secrets that are known on this machine, which may lack a variable that a worker has."""
    known = {}
    for name, value in ({"Authorization": f"${settings.api_key_env}"} | settings.headers).items():
        with suppress(ValueError):
            known[name] = _from_environment(name, value)
    return secrets_of(settings, known)


def recorded(settings: Settings, shape: Shape | None = None) -> dict[str, Any]:
    """Settings for run.json: no header's value is written down, nor a secret that stands anywhere else.

    `shape`: that of the run, where it says more than the options do (a trace gives a replay its rate).
    """
    found: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(settings).items():
        if name == "arrival_rate":  # what run.json has always called it
            rate = settings.arrival_rate
            found["arrival_rate_per_s"] = None if rate is None else rate.first_per_s
            found["arrival_steps_per_s"] = None if rate is None else rate.steps_per_s
            found["arrival_ramp_to_per_s"] = None if rate is None else rate.ramp_to_per_s
        else:
            found[name] = value
    found["dialect"] = dialect_of(settings)
    found |= (shape or shape_of(settings)).recorded()
    found["headers"] = dict.fromkeys(settings.headers, "***")
    found["host"] = without_secrets(settings.host)
    cleaned: dict[str, Any] = secrets_here(settings).scrubbed_json(found)
    return cleaned


def _refuse_two_credentials(settings: Settings) -> None:
    """ValueError where a request would carry the one or the other, and nobody could tell which."""
    try:
        in_url = urlsplit(settings.host).username is not None
    except ValueError:  # a host that is none is refused elsewhere
        return
    if any(name.lower() == "authorization" for name in settings.headers):
        named, instead = "--header Authorization", "drop the header"
    elif _variable(settings.api_key_env):
        named = f"a key in {settings.api_key_env}"
        instead = f"unset {settings.api_key_env} (or name another variable with --api-key-env)"
    else:
        return
    if in_url:
        raise ValueError(
            f"a user or password in the URL and {named} exclude each other; take the one out of the URL, or "
            f"{instead}"
        )
    if _netrc_entry(settings) is not None:
        raise ValueError(
            f".netrc has a password for {urlsplit(settings.host).hostname} (--trust-env): it and {named} "
            f"exclude each other; set NETRC=/dev/null, or {instead}"
        )


def _netrc_entry(settings: Settings) -> tuple[str, str, str] | None:
    """What .netrc has for the server, where --trust-env lets it be asked."""
    if not settings.trust_env:
        return None
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc(path).authenticators(urlsplit(settings.host).hostname or "")
    except (OSError, NetrcParseError, UnicodeDecodeError):  # nobody else can read it either
        return None


def _environment_passwords(settings: Settings) -> list[str]:
    """Passwords of .netrc and of proxies, which --trust-env lets requests carry."""
    entry = _netrc_entry(settings)
    found = [] if entry is None else [entry[2], b64encode(f"{entry[0]}:{entry[2]}".encode()).decode()]
    for name, value in os.environ.items():
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            with suppress(ValueError):
                parts = urlsplit(value)
                if parts.password:
                    found += [parts.password, unquote(parts.password)]
                    pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
                    found.append(b64encode(pair.encode()).decode())
    return found


def _from_environment(name: str, value: str) -> str:
    if not value.startswith("$"):
        return value
    found = _variable(value[1:])
    if found is None:
        raise ValueError(f"--header {name}: the environment variable {value[1:]} is not set on this machine")
    return found


def _variable(name: str) -> str | None:
    """A variable without the line end of the file it may come from; ValueError if no header can carry it."""
    value = os.environ.get(name)
    if value is not None and not value.strip().isprintable():
        raise ValueError(f"the environment variable {name} has a control character; take it out")
    return value if value is None else value.strip()
