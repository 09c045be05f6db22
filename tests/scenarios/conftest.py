import pytest

import scenarios


@pytest.fixture(params=scenarios.names())
def scenario(request):
    """Every built-in scenario in turn."""
    return scenarios.load(request.param)
