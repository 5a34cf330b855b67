"""Where a broker listens: all of its listeners or none, and what became of the sockets at the end."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.config import Settings
from kbroker.errors import StartError
from kbroker.server.endpoints import Endpoints
from tests.support.storage import ManualClock


class Net:
    """Notes what it is to watch, and what no more."""

    def __init__(self) -> None:
        self.watched: dict[Any, Any] = {}

    def accept(self, sock: Any, on_socket: Any) -> None:
        self.watched[sock] = on_socket

    def forget(self, sock: Any) -> None:
        del self.watched[sock]


def endpoints(net: Net, *ports: int) -> Endpoints:
    listeners = [f"L{number}://127.0.0.1:{port}" for number, port in enumerate(ports)]
    settings = Settings.load(
        {
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(each.replace(":0", ":1234") for each in listeners),
            "listener.security.protocol.map": ",".join(
                f"L{number}:PLAINTEXT" for number in range(len(ports))
            ),
            "inter.broker.listener.name": "L0",
        }
    )
    return Endpoints(settings, net=net, clock=ManualClock())


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_its_endpoints_have_real_ports_from_the_binding_on():
    net = Net()
    one = endpoints(net, 0, 0)
    assert () == one.bound

    one.bind()

    ports = [endpoint.port for endpoint in one.bound]
    assert ["L0", "L1"] == [endpoint.listener for endpoint in one.bound]
    assert [True, True] == [is_open(port) for port in ports]
    one.close()
    assert [False, False] == [is_open(port) for port in ports]
    assert ports == [endpoint.port for endpoint in one.bound]


def test_where_one_listener_cannot_be_none_stays_open(monkeypatch):
    made: list[socket.socket] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        one = endpoints(Net(), 0, taken.getsockname()[1])
        listen = socket.socket.listen
        monkeypatch.setattr(
            socket.socket, "listen", lambda sock, *rest: made.append(sock) or listen(sock, *rest)
        )
        with pytest.raises(StartError, match="is taken"):
            one.bind()

    assert [-1] == [sock.fileno() for sock in made[:1]]
    assert () == one.bound


def test_who_comes_in_is_told_by_which_listener_until_it_is_closed():
    net, came = Net(), []
    one = endpoints(net, 0, 0)
    one.bind()
    assert {} == net.watched

    def add(sock: Any, address: Any, listener: str, dispatcher: Any, secure: Any) -> None:
        came.append((sock, address, listener, dispatcher, secure))

    one.serve(SimpleNamespace(add=add), "dispatcher")
    for on_socket in net.watched.values():
        on_socket("socket", "address")

    assert [("socket", "address", name, "dispatcher", None) for name in ("L0", "L1")] == came
    for _ in range(2):
        one.close()
    assert {} == net.watched
