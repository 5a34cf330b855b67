"""Producer ids, from blocks that the cluster gives this broker. Knows the cluster's log as a way to ask for a block.

A block lives in memory alone: what is left of it at a stop is never given out, so that no id is given out twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kbroker.cluster.commands import AllocateProducerIds
from kbroker.model import BrokerId

# Ids in a block, as Kafka's: one command to the cluster for a thousand producers.
BLOCK_SIZE = 1_000


Propose = Callable[[Any], Awaitable[Any]]  # a command to the cluster's log; its result


class ProducerIds:
    """Ids that nobody else in the cluster gives out."""

    __slots__ = ("_broker", "_end", "_filled", "_next")

    def __init__(self, broker: BrokerId) -> None:
        self._broker = broker
        self._next = self._end = 0  # _next <= _end: the ids left are [_next, _end)
        self._filled: asyncio.Event | None = None  # set when the block asked for is here, or refused

    def take(self) -> int | None:
        """The next id; None when the block is used up."""
        if self._next == self._end:
            return None
        taken = self._next
        self._next += 1
        return taken

    async def take_from_new_block(self, propose: Propose) -> int:
        """The next id, from a new block. However many ask at once, one block at a time is asked for."""
        while (taken := self.take()) is None:
            if self._filled is None:
                await self._fill(propose)
            else:
                await self._filled.wait()
        return taken

    async def _fill(self, propose: Propose) -> None:
        self._filled = filled = asyncio.Event()
        try:
            first = await propose(AllocateProducerIds(self._broker, BLOCK_SIZE))
            self._next, self._end = first, first + BLOCK_SIZE
        finally:
            self._filled = None
            filled.set()
