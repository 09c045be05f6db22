"""The emulator's command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from turnbench.formats.server import PRECISIONS

_UNIT_NS = {"": 1e9, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def time_ns(text: str) -> int:
    """A TIME such as 100ms, 0.5s or 2 (seconds) in nanoseconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write for example 100ms or 0.5s")
    return round(float(match[1]) * _UNIT_NS[match[2]])


def _count(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _port(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return number


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="python -m serve.emulator",
        description="An OpenAI-compatible server that computes no token: it answers in words of a list, at "
        "the times of a fixed schedule or of a roofline model. Each response says so in a header.",
        allow_abbrev=False,
    )
    _add_address(made.add_argument_group("where it listens").add_argument)
    _add_model(made.add_argument_group("what it emulates").add_argument)
    _add_schedule(made.add_argument_group("when it sends").add_argument)
    add = made.add_argument_group("for tests of clients").add_argument
    add("--truth", metavar="FILE", help="append when each event really went out, one JSON line a request")
    add("--faults", metavar="FILE", help="things that go wrong on purpose, by request number or rate (YAML)")
    add("--seed", type=int, default=0, help="of the texts and answer lengths (%(default)s)")
    return made


def _add_address(add: Callable[..., object]) -> None:
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=8000, help="0 picks a free one (%(default)s)")
    add("--api-key-env", metavar="NAME", help="demand the key held by this environment variable")
    add("--tls-cert", metavar="FILE", help="serve TLS with this certificate chain (PEM)")
    add("--tls-key", metavar="FILE", help="its private key (PEM; default: in the certificate's file)")


def _add_model(add: Callable[..., object]) -> None:
    vllms = "(default: vLLM's for the GPU, {})"
    add("--model", default="yi-6b", metavar="NAME", help="a model of the catalogue (%(default)s)")
    add("--hardware", default="a100-40gb", metavar="NAME", help="a GPU of the catalogue (%(default)s)")
    add("--calibration", metavar="FILE", help="times measured instead (python -m serve calibrate RUN)")
    add("--precision", choices=PRECISIONS, default="fp16", help="of the weights (%(default)s)")
    add("--max-model-len", type=_count, metavar="N", help="context length (default: the model's)")
    most = f"roofline: sequences at once {vllms.format('256 or 1024')}"
    add("--max-num-seqs", type=_count, metavar="N", help=most)
    most = f"roofline: new tokens a step {vllms.format('2048 or 8192')}"
    add("--max-num-batched-tokens", type=_count, metavar="N", help=most)


def _add_schedule(add: Callable[..., object]) -> None:
    add("--schedule", choices=("roofline", "fixed"), default="roofline", help="%(default)s by default")
    add("--ttft", type=time_ns, default="100ms", metavar="TIME", help="fixed: first token (%(default)s)")
    add("--itl", type=time_ns, default="10ms", metavar="TIME", help="fixed: each next one (%(default)s)")
    length = "fixed: content tokens before the stop token (default: the request's max_tokens, else 256)"
    add("--tokens", type=_count, metavar="N", help=length)
