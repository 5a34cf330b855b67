"""Connections that a dispatcher serves in a house of rooms, with a budget. No loop runs: tasks are stepped by hand."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kbroker.net.buffers import Budget, Buffers
from kbroker.net.connection import BUDGET_STEP
from kbroker.protocol.frames import encode_request
from kbroker.server.apis import APIS
from kbroker.server.dispatch import Dispatcher, Peer
from tests.support.fake_net import Wire
from tests.support.rooms import CALLER, House

LIMIT = BUDGET_STEP


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
