"""The selector serves its own sockets in a row without asyncio, and gives asyncio its turn when it has something to do."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator

import pytest

from kbroker.net.loop import new_loop
from kbroker.turn import Turn

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the selector is epoll's; elsewhere LoopNet serves"
)


class Echo:
    """Answers each byte, and does something else beside when told to."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.loop, self.net = new_loop(self.turn)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.settimeout(60)
        self.beside = lambda: None
        self.net.watch(self.ours, self._read)

    def _read(self) -> None:
        asked = self.ours.recv(1)
        self.beside()
        self.ours.send(asked)

    def run(self, client) -> object:
        """Run `client` in a thread, against the loop."""

        async def main() -> object:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, client), 60)

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(main())

    def ask(self) -> None:
        self.theirs.send(b"x")
        assert self.theirs.recv(1)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


def test_a_timer_runs_under_a_stream_of_requests(echo: Echo):
    """Two hundred requests back to back, and a timer set before them."""
    rang: list[int] = []
    asked = 0

    def client() -> int:
        nonlocal asked
        echo.loop.call_soon_threadsafe(echo.loop.call_later, 0.001, rang.append, 1)
        while not rang and asked < 100_000:
            echo.ask()
            asked += 1
        return asked

    echo.run(client)

    assert [1] == rang


def test_a_timer_set_while_serving_is_seen_though_a_later_one_was_waited_for(echo: Echo):
    rang: list[str] = []

    def client() -> None:
        echo.loop.call_soon_threadsafe(echo.loop.call_later, 1000, rang.append, "late")
        echo.ask()
        echo.beside = lambda: echo.loop.call_later(0.001, rang.append, "soon")
        echo.ask()
        echo.beside = lambda: None
        for _ in range(100_000):
            if rang:
                return
            echo.ask()

    echo.run(client)

    assert ["soon"] == rang


def test_timers_are_seen_after_asyncio_has_replaced_its_queue(echo: Echo):
    """asyncio drops cancelled timers by making a new queue once there are more than a hundred."""
    rang: list[int] = []

    def many() -> None:
        for _ in range(500):
            echo.loop.call_later(100, rang.append, 0).cancel()

    def client() -> None:
        echo.loop.call_soon_threadsafe(many)
        for _ in range(200):
            echo.ask()
        echo.beside = lambda: echo.loop.call_later(0.001, rang.append, 1)
        echo.ask()
        echo.beside = lambda: None
        for _ in range(100_000):
            if rang:
                return
            echo.ask()

    echo.run(client)

    assert [1] == rang


def test_a_task_started_while_serving_runs(echo: Echo):
    ran: list[int] = []

    async def task() -> None:
        ran.append(1)

    tasks: list[asyncio.Task] = []

    def client() -> None:
        echo.beside = lambda: tasks.append(echo.loop.create_task(task()))
        echo.ask()
        echo.beside = lambda: None
        for _ in range(100_000):
            if ran:
                return
            echo.ask()

    echo.run(client)

    assert [1] == ran
