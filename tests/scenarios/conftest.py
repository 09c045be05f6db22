from functools import cache

import pytest

import scenarios

loaded = cache(scenarios.load)
"""A built-in scenario; it cannot be changed, so one does for all tests."""


@pytest.fixture(params=scenarios.names())
def scenario(request):
    """Every built-in scenario in turn."""
    return loaded(request.param)
