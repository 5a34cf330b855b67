"""What a case needs beside its load: connections, topics, the ends of partitions. Simple and blocking."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from dataclasses import dataclass

from bench import frames

ANSWER_S_MAX = 60
UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_LEADER, TOPIC_EXISTS = 3, 5, 6, 36


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens; with `tls`, how to talk to it there."""

    port: int
    tls: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        """A connected, blocking socket."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            return self.tls.wrap_socket(sock, server_hostname="localhost")
        return sock


def trusting(chain: str) -> ssl.SSLContext:
    """TLS 1.3 to a server whose certificate is in the PEM file `chain`."""
    context = ssl.create_default_context(cafile=chain)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def tls_of(address: Address) -> str:
    """The version and cipher suite that a connection ends up with."""
    with address.connect() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        return f"{sock.version()}, {(sock.cipher() or ('none',))[0]}"


def wait_in_kernel(sock: socket.socket, seconds: int) -> None:
    """Blocking with a limit, but without the poll() that Python adds to every call on a socket with a timeout."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


def read_answer(sock: socket.socket) -> bytes:
    """One answer, its size field included."""
    answer = read_exactly(sock, 4)
    return answer + read_exactly(sock, int.from_bytes(answer, "big"))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = sock.recv(size - len(got))
        if not part:
            raise ConnectionError("the broker closed the connection")
        got += part
    return bytes(got)


def ask(address: Address, frame: bytes) -> bytes:
    """One request on a connection of its own."""
    with address.connect() as sock:
        sock.sendall(frame)
        return read_answer(sock)


def create_topics(address: Address, topics: dict[str, int], configs: dict[str, str] | None = None) -> float:
    """Create and wait until the last partition of each takes records; seconds until the answer came."""
    began = time.perf_counter()
    refused = frames.create_topics_errors(ask(address, frames.create_topics(topics, configs=configs)))
    took = time.perf_counter() - began
    if refused:
        raise RuntimeError(f"topics refused: {dict(list(refused.items())[:3])}")
    return took


def create_topic(
    address: Address, topic: str, partitions: int, configs: dict[str, str] | None = None
) -> None:
    """Create a topic and wait until all its partitions answer."""
    create_topics(address, {topic: partitions}, configs)
    deadline = time.monotonic() + ANSWER_S_MAX
    while True:
        try:
            ends(address, topic, partitions)
            return
        except ValueError:  # Kafka answers CreateTopics before its partitions lead
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def alter(address: Address, kind: int, resource: str, values: dict[str, str]) -> None:
    """Set configs of a topic or of all brokers."""
    error, text = frames.alter_configs_error(ask(address, frames.alter_configs(kind, resource, values)))
    if error:
        raise RuntimeError(f"configs refused: error {error}, {text}")


def delete_topics(address: Address, names: list[str]) -> None:
    """Delete; their files follow a moment later."""
    ask(address, frames.delete_topics(names))


def ends(address: Address, topic: str, partitions: int) -> list[int]:
    """The end offset of each partition."""
    return frames.ends(ask(address, frames.list_ends(topic, partitions)))
