"""Stock clients in real processes against one broker process: kbroker, or Apache Kafka by `--peer=kafka`.

The broker and the clients' processes live as long as the test session; a broker that died is started anew, so that one
failure does not become a hundred.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat import registry
from tests.compat.driver import Client
from tests.compat.group import leave_all
from tests.support import raw, raw_client, raw_members
from tests.support.peers import Certificates, Endpoint, Peer, start_peer

HERE = Path(__file__).parent
PEERS = ("kbroker", "kafka")
TEST_S_MAX = 300.0  # several of the waits below it, each at its end: a machine may stand still for long
ANSWER_S_MAX = 60.0  # of a raw client's request
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--peer`, where this folder is named on the command line; KBROKER_COMPAT_PEER works everywhere."""
    parser.addoption(
        "--peer", choices=PEERS, help="the broker under test (default: $KBROKER_COMPAT_PEER or kbroker)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's limit counts its own body: what it stands on, above all building a helper program for the first time,
    downloads included, has limits of its own."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S_MAX, func_only=True))


@pytest.fixture(scope="session")
def peer_kind(request: pytest.FixtureRequest) -> str:
    """kbroker or kafka."""
    kind = request.config.getoption("--peer", None) or os.environ.get("KBROKER_COMPAT_PEER", "kbroker")
    if kind not in PEERS:
        raise pytest.UsageError(f"KBROKER_COMPAT_PEER={kind}: choose one of {', '.join(PEERS)}")
    return str(kind)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The throw-away authority that the brokers' certificates come from."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


class _Peers:
    """One broker, started on first use and again after it died."""

    def __init__(self, kind: str, folder: Path, certificates: Certificates, settings: dict[str, str]) -> None:
        self._make = lambda: start_peer(kind, folder, certificates, settings)
        self._peer: Peer | None = None

    def get(self) -> Peer:
        """The broker, alive."""
        if self._peer is None:
            self._peer = self._make()
        elif not self._peer.alive:
            self._peer.restart()
        return self._peer

    def close(self) -> None:
        """Stop it."""
        if self._peer is not None:
            self._peer.close()


@pytest.fixture(scope="session")
def peers(
    peer_kind: str, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, _Peers]]:
    """The brokers of this session: the usual one, and one that creates no topics by itself."""
    made = {
        "usual": _Peers(peer_kind, tmp_path_factory.mktemp("usual"), certificates, {}),
        "strict": _Peers(
            peer_kind, tmp_path_factory.mktemp("strict"), certificates, {"auto.create.topics.enable": "false"}
        ),
    }
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def peer(peers: dict[str, _Peers]) -> Peer:
    """The broker under test."""
    return peers["usual"].get()


@pytest.fixture
def strict_peer(peers: dict[str, _Peers]) -> Peer:
    """A broker with auto.create.topics.enable=false."""
    return peers["strict"].get()


@pytest.fixture
def at(peer: Peer) -> Endpoint:
    """Where the broker serves plain text."""
    return peer.plain


class _Clients:
    """The clients' processes, each started on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Client] = {}

    def get(self, name: str) -> Client:
        """The client; ends the test when it is not installed."""
        if name not in self._running:
            self._running[name] = registry.start(name, self._folder)
        return self._running[name]

    def installed(self, *abilities: str) -> list[Client]:
        """The clients that can do this and are there."""
        found = []
        for name in registry.names(*abilities):
            try:
                found.append(self.get(name))
            except pytest.skip.Exception:  # its own tests say that it is missing
                continue
        return found

    def close(self) -> None:
        """End them all."""
        for client in self._running.values():
            client.close()


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Clients]:
    """Every client, by name."""
    made = _Clients(tmp_path_factory.mktemp("clients"))
    yield made
    made.close()


@pytest.fixture
def client(request: pytest.FixtureRequest, clients: _Clients) -> Client:
    """The client that this test is about: see `each_client`."""
    return clients.get(request.param)


@pytest.fixture(autouse=True)
def _raw_clients_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the JVMs of these tests an answer takes longer, now and then, than raw clients wait elsewhere."""
    for module in (raw_client, raw, raw_members):
        monkeypatch.setattr(module, "LIMIT_S", ANSWER_S_MAX)


@pytest.fixture(autouse=True)
def _members_end_with_their_test() -> Iterator[None]:
    yield
    leave_all()


@pytest.fixture
def helper(clients: _Clients) -> Client:
    """A client that does what the test needs beside its subject."""
    return clients.get("confluent")


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name nobody has used."""
    words = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")
    return f"{words[:80]}-{os.getpid()}-{next(_numbers)}"
