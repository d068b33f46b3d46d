"""How a process of asyncio ends: SIGTERM or SIGINT cancels its work, which then cleans up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable


async def until_signalled(work: Awaitable[None]) -> None:
    """Returns when the work has ended, by itself or cancelled by a signal."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        pass
