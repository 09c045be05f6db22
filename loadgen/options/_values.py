"""What the text of one option may be: each function here gives its value or raises a ValueError that says
what to write instead."""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadgen.dialects import DIALECTS
from loadgen.options._endpoint import address_of
from turnbench.command_line import collector_url
from turnbench.extras import missing
from turnbench.files import regular_file
from turnbench.problems import quoted
from turnbench.units import seconds
from turnbench.units import share as share_of

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_PEOPLE = 1_000_000
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = ("content-length", "transfer-encoding", "trailer", "expect", "upgrade")
_NAME_CHARACTERS_MAX = 500
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def model(text: str) -> str:
    """--model: a name, or several with their shares."""
    for name in model_shares(text):
        if len(name) > _NAME_CHARACTERS_MAX:
            raise ValueError(quoted(name), f"no model has a name of {len(name):,} characters")
    return text


def model_shares(text: str) -> dict[str, float]:
    """The models of A=0.7,B=0.3 with their shares, which add up to 1; of a plain name that one alone."""
    parts = [part.strip() for part in text.split(",")]
    if not any(re.search(r"=[0-9.]+$", part) for part in parts) or len(parts) == 1:
        return {text: 1.0}  # a name may hold commas and equals signs of its own
    found: dict[str, float] = {}
    for part in parts:
        name, separator, share = part.rpartition("=")
        if not (
            separator and name and re.fullmatch(r"[0-9]{0,9}(\.[0-9]{0,9})?", share) and share.strip(".")
        ):
            raise ValueError(f"{part!r}: give every model its share, as in A=0.7,B=0.3")
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        if not float(share) > 0:
            raise ValueError(f"{part!r}: a share is more than 0")
        found[name] = float(share)
    return {name: share / sum(found.values()) for name, share in found.items()}


def levels(text: str) -> list[int]:
    """--levels: numbers of people, with commas between."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 1,4,16") from None
    if max(found) > _MOST_PEOPLE:
        raise ValueError(f"{max(found)} people are more than {_MOST_PEOPLE}, the most of a level")
    if min(found) < 1:
        raise ValueError(f"{min(found)} people make no load; every level is at least 1")
    return found


class ArrivalRates(msgspec.Struct, frozen=True):
    """What --arrival-rate says, in conversations per second: one rate, a ramp, or several levels."""

    first_per_s: float
    ramp_to_per_s: float | None = None
    steps_per_s: list[float] | None = None
    """Of several levels, the first one too."""


def arrival_rates(text: str) -> ArrivalRates:
    """R, a ramp A..B, or steps A,B,C."""
    rate = number(1e-6, 1e5)
    if ".." in text:
        start, _, end = text.partition("..")
        return ArrivalRates(rate(start), ramp_to_per_s=rate(end))
    steps = [rate(part) for part in text.split(",")]
    return ArrivalRates(steps[0], steps_per_s=steps if len(steps) > 1 else None)


def people(text: str) -> int:
    """-u: how many people. Locust's own parser makes it a number, a sweep's plan does not."""
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    if int(text) < 1:
        raise ValueError(text, "there must be one person at least")
    return int(text)


def spawn_rate(text: str) -> float:
    """-r: people per second."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    if not value > 0:
        raise ValueError(f"{value:g}", "people per second, more than 0")
    return value


def endpoint_url(text: str) -> str:
    """-H: where requests go."""
    address_of(text)
    return text


class ListenAt(msgspec.Struct, frozen=True):
    """Where a page of our own is served."""

    port: int
    address: str = "127.0.0.1"

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def listen_at(text: str) -> ListenAt:
    """--metrics-port: a port of this machine alone, or ADDRESS:PORT."""
    address, colon, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535 or (colon and not address):
        raise ValueError(f"{text[:60]!r}: write a port such as 9650, or ADDRESS:PORT such as 0.0.0.0:9650")
    return ListenAt(int(port), address.strip("[]") if colon else "127.0.0.1")


def page_url(text: str) -> str:
    """The address of a page of metrics; one without a path means /metrics."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not an address such as http://gpu-host:9400/metrics")
    return text if parts.path not in ("", "/") else f"{parts.scheme}://{parts.netloc}/metrics"


def otlp_collector(text: str) -> str:
    """--otlp: the address of an OpenTelemetry collector; the library that sends must be there."""
    url = collector_url(text)
    if (why := missing("otlp")) is not None:
        raise ValueError(why)
    return url


def dialect(text: str) -> str:
    """--dialect: one of DIALECTS, or auto."""
    if text not in ("auto", *DIALECTS):
        raise ValueError(f"{text!r} is not a dialect; auto, {', '.join(DIALECTS)}")
    return text


def authorities(text: str) -> str:
    """--ca: a file of certificates that is there and holds some."""
    try:
        if not ssl.create_default_context(cafile=regular_file(text)).cert_store_stats()["x509"]:
            raise ValueError(repr(text), "it holds no certificate")
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(repr(text), f"no certificates in PEM form can be read from it ({why})") from None
    return text


def own_certificate(text: str) -> str:
    """--cert: a file with a certificate and its key."""
    try:
        ssl.create_default_context().load_cert_chain(regular_file(text), password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        what = f"no certificate with its unencrypted key in PEM form can be read from it ({why})"
        raise ValueError(repr(text), what) from None
    return text


def new_folder(text: str) -> str:
    """--run-dir: a name that a folder can have, in a folder that is there or can be made."""
    if not text.isprintable():
        raise ValueError(quoted(text), "it has characters that no screen shows; use others")
    above = Path(text).absolute()
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir() and above != Path(text).absolute():  # what is there already is said elsewhere
        raise ValueError(quoted(text), f"{above} is no folder, so nothing can be made in it")
    longest = os.pathconf(above if above.is_dir() else above.parent, "PC_NAME_MAX")
    if too_long := [part for part in Path(text).parts if len(os.fsencode(part)) > longest]:
        size = len(os.fsencode(too_long[0]))
        raise ValueError(quoted(text), f"a name of {size} bytes; {longest} is the most that this disk takes")
    return text


def positive_time(text: str) -> float:
    """A TIME longer than zero, in seconds."""
    value = seconds(text)
    if value <= 0:
        raise ValueError(f"{text!r} must be longer than zero")
    return value


def think_time(text: str) -> str:
    """--think-time, as Settings keep it: none, scenario, scenario*X, or seconds as a number."""
    if text in ("none", "scenario"):
        return text
    if text.startswith("scenario*"):
        factor = number(0, 1e6)(text.partition("*")[2])
        return f"scenario*{factor:g}"
    return f"{seconds(text):g}"


def whole(text: str) -> int:
    """A whole number from 0 up."""
    if not re.fullmatch(r"\+?[0-9]{1,18}", text):
        raise ValueError(f"{text[:40]!r} is not a whole number from 0 up, of at most 18 digits")
    return int(text)


def positive_int(text: str) -> int:
    """A whole number from 1 up."""
    if whole(text) == 0:
        raise ValueError(f"{text}: must be at least 1")
    return int(text)


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a number from `low` to `high`, both included."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return convert


def json_object(text: str) -> dict[str, Any]:
    """--body: a JSON object that can be sent."""
    try:
        value = msgspec.json.decode(text)
        msgspec.msgpack.encode(value)  # as it goes to the engine: no number may be too big for that
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not JSON that can be sent ({error})") from None
    if not isinstance(value, dict):
        raise ValueError('not a JSON object such as {"top_k": 20}')
    return value


def limits(text: str) -> dict[str, float]:
    """--slo: KEY=LIMIT,... of the metrics that may be limited, and share=S."""
    from turnbench.limits import SHARE, limit_keys  # numpy, which the engine can do without

    keys = (*limit_keys(), SHARE)
    found = {}
    for part in text.split(","):
        key, separator, value = part.strip().partition("=")
        if not separator or key not in keys:
            raise ValueError(f"{part.strip()!r}: write KEY=LIMIT with KEY one of {', '.join(keys)}")
        found[key] = number(0, 1 if key == SHARE else 1e9)(value)
    return found


class Until(msgspec.Struct, frozen=True):
    """What --until says: a number of a level, and how near its interval must come."""

    key: str
    share: float


def until(text: str) -> Until:
    """--until: KEY=SHARE, the share in percent or as a number."""
    from turnbench.stats.known import KEYS  # numpy and scipy, which the engine can do without

    key, separator, share = (part.strip() for part in text.partition("="))
    if not separator or key not in KEYS:
        keys = ", ".join(KEYS)
        raise ValueError(f"{text[:40]!r}: write KEY=SHARE such as ttg_p50=5%, with KEY one of {keys}")
    return Until(key, share_of(share))


def clock(text: str) -> str:
    """--clock: kernel or user."""
    if text not in ("auto", "wire", "kernel", "user"):
        raise ValueError(f"{text!r} is not a clock; auto, wire, kernel or user")
    return text


def salt(text: str) -> str:
    """--salt: hexadecimal, in small letters, or none."""
    if text.lower() != "none" and (not text or set(text.lower()) - set("0123456789abcdef")):
        raise ValueError(f"{text[:40]!r} is not hexadecimal, nor none")
    return text.lower()


def cache(text: str) -> str:
    """--cache: cold, warm, or shared:SHARE."""
    kind, colon, share = text.partition(":")
    if kind == "shared":
        return f"shared:{number(0, 0.99)(share):g}"
    if colon or kind not in ("cold", "warm"):
        raise ValueError(f"{text[:40]!r} is none of cold, warm and shared:SHARE such as shared:0.5")
    return kind


def variable(text: str) -> str:
    """--api-key-env: the name of an environment variable."""
    if not _VARIABLE.fullmatch(text):  # perhaps the key itself: not shown
        raise ValueError("not the name of an environment variable; the key itself goes into that variable")
    return text


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    """NAME and VALUE of one text; what is wrong is not shown, since it may be a key."""

    def convert(text: str) -> tuple[str, str]:
        name, found, value = text.partition(separator)
        if not found or not name.strip():
            raise ValueError(f"write NAME{separator}VALUE")
        return name.strip(), value.strip()

    return convert


def header(text: str) -> tuple[str, str]:
    """--header: a name and a value that a request can carry; a value is never shown, it may be a key."""
    name, value = pair(":")(text)
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(repr(name), "not a header's name")
    if _CONTROL.search(value):
        raise ValueError(name, "its value has a control character; take it out")
    if name.lower() in _FRAMING:
        raise ValueError(name, "it says where a request ends, and is made of each request; leave it out")
    return name, value
