"""Keeps heavy work from piling up in one round of the event loop."""

from __future__ import annotations

import asyncio


class WorkScheduler:
    """Lets one holder through at a time, and the loop look at its sockets between two.

    Streams that began together end together: a hundred replies decoded in one round would keep a hundred
    first tokens of the next turns unread for a tenth of a second, and reads that wait coalesce.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._lock.release()
