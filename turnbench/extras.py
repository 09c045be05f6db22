"""Libraries that few need, and the extra of the distribution that installs each."""

from __future__ import annotations

from importlib.util import find_spec

LIBRARIES = {"otlp": "opentelemetry.exporter.otlp.proto.http", "mlflow": "mlflow", "wandb": "wandb"}
"""The module that an extra is for."""


def missing(extra: str) -> str | None:
    """What to install where the library of an extra is not there, for the end of a message; else None."""
    try:
        there = find_spec(LIBRARIES[extra]) is not None
    except ModuleNotFoundError:  # not even the package above it
        there = False
    return None if there else f"needs a library that is not installed: pip install 'turnbench[{extra}]'"
