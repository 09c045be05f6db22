"""Where turnbench keeps what it makes, and where it finds what it ships.

In a checkout (pyproject.toml stands beside the packages) all of it but trained weights stays in the checkout.
Installed as a wheel it goes to the user's folders, as the XDG Base Directory Specification has them, and
never into site-packages.
"""

from __future__ import annotations

import os
from pathlib import Path

STATE = "TURNBENCH_STATE"
"""Environment variable that names another state folder; each sweep has one of its own."""

_PACKAGES = Path(__file__).resolve().parents[1]
CHECKOUT: Path | None = _PACKAGES if (_PACKAGES / "pyproject.toml").is_file() else None
"""The checkout that this code runs from; None: it was installed."""


def state_folder() -> Path:
    """Logs, and the descriptions of the servers that run: `.serve`, or ~/.local/state/turnbench.

    `serve status` and `serve stop` are about the servers that are described there.
    """
    if given := os.environ.get(STATE):
        return Path(given)
    return CHECKOUT / ".serve" if CHECKOUT else _user_folder("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """What can be made again, such as models without weights: `build`, or ~/.cache/turnbench."""
    return CHECKOUT / "build" if CHECKOUT else _user_folder("XDG_CACHE_HOME", ".cache")


def weights_folder() -> Path:
    """Models with trained weights, the same ones for every checkout: ~/.cache/turnbench/models."""
    return _user_folder("XDG_CACHE_HOME", ".cache") / "models"


def vllm_environment() -> Path:
    """The virtual environment that holds vLLM: `.venv-vllm`, or ~/.local/share/turnbench/venv-vllm."""
    if CHECKOUT:
        return CHECKOUT / ".venv-vllm"
    return _user_folder("XDG_DATA_HOME", ".local/share") / "venv-vllm"


def data_file(name: str) -> Path:
    """A file or folder that is shipped: at the top of the checkout, or inside the wheel in turnbench/data."""
    return (CHECKOUT or Path(__file__).resolve().parent / "data") / name


def _user_folder(variable: str, default: str) -> Path:
    given = Path(os.environ.get(variable, ""))
    # The specification: a path that is not absolute is ignored.
    return (given if given.is_absolute() else Path.home() / default) / "turnbench"
