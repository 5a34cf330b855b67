from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from kbroker.net.tls_stream import TlsStream
from tests.support.fake_net import Wire, frame

MIB = 1 << 20


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and one that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class Pair:
    """A connection of ours over TLS, and a client whose bytes go through memory: the test carries them."""

    def __init__(self, contexts, serve=None) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self.their_socket = theirs
        server, client = contexts
        self.socket = server.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.wire = Wire(serve, frame_size_max=8 * MIB, sock=self.socket, stream=TlsStream(self.socket))
        self.unsent = b""
        self.received = bytearray()

    def turn(self, step: int = 1 << 20) -> None:
        """Carry some bytes each way and let our side do what it wants to."""
        self.unsent += self.outgoing.read()
        if self.unsent:
            try:
                self.unsent = self.unsent[self.their_socket.send(self.unsent[:step]) :]
            except BlockingIOError:
                pass
        read, write = self.wire.net.watched.get(self.socket, (None, None))
        if read is not None:
            read()
        read, write = self.wire.net.watched.get(self.socket, (None, None))
        if write is not None:
            write()
        if self.wire.turn.busy:
            self.wire.turn.run()
        try:
            got = self.their_socket.recv(min(step, 50_000))
            if got:
                self.incoming.write(got)
            else:
                self.incoming.write_eof()
        except BlockingIOError:
            pass

    def shake_hands(self, step: int = 1 << 20) -> None:
        for _ in range(20_000):
            try:
                return self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.turn(step)
        raise AssertionError("no handshake")

    def read_until(self, size: int, step: int = 1 << 20) -> bytes:
        for _ in range(200_000):
            self.turn(step)
            try:
                while len(self.received) < size:
                    self.received += self.client.read(1 << 20)
            except ssl.SSLWantReadError:
                continue
            return bytes(self.received)
        raise AssertionError(f"{len(self.received)} of {size} bytes came")

    def until_frames(self, count: int, step: int = 1 << 20) -> list[bytes]:
        for _ in range(200_000):
            if len(self.wire.frames) >= count:
                return self.wire.frames
            self.turn(step)
        raise AssertionError(f"{len(self.wire.frames)} of {count} frames came")

    def close(self) -> None:
        self.wire.connection.close(None)
        self.their_socket.close()


@pytest.fixture
def pair_of(contexts) -> Iterator[object]:
    pairs: list[Pair] = []

    def make(serve=None) -> Pair:
        pairs.append(Pair(contexts, serve))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_handshake_in_pieces_of_any_size_and_a_request_after_it(pair_of, step):
    pair = pair_of(lambda wire, body: b"answer")
    pair.shake_hands(step)

    pair.client.write(frame(b"0123456789"))

    assert b"answer" == pair.read_until(6, step)


def test_frames_and_their_sizes_may_be_in_any_tls_records(pair_of):
    """Bytes that OpenSSL has decrypted are not announced by the socket: they must be read all the same."""
    pair = pair_of()
    pair.shake_hands()
    bodies = [bytes([n]) * (10 + n * 37) for n in range(40)]
    stream = b"".join(map(frame, bodies))
    cuts = sorted(random.Random(3).sample(range(1, len(stream)), 60))

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pair.client.write(stream[start:end])

    assert bodies == pair.until_frames(len(bodies))


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_size_in_a_record_of_its_own_is_followed_by_what_is_already_there(pair_of, at):
    pair = pair_of()
    pair.shake_hands()
    data = frame(b"0123456789")
    pair.client.write(data[:at])
    for _ in range(5):
        pair.turn()

    pair.client.write(data[at:] + frame(b"next one in the same record"))
    pair.unsent += pair.outgoing.read()
    pair.their_socket.send(pair.unsent)
    pair.unsent = b""
    pair.wire.net.watched[pair.socket][0]()  # the socket announces it once
    assert not pair.wire.ends

    assert [b"0123456789", b"next one in the same record"] == pair.wire.frames


def test_megabytes_go_both_ways_through_small_socket_buffers(pair_of):
    rng = random.Random(5)
    answer = rng.randbytes(3 * MIB)
    body = rng.randbytes(2 * MIB)
    pair = pair_of(lambda wire, body: [b"head", memoryview(answer), b"tail"])
    pair.shake_hands()

    pair.client.write(frame(body) + frame(body))

    whole = b"head" + answer + b"tail"
    assert whole * 2 == pair.read_until(2 * len(whole))
    assert [body, body] == pair.wire.frames


def test_plain_text_ends_with_an_ssl_error(pair_of):
    pair = pair_of()
    pair.their_socket.send(frame(b"0123456789" * 3))

    pair.wire.net.watched[pair.socket][0]()

    [error] = pair.wire.ends
    assert isinstance(error, ssl.SSLError)


@pytest.mark.parametrize("polite", [True, False])
def test_the_peers_end_is_no_error(pair_of, polite):
    pair = pair_of()
    pair.shake_hands()
    pair.turn()
    if polite:
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.unwrap()
        pair.turn()
    else:
        pair.their_socket.shutdown(socket.SHUT_WR)
        pair.wire.net.watched[pair.socket][0]()

    assert [None] == pair.wire.ends
