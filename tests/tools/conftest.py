"""What tests of tools share: programs of .venv-tools, and MLflow's server."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".venv-tools" / "bin"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def page_of(url: str) -> str:
    """What a page says; nothing while it is not there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as page:
            return str(page.read().decode())
    except OSError:
        return ""


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real MLflow server with a database."""
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        PROGRAMS / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", f"{home}/artifacts",
    ]  # fmt: skip
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 90
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=log, cwd=home, start_new_session=True
        ) as server,
    ):
        while not page_of(f"{url}/health"):
            assert server.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.3)
        yield url
        server.terminate()
