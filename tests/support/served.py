"""Connections that a dispatcher serves in a house of rooms, with a budget. Tasks are stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from kbroker.net.buffers import Budget, Buffers
from kbroker.net.connection import BUDGET_STEP
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.messages.api_versions import ApiVersionsRequest
from kbroker.server.apis import APIS
from kbroker.server.dispatch import Dispatcher, Peer
from tests.support.fake_net import Wire
from tests.support.rooms import CALLER, House

LIMIT = BUDGET_STEP
TURNS_MAX = 10_000  # of a loop, for one request


class Stand:
    """Connections that are served in a house, with a budget for all; what its handlers leave to do is done by hand."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.buffers = Buffers(Budget(LIMIT))
        self.work: list[Coroutine[Any, Any, None]] = []
        self._dispatcher = Dispatcher(house.rooms, APIS, start_task=lambda work, name: self.work.append(work))

    def wire(self) -> Wire:
        wire = Wire(
            on_frame=self._dispatcher.on_frame,
            buffers=self.buffers,
            turn=self.house.broker.turn,
            frame_size_max=100 << 20,
        )
        wire.connection.context = Peer(CALLER["listener"], CALLER["principal"], dispatcher=self._dispatcher)
        return wire

    def step(self) -> bool:
        """One step of the oldest work; whether it goes on."""
        try:
            self.work[0].send(None)
        except StopIteration:
            del self.work[0]
            return False
        return True

    def finish(self) -> None:
        while self.work:
            self.step()
        self.house.broker.settle()


def pieces(message: Any, version: int) -> list[bytes]:
    """A request in reads of 64 KiB: its frame gets a buffer of its own."""
    data = b"".join(encode_request(message, version, 1, None))
    return [data[at : at + (1 << 16)] for at in range(0, len(data), 1 << 16)]


class Served:
    """One connection of many requests, and another whose requests are answered meanwhile."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.stand = Stand(house)
        self.wire = self.stand.wire()
        self.other = self.stand.wire()
        self.pauses = 0  # of the work under way

    async def ask(self, message: Any, version: int) -> Any:
        """The response. One that stands behind it is answered behind it, and one of the other connection before."""
        self.begin(message, version)
        await self.finish()
        return self.response(message, version)

    def begin(self, message: Any, version: int) -> None:
        self.pauses = 0
        behind = b"".join(pieces(ApiVersionsRequest(), 0))
        self.wire.arrive(*pieces(message, version), behind)
        self.other.arrive(behind)
        assert (0, 1) == (len(self.wire.answers()), len(self.other.answers()))
        self.other.sock.sent.clear()

    async def step(self) -> bool:
        """A turn of the loop; whether there is still something to do."""
        if not self.stand.work:
            return False
        self.pauses += 1
        self._task(self.stand.work[0])
        await asyncio.sleep(0)
        self.house.broker.settle()
        return True

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        if asyncio.iscoroutine(work):
            task = asyncio.ensure_future(work)
            self.stand.work[0] = task
            task.add_done_callback(self.stand.work.remove)

    async def finish(self) -> None:
        for _ in range(TURNS_MAX):
            if not await self.step():
                self.house.broker.settle()
                return self.wire.run()
        raise AssertionError("it never ends")

    def response(self, message: Any, version: int) -> Any:
        first, second = self.wire.answers()
        self.wire.sock.sent.clear()
        decode_response(RESPONSES[ApiVersionsRequest.API_KEY], 0, memoryview(second))
        return decode_response(RESPONSES[message.API_KEY], version, memoryview(first))[1]
