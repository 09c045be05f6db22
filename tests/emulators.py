"""An emulator for tests that only ask it: started on a free port, ended with the block."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def emulator(*options: str, **environment: str) -> Iterator[str]:
    """Its URL."""
    env = os.environ | environment
    command = [sys.executable, "-m", "serve.emulator", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("ready: ").strip()
        finally:
            process.terminate()
