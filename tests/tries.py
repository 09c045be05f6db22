"""How often a property is tried whose examples are dear: less in `make test` than in `make test-all`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def tries(thorough: int, **more: Any) -> settings:
    """This many examples with the profile "thorough", a quarter of them else."""
    is_thorough = settings.get_current_profile_name() == "thorough"
    return settings(max_examples=thorough if is_thorough else thorough // 4, deadline=None, **more)
