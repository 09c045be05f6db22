"""Greenlets that can't fail in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent


def spawn_guarded(failed: Callable[[str], None], work: Callable[..., None], *arguments: Any) -> Any:
    """Start a greenlet; should it end by an exception, `failed` is told which, in a greenlet of its own.

    gevent itself would print a traceback and let everybody else wait for ever.
    """
    greenlet = gevent.spawn(work, *arguments)
    greenlet.link_exception(lambda dead: gevent.spawn(failed, reason(dead.exception)))
    return greenlet


def reason(error: BaseException) -> str:
    """An exception as one line for a person."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
