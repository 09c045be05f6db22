"""A command of ours in this process, with an environment of its own: quicker than a child by 0.2 s."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch


def called(main: Callable[[list[str]], int], *arguments: str, **environment: str) -> CompletedProcess[str]:
    """What it printed and its exit code; it sees no variable of the environment but these."""
    out, err = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, environment, clear=True), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
