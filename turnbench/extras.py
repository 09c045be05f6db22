"""Libraries that not every install has: those of extras, and those of the analysis, which no worker needs."""

from __future__ import annotations

from importlib.util import find_spec

LIBRARIES = {
    "mlflow": "mlflow",
    "otlp": "opentelemetry.exporter.otlp.proto.http",
    "plots": "matplotlib",
    "wandb": "wandb",
    "xlsx": "xlsxwriter",
}
"""The module that an extra is for."""
OF_THE_ANALYSIS = ("pandas", "plotly", "pyarrow", "scipy", "statsmodels")
"""Left out of deploy/worker.txt."""


def missing(extra: str) -> str | None:
    """What to install where the library of an extra is not there, for the end of a message; else None."""
    if _is_there(LIBRARIES[extra]):
        return None
    return f"needs a library that is not installed: pip install 'turnbench[{extra}]'"


def missing_for_analysis() -> str | None:
    """What an install that is for workers alone lacks, and what to do; else None."""
    absent = [name for name in OF_THE_ANALYSIS if not _is_there(name)]
    return (
        f"no {', '.join(absent)} here, as in an install for workers: pip install turnbench"
        if absent
        else None
    )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False
