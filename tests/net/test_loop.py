from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kbroker.net import listening as module
from kbroker.net.listening import bind
from kbroker.net.loop import LoopNet, new_loop
from kbroker.net.threads import LoopThreads
from kbroker.turn import Turn

LIMIT_S = 60.0
KINDS = ["LoopNet", *(["SelectorNet"] if sys.platform == "linux" else [])]


class House:
    """A loop, a net on it, and a pair of sockets: `ours` is watched, `theirs` is the peer's."""

    def __init__(self, kind: str) -> None:
        self.turn = Turn()
        if kind == "SelectorNet":
            self.loop, self.net = new_loop(self.turn)
        else:
            self.loop = asyncio.new_event_loop()
            self.net = LoopNet(self.loop, self.turn)
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
        self.seen: list[Any] = []

    def read(self) -> None:
        self.seen.append(self.ours.recv(100))

    def write(self) -> None:
        self.seen.append("writable")

    def until(self, there: Callable[[], Any]) -> None:
        """Let the loop run until something is there."""

        async def wait() -> None:
            while not there():
                await asyncio.sleep(0)

        self.loop.run_until_complete(asyncio.wait_for(wait(), LIMIT_S))

    def rounds(self, count: int = 20) -> None:
        """Let the loop turn a few times."""

        async def turn() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def close(self) -> None:
        if self.ours.fileno() >= 0:
            self.net.forget(self.ours)
        self.ours.close()
        self.theirs.close()
        self.loop.close()


@pytest.fixture(params=KINDS)
def house(request) -> Iterator[House]:
    made = House(request.param)
    yield made
    made.close()


def test_bytes_are_announced_until_nobody_is_interested(house):
    house.net.watch(house.ours, house.read)
    house.theirs.send(b"one")
    house.until(lambda: house.seen)

    house.net.watch(house.ours, None)
    house.theirs.send(b"two")
    house.rounds()
    assert [b"one"] == house.seen

    house.net.watch(house.ours, house.read)
    house.until(lambda: len(house.seen) > 1)
    assert [b"one", b"two"] == house.seen


def test_room_is_announced_while_it_is_asked_for(house):
    house.net.watch(house.ours, house.read, house.write)
    house.until(lambda: house.seen)

    house.net.watch(house.ours, house.read)
    house.rounds()
    seen = len(house.seen)
    house.rounds()

    assert ["writable"] * seen == house.seen


def test_the_end_of_the_peer_is_bytes_of_length_0(house):
    house.net.watch(house.ours, house.read)
    house.theirs.close()

    house.until(lambda: house.seen)

    assert b"" == house.seen[0]


def test_a_peer_that_ends_while_nobody_is_interested_is_found_later(house):
    house.net.watch(house.ours, None)
    house.theirs.close()
    house.rounds()

    house.net.watch(house.ours, house.read)
    house.until(lambda: house.seen)

    assert b"" == house.seen[0]


def test_what_is_forgotten_is_not_announced(house):
    house.net.watch(house.ours, house.read, house.write)
    house.net.forget(house.ours)
    house.theirs.send(b"x")

    house.rounds()

    assert [] == house.seen


def test_forgetting_inside_of_reading_is_the_end_of_it(house):
    def read() -> None:
        house.read()
        house.net.forget(house.ours)
        house.ours.close()

    house.net.watch(house.ours, read, house.write)
    house.theirs.send(b"x")
    house.until(lambda: b"x" in house.seen)
    before = len(house.seen)

    house.rounds()

    assert before == len(house.seen)


def test_what_was_asked_for_is_done_at_the_end_of_the_turn(house):
    class Sender:
        def flush(self) -> None:
            house.seen.append("sent")

        def failed(self, error: BaseException) -> None:
            raise error

    def read() -> None:
        house.read()
        house.turn.send(Sender())

    house.net.watch(house.ours, read)
    house.theirs.send(b"x")

    house.until(lambda: "sent" in house.seen)

    assert [b"x", "sent"] == house.seen


def test_what_a_callback_asks_for_is_done_before_the_loop_sleeps(house):
    class Sender:
        def flush(self) -> None:
            house.seen.append("sent")

        def failed(self, error: BaseException) -> None:
            raise error

    house.loop.call_soon(house.turn.send, Sender())

    house.until(lambda: house.seen)

    assert ["sent"] == house.seen


def test_timers_come_while_sockets_are_busy(house):
    """Ours and asyncio's share one loop: a flood on our sockets must not keep its timers."""

    rang: list[bool] = []

    def read() -> None:
        house.read()
        house.theirs.send(b"x")
        if len(house.seen) == 2:  # from here on they are
            house.loop.call_later(0.01, rang.append, True)

    house.net.watch(house.ours, read)
    house.theirs.send(b"x")

    async def wait() -> None:
        while not rang:
            await asyncio.sleep(0.001)

    house.loop.run_until_complete(asyncio.wait_for(wait(), LIMIT_S))

    assert [True] == rang


def test_threads_wake_a_loop_whose_sockets_are_busy(house):
    def read() -> None:
        house.read()
        house.theirs.send(b"x")

    house.net.watch(house.ours, read)
    house.theirs.send(b"x")
    threads = LoopThreads(house.net)
    done: list[Any] = []
    threads.run(lambda: 42, lambda result, error: done.append((result, error)))

    house.until(lambda: done)
    threads.stop()

    assert [(42, None)] == done


def test_asyncios_own_sockets_work_beside_ours(house):
    async def echo() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(10))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        got = await reader.read(10)
        writer.close()
        server.close()
        return got

    house.net.watch(house.ours, house.read)
    house.theirs.send(b"x")

    assert b"hello" == house.loop.run_until_complete(asyncio.wait_for(echo(), LIMIT_S))
    house.until(lambda: house.seen)


def test_connections_are_accepted(house):
    listening = bind("127.0.0.1", 0)
    accepted: list[Any] = []
    house.net.accept(listening, lambda sock, peer: accepted.append(sock))
    clients = [socket.create_connection(listening.getsockname()) for _ in range(100)]

    house.until(lambda: len(accepted) == len(clients))

    assert all(not sock.getblocking() for sock in accepted)
    house.net.forget(listening)
    for sock in (listening, *accepted, *clients):
        sock.close()


def test_a_listener_without_descriptors_rests_and_goes_on(house, monkeypatch):
    """EMFILE leaves the connection in the queue: trying again at once would spin."""
    monkeypatch.setattr(module, "ACCEPT_REST_SECONDS", 0.01)

    class Full:
        tries = 0

        def __init__(self) -> None:
            self.real = bind("127.0.0.1", 0)

        def fileno(self) -> int:
            return self.real.fileno()

        def accept(self) -> Any:
            Full.tries += 1
            if Full.tries <= 2:
                raise OSError(24, "Too many open files")
            return self.real.accept()

    listening = Full()
    accepted: list[Any] = []
    house.net.accept(listening, lambda sock, peer: accepted.append(sock))
    client = socket.create_connection(listening.real.getsockname())

    house.until(lambda: accepted)

    assert 3 <= Full.tries <= 4
    house.net.forget(listening)
    for sock in (listening.real, client, *accepted):
        sock.close()


def fail() -> None:
    raise RuntimeError("ours")


@pytest.mark.parametrize("how", ["reading", "writing"])
def test_a_socket_whose_callback_fails_is_served_no_more_and_the_others_are(house, how, caplog):
    other_ours, other_theirs = socket.socketpair()
    seen: list[bytes] = []
    house.theirs.send(b"x")
    other_theirs.send(b"y")
    if how == "reading":
        house.net.watch(house.ours, fail)
    else:
        house.net.watch(house.ours, None, fail)
    house.net.watch(other_ours, lambda: seen.append(other_ours.recv(10)))

    house.until(lambda: seen)
    house.rounds()

    [record] = caplog.records
    assert "served no more" in record.getMessage()
    assert record.exc_info
    house.net.watch(house.ours, house.read)  # it may be watched again
    house.until(lambda: house.seen)
    house.net.forget(other_ours)
    other_ours.close()
    other_theirs.close()


def test_a_connection_that_cannot_be_served_is_closed_and_the_listener_goes_on(house, caplog):
    listening = bind("127.0.0.1", 0)
    accepted: list[Any] = []

    def serve(sock: Any, peer: Any) -> None:
        house.net.watch(sock, lambda: None)
        if not accepted:
            accepted.append(None)
            fail()
        accepted.append(sock)
        house.net.watch(sock, lambda: house.seen.append(sock.recv(10)))

    house.net.accept(listening, serve)
    clients = [socket.create_connection(listening.getsockname()) for _ in range(2)]
    clients[1].send(b"hello")
    clients[0].settimeout(LIMIT_S)

    house.until(lambda: house.seen)

    assert b"" == clients[0].recv(10)
    assert [b"hello"] == house.seen
    assert ["connection not served"] == [record.getMessage().split(" peer=")[0] for record in caplog.records]
    house.net.forget(accepted[1])
    house.net.forget(listening)
    for sock in (listening, accepted[1], *clients):
        sock.close()


class Broken:
    """Fails at whatever the turn asks of it, and at being told so."""

    write_out = begin = settle = flush = staticmethod(fail)

    def failed(self, error: BaseException) -> None:
        raise error


def test_an_item_that_fails_and_fails_to_take_it_does_not_end_the_turn(house, caplog):
    class Good:
        def flush(self) -> None:
            house.seen.append("sent")

    for ask in (house.turn.write, house.turn.sync, house.turn.settle, house.turn.send):
        ask(Broken())
    house.turn.send(Good())

    house.until(lambda: house.seen)

    assert 4 == len(caplog.records)
    assert not house.turn.busy


def test_a_failure_of_blocking_work_is_told(house):
    threads = LoopThreads(house.net)
    done: list[Any] = []

    def fail() -> None:
        raise OSError(5, "Input/output error")

    threads.run(fail, lambda result, error: done.append(error))
    house.until(lambda: done)
    threads.stop()

    assert "Input/output error" in str(done[0])
