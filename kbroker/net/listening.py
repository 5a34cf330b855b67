"""Listening sockets: where they are bound, and how connections are taken from them. Knows no loop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from kbroker.observe import logs
from kbroker.seams import Net

log = logs.get_logger("net")

# Connections accepted per readiness of a listener, so that a flood of them does not starve those that are served.
ACCEPTS_PER_WAKE_MAX = 64
LISTEN_BACKLOG = 4096
# Out of descriptors: the listener rests this long instead of spinning on a connection it cannot take.
ACCEPT_REST_SECONDS = 0.1

OnReady = Callable[[], None]


def accept_all(
    net: Net,
    listening: socket.socket,
    on_socket: Callable[[Any, Any], None],
    call_later: Callable[[float, OnReady], object],
) -> None:
    """Hand each connection of a socket from `bind` to `on_socket`, from now on."""

    def accept() -> None:
        for _ in range(ACCEPTS_PER_WAKE_MAX):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: the queue keeps them until we can
                net.watch(listening, None)
                call_later(ACCEPT_REST_SECONDS, go_on)
                return
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                on_socket(sock, peer)
            except Exception as error:  # a door: this connection is not served, the listener goes on
                log.exception("connection not served", error, peer=str(peer))
                if sock.fileno() >= 0:
                    net.forget(sock)
                sock.close()

    def go_on() -> None:
        if listening.fileno() >= 0:
            net.watch(listening, accept)

    go_on()


class SocketBuffers(NamedTuple):
    """Bytes that the system keeps for each connection; -1: as it sees fit, which grows with what is in flight."""

    send: int = -1
    receive: int = -1


SYSTEMS_CHOICE = SocketBuffers()


def bind(host: str, port: int, buffers: SocketBuffers = SYSTEMS_CHOICE) -> socket.socket:
    """A listening socket on a numeric address; OSError where it cannot be had. Port 0: any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # :: means both families, as it does for Kafka; a named IPv6 address means itself
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        # accepted sockets have what the listening one has, and it must have it before: TCP tells its window at the start
        for name, size in ((socket.SO_SNDBUF, buffers.send), (socket.SO_RCVBUF, buffers.receive)):
            if size >= 0:
                sock.setsockopt(socket.SOL_SOCKET, name, size)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def broke(error: BaseException) -> None:
    """A `Turn`'s `on_broken`."""
    log.exception("a failure could not be told to what had failed", error)
