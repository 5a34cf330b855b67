"""The loads count what was answered and end, against a broker of twenty lines that answers by size alone."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from bench import generator
from bench.client import Address, read_answer

REQUEST = b"\x00\x00\x00\x06abcdef"
ANSWER = b"\x00\x00\x00\x0aanswer-123"


class Answering:
    """Accepts, and answers every frame with the same bytes, one connection per thread. `torn`: in two pieces."""

    def __init__(self, *, torn: bool = False) -> None:
        self.pieces = [ANSWER[:3], ANSWER[3:]] if torn else [ANSWER]
        self.requests = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> Address:
        return Address(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, contextlib.suppress(OSError):
            while True:
                read_answer(sock)
                with self._lock:
                    self.requests += 1
                for piece in self.pieces:
                    sock.sendall(piece)


@pytest.fixture(params=[False, True], ids=["whole", "torn"])
def broker(request):
    answering = Answering(torn=request.param)
    yield answering
    answering.close()


def test_a_pipelined_load_answers_as_many_as_it_says_and_stops_at_its_number(broker):
    run = generator.pipelined(
        broker.address, [REQUEST] * 3, answer_size=len(ANSWER), depth=5, seconds=600, requests_max=200
    )

    assert 200 <= run.requests < 200 + 3 * 5
    assert (run.requests, run.requests * len(REQUEST)) == (broker.requests, run.bytes)


@pytest.mark.parametrize("connections", [1, 4])
def test_round_trips_are_counted_one_by_one(broker, connections):
    run = generator.round_trips(
        broker.address, [REQUEST] * connections, answer_size=len(ANSWER), seconds=0.05
    )

    assert run.requests == broker.requests >= connections


def test_fetches_count_the_bytes_that_came(broker):
    run = generator.fetches(broker.address, [[REQUEST], [REQUEST, REQUEST]], seconds=0.05)

    assert (run.requests, run.requests * len(ANSWER)) == (broker.requests, run.bytes)


def test_a_broker_that_hangs_up_ends_the_load():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(listener.getsockname()[1])

        def hang_up() -> None:
            sock, _ = listener.accept()
            sock.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(OSError):
            generator.pipelined(
                address, [REQUEST], answer_size=len(ANSWER), depth=5, seconds=600, requests_max=10
            )
        thread.join(60)
