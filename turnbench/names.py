"""Names of files and directories made from any text."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]+")


def slug(name: str) -> str:
    """A file name from any text, by allow-list: never a path, never empty, at most 60 characters."""
    last = PurePosixPath(name).name if "/" in name else name
    plain = last.removesuffix(".yaml").removesuffix(".yml")
    return _NOT_IN_A_NAME.sub("-", plain).strip("-.")[:60] or "run"
