from __future__ import annotations

import gc
import logging
import ssl
from types import SimpleNamespace

import pytest

from kbroker.errors import ProtocolError
from kbroker.net.buffers import Budget, Buffers
from kbroker.net.connection import (
    FRAME_BYTES_PER_SECOND_MIN,
    FRAME_LOOK_SECONDS,
    FRAME_SECONDS_MAX,
    UNANSWERED_MAX,
    Connection,
    Slot,
)
from kbroker.server import listener as module
from kbroker.server.listener import Connections, Limits, sockets_of
from kbroker.storage.disk import open_files_of
from kbroker.turn import Turn
from tests.support.fake_net import FakeNet, FakeSocket, frame
from tests.support.storage import ManualClock, ManualThreads

IDLE_SECONDS = 600.0


class House:
    """Connections on fake sockets and a clock that stands still."""

    def __init__(
        self,
        *,
        connections_max: int = 1000,
        per_ip_max: int = 1000,
        per_ip_overrides: dict[str, int] | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.turn = Turn()
        self.net = FakeNet()
        self.answer: object = None
        self.dispatcher = SimpleNamespace(on_frame=self._on_frame, on_close=lambda connection: None)
        self.connections = Connections(
            Limits(
                connections_max=connections_max,
                per_ip_max=per_ip_max,
                per_ip_overrides=per_ip_overrides,
                frame_size_max=1000,
                idle_seconds=IDLE_SECONDS,
            ),
            net=self.net,
            turn=self.turn,
            threads=ManualThreads(),
            buffers=Buffers(Budget(-1)),
            clock=self.clock,
        )

    def _on_frame(self, connection: Connection, view: memoryview, start: int, end: int) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            connection.put(self.answer)

    def connect(self, ip: str = "10.0.0.1", port: int = 1234, secure: object = None) -> FakeSocket:
        sock = FakeSocket()
        self.connections.add(sock, (ip, port), "PLAINTEXT", self.dispatcher, secure)
        return sock

    def arrive(self, sock: FakeSocket, data: bytes | BaseException) -> None:
        sock.arrive(data)
        self.net.watched[sock][0]()
        self.turn.run()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / 10)):
            self.clock.advance(10_000)


# -- limits


def test_connections_beyond_the_maximum_are_closed_at_once():
    house = House(connections_max=2)

    sockets = [house.connect(ip) for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3")]

    assert [False, False, True] == [sock.closed for sock in sockets]
    assert 2 == len(house.connections)


def test_connections_beyond_what_the_descriptors_allow_are_closed_with_the_cure(caplog):
    house = House()
    house.connections.limits.sockets_max = 2

    sockets = [house.connect() for _ in range(3)]

    assert [False, False, True] == [sock.closed for sock in sockets]
    [line] = lines(caplog)
    assert "ulimit -n" in line


def test_sockets_that_are_held_for_a_moment_take_their_room_too():
    house = House()
    house.connections.limits.sockets_max = 2
    house.connections.hold_of = lambda ip: 1.0
    held = house.connect()
    house.connections.hold_of = None

    sockets = [house.connect() for _ in range(2)]

    assert [False, False, True] == [sock.closed for sock in (held, *sockets)]


@pytest.mark.parametrize(
    "descriptors, files, sockets",
    [(1024, 256, 704), (20_000, 4096, 15_840), (65_536, 4096, 61_376), (64, 16, 1)],
)
def test_descriptors_are_shared_by_files_and_connections(descriptors, files, sockets):
    assert files == open_files_of(descriptors)
    assert sockets == sockets_of(descriptors, files)


def test_one_address_has_a_maximum_of_its_own_and_gets_room_again():
    house = House(per_ip_max=2)
    first, second, third = (house.connect() for _ in range(3))
    assert [False, False, True] == [first.closed, second.closed, third.closed]
    assert not house.connect("10.0.0.2").closed

    house.arrive(first, b"")

    assert not house.connect().closed
    assert house.connect().closed


def test_certain_addresses_have_maximums_of_their_own():
    house = House(per_ip_max=0, per_ip_overrides={"10.0.0.2": 1})

    assert house.connect().closed
    assert [False, True] == [house.connect("10.0.0.2").closed for _ in range(2)]


def test_a_thousand_connections_that_ended_leave_nothing():
    house = House()
    sockets = [house.connect(f"10.0.{n // 250}.{n % 250}") for n in range(1000)]
    assert 1000 == alive(house)

    for sock in sockets:
        house.arrive(sock, b"")

    assert 0 == len(house.connections)
    assert {} == house.net.watched
    assert not house.connections._per_ip
    assert 0 == alive(house)


def alive(house: House) -> int:
    """Connections of the house that somebody still holds; brokers that run beside this test have some too."""
    gc.collect()
    return sum(type(found) is Connection and found._net is house.net for found in gc.get_objects())


def test_closing_all_closes_all():
    house = House()
    sockets = [house.connect() for _ in range(5)]

    house.connections.close_all()

    assert all(sock.closed for sock in sockets)
    assert [] == house.clock.timers


def test_a_socket_that_the_system_does_not_watch_is_refused_and_not_counted(monkeypatch, caplog):
    house = House(per_ip_max=1)

    def watch(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(house.net, "watch", watch)
        assert house.connect().closed

    assert not house.connect().closed
    assert 1 == len(lines(caplog))


def test_a_socket_that_cannot_be_secured_is_closed_and_harms_nobody():
    """The client is gone before the broker wraps its socket: Python asks for the peer's name, and there is none."""
    house = House()

    def secure(sock: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    assert house.connect(secure=secure).closed
    assert 0 == len(house.connections)
    assert not house.connect().closed


# -- idle


def test_a_silent_connection_is_closed_after_its_time():
    house = House()
    sock = house.connect()

    house.pass_time(IDLE_SECONDS - 10)
    assert not sock.closed
    house.pass_time(IDLE_SECONDS / module.IDLE_LOOKS + 20)

    assert sock.closed


def test_a_connection_that_says_something_now_and_then_stays():
    house = House()
    house.answer = b"answer"
    sock = house.connect()

    for _ in range(10):
        house.pass_time(IDLE_SECONDS * 0.7)
        house.arrive(sock, frame(b"0123456789"))

    assert not sock.closed


def test_whoever_waits_for_an_answer_is_not_idle():
    house = House()
    house.answer = Slot()
    sock = house.connect()
    house.arrive(sock, frame(b"0123456789"))

    house.pass_time(5 * IDLE_SECONDS)

    assert not sock.closed


def test_whoever_does_not_take_its_answer_is_idle():
    house = House()
    house.answer = b"answer"
    sock = house.connect()
    sock.room = 0
    house.arrive(sock, frame(b"0123456789"))

    house.pass_time(2 * IDLE_SECONDS)

    assert sock.closed


@pytest.mark.parametrize("sent", [2, 50])
def test_a_request_that_stays_half_sent_ends_its_connection_with_one_line(sent, caplog):
    house = House()
    sock, other = house.connect(), house.connect()
    house.arrive(sock, frame(bytes(100))[:sent])

    house.pass_time(FRAME_SECONDS_MAX - 10)
    assert not sock.closed
    house.pass_time(4 * FRAME_LOOK_SECONDS)

    assert sock.closed
    assert not other.closed
    [line] = lines(caplog)
    assert "too slow" in line


def test_a_request_that_comes_slowly_but_fast_enough_may_take_its_time():
    house = House()
    house.connections.limits.frame_size_max = 100 << 20
    sock = house.connect()
    size = FRAME_BYTES_PER_SECOND_MIN * 200
    house.arrive(sock, size.to_bytes(4, "big"))

    for _ in range(19):
        house.arrive(sock, bytes(size // 20))
        house.pass_time(10)

    assert not sock.closed
    house.pass_time(4 * FRAME_SECONDS_MAX)
    assert sock.closed


@pytest.mark.parametrize("takes", [True, False])
def test_a_request_that_we_do_not_read_is_not_slow_unless_its_client_takes_no_answers(takes):
    house = House()
    sock = house.connect()
    sock.room = 1 << 20 if takes else 0
    for number in range(UNANSWERED_MAX):
        house.answer = b"answer" if number == 0 and not takes else Slot()
        half = frame(bytes(100))[:50] if number == UNANSWERED_MAX - 1 else b""
        house.arrive(sock, frame(b"0123456789") + half)
    assert not house.net.reads(sock)

    house.pass_time(FRAME_SECONDS_MAX + 4 * FRAME_LOOK_SECONDS)

    assert takes != sock.closed


# -- what is told


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_broken_peer_is_one_line(caplog):
    house = House()
    house.answer = ProtocolError("not what we speak")

    house.arrive(house.connect(), frame(b"0123456789"))

    [line] = lines(caplog)
    assert "10.0.0.1:1234" in line
    assert "not what we speak" in line


def test_a_client_that_goes_is_no_line(caplog):
    house = House()

    house.arrive(house.connect(), b"")
    house.arrive(house.connect(), ConnectionResetError(104, "reset"))
    for looked_only in (
        ssl.SSLEOFError(8, "EOF"),
        ssl.SSLZeroReturnError(6, "closed"),
    ):  # whether the port is open
        house.arrive(house.connect(), looked_only)

    assert [] == lines(caplog)


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("WRONG_VERSION_NUMBER", "security.protocol=SSL"),
        ("HTTP_REQUEST", "security.protocol=SSL"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "ssl.keystore.*"),
        ("TLSV1_ALERT_UNKNOWN_CA", "ssl.ca.location"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "subjectAltName"),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "ssl.ca.location"),
        ("NO_SHARED_CIPHER", None),
    ],
)
def test_a_tls_handshake_that_failed_names_the_cure_for_its_reason_alone(reason, cure, caplog):
    house = House()
    error = ssl.SSLError(1, "failed")
    error.reason = reason

    house.arrive(house.connect(), error)

    [line] = lines(caplog)
    assert f"why={reason}" in line
    assert (cure is not None) == ("cure=" in line)
    assert (cure or "") in line


def test_a_flood_of_broken_peers_is_no_flood_of_lines(caplog):
    house = House()
    house.answer = ProtocolError("no")

    for _ in range(500):
        house.arrive(house.connect(), frame(b"0123456789"))
    assert module.TOLD_AT_ONCE_MAX + 1 == len(lines(caplog))

    house.clock.advance(int(module.TELL_SECONDS * 1000) + 1)
    house.arrive(house.connect(), frame(b"0123456789"))
    assert any("479" in line for line in lines(caplog))


def test_an_ipv6_peer_is_written_in_brackets(caplog):
    house = House()
    house.answer = ProtocolError("no")

    house.arrive(house.connect("fe80::1"), frame(b"0123456789"))

    assert "[fe80::1]:1234" in lines(caplog)[0]
