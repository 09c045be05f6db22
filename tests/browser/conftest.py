"""Tests in a browser are run when they are asked for: `make test-browser`, or `-m browser`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "browser" in str(config.option.markexpr):
        return
    skip = pytest.mark.skip(reason="asked for with `make test-browser` only")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(skip)
