import json
from functools import cache

import pyarrow
import pyarrow.parquet
import pytest

import scenarios

loaded = cache(scenarios.load)
"""A built-in scenario; it cannot be changed, so one does for all tests."""


@pytest.fixture(params=scenarios.names())
def scenario(request):
    """Every built-in scenario in turn."""
    return loaded(request.param)


@pytest.fixture
def file(tmp_path):
    """Writes a file: bytes, a text, or rows in the form that its name asks for; its path."""

    def write(name, content):
        path = tmp_path / name
        if name.endswith(".parquet"):
            names = dict.fromkeys(name for row in content for name in row)
            content = [dict.fromkeys(names) | row for row in content]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
            return str(path)
        if isinstance(content, list):
            content = json.dumps(content) if name.endswith(".json") else "\n".join(map(json.dumps, content))
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write
