"""Tasks that stand and fall together. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


async def until_one_ends(tasks: Sequence[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Those that have ended when the first did; the others are cancelled, and gone when this returns or is cancelled."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done
