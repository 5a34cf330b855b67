"""Brokers as real processes for the compat tests: kbroker, or Apache Kafka as the reference, with the same listeners.

Both take the same `server.properties` lines. PLAINTEXT and SSL are for clients; RECORDED is advertised with the
address of a RecordingProxy, so that a client that came in through the proxy stays behind it.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from tests.support.clients import require
from tests.support.recording_proxy import RecordingProxy
from tools.kafka import Kafka

START_LIMIT_S = 60.0  # a JVM on a busy two-core machine; kbroker needs well under one second
STOP_LIMIT_S = 60.0
# Scenarios write records of years ago, which the retention of a week would delete whenever it looks.
RETENTION_CHECK_MS = 24 * 3_600_000
ROOT = Path(__file__).resolve().parents[2]
KAFKA_HINT = (
    "bash tools/kafka.sh install  (needs maven and a JDK: apt-get install maven openjdk-17-jdk-headless)"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client connects: `servers` is host:port; `ca` the PEM file to trust, None for plain text."""

    servers: str
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """A throw-away authority (`ca`) and a broker's key and chain in one file, PEM, key in PKCS#8 as Kafka wants it."""

    ca: Path
    keystore: Path

    @staticmethod
    def make(folder: Path) -> Certificates:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        parts = [
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            *(blob.bytes() for blob in issued.cert_chain_pems),
        ]
        made = Certificates(folder / "ca.pem", folder / "keystore.pem")
        made.keystore.write_bytes(b"".join(parts))
        authority.cert_pem.write_to_path(str(made.ca))
        return made


class Peer:
    """One broker process; `restart` keeps its data and ports."""

    name = "?"

    def __init__(self, folder: Path, certificates: Certificates, settings: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder / "broker.log"
        plain, tls, recorded, self._spare = free_ports(4)
        self.proxy = RecordingProxy(("127.0.0.1", recorded))
        self.plain = Endpoint(f"127.0.0.1:{plain}")
        self.tls = Endpoint(f"127.0.0.1:{tls}", str(certificates.ca))
        self.recorded = Endpoint(f"127.0.0.1:{self.proxy.port}")
        self.port = plain
        self.settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{tls},RECORDED://127.0.0.1:{recorded}",
            "advertised.listeners": f"PLAINTEXT://{self.plain.servers},SSL://{self.tls.servers},"
            f"RECORDED://{self.recorded.servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SSL:SSL,RECORDED:PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificates.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.ca),
            "group.initial.rebalance.delay.ms": "0",
            "log.retention.check.interval.ms": str(RETENTION_CHECK_MS),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        raise NotImplementedError

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not end it in time."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_LIMIT_S)
        if process.stdout is not None:
            process.stdout.close()

    def kill(self) -> None:
        """SIGKILL: it ends as in a crash of its process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(STOP_LIMIT_S)
        if process.stdout is not None:
            process.stdout.close()

    def restart(self) -> None:
        """Stop and start on the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self.proxy.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines it logged, for a failure's message."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )

    def _write_properties(self, extra: dict[str, str]) -> Path:
        path = self.folder / "server.properties"
        lines = [f"{name}={value}" for name, value in {**self.settings, **extra}.items()]
        path.write_text("\n".join(lines) + "\n")
        return path


class KbrokerPeer(Peer):
    """`python -m kbroker start`: what a user starts, with a config file."""

    name = "kbroker"

    def start(self) -> None:
        properties = self._write_properties({})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(properties), stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT
            )
        if not _line_within(self._process, START_LIMIT_S):
            self.stop()
            raise AssertionError(
                f"kbroker said nothing on stdout within {START_LIMIT_S} s:\n{self.log_tail()}"
            )

    def argv(self, properties: Path) -> list[str]:
        """The command line."""
        argv = [sys.executable, "-P", "-m", "kbroker", "start", "--port", str(self.port)]
        return [*argv, "--data-dir", str(self.folder / "data"), "--config", str(properties)]


class KafkaPeer(Peer):
    """Apache Kafka in KRaft mode, broker and controller in one process; without groups of the new kind."""

    name = "kafka"

    def __init__(self, folder: Path, certificates: Certificates, settings: dict[str, str]) -> None:
        super().__init__(folder, certificates, settings)
        self.log = folder / "kafka.log"
        self._kafka = Kafka(
            port=self.port, folder=folder, config=self._with_controller(), features={"group.version": 0}
        )

    def _with_controller(self) -> dict[str, str]:
        protocols = self.settings["listener.security.protocol.map"]
        return {
            **self.settings,
            "log.initial.task.delay.ms": str(RETENTION_CHECK_MS),
            "controller.quorum.voters": f"1@127.0.0.1:{self._spare}",
            "listeners": f"{self.settings['listeners']},CONTROLLER://127.0.0.1:{self._spare}",
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }

    def start(self) -> None:
        """Start it; its own helper waits for the port."""
        self._kafka.start()

    def stop(self) -> None:
        """SIGTERM."""
        self._kafka.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._kafka.kill()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._kafka.pid != 0 and Path(f"/proc/{self._kafka.pid}").exists()


_ports = random.Random(os.getpid())


def free_ports(count: int) -> list[int]:
    """`count` ports nobody uses, below the range from which the system takes ports for outgoing connections: a client's
    connection must not sit on a port that a restarting broker wants back. Each call goes on where the last one ended: a
    broker that is down at the moment wants its ports back too."""
    ports: list[int] = []
    while len(ports) < count:
        port = _ports.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _line_within(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """The first line on stdout, or b"" when the process ended or said nothing in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(limit_s):
            return b""
    return process.stdout.readline()


def start_peer(kind: str, folder: Path, certificates: Certificates, settings: dict[str, str]) -> Peer:
    """A running peer of `kind` (kbroker or kafka); a failed start leaves its log in the message."""
    if kind == "kafka":
        require("java", "apt-get install default-jdk-headless maven")
    peer: Peer = {"kbroker": KbrokerPeer, "kafka": KafkaPeer}[kind](folder, certificates, settings)
    try:
        peer.start()
    except BaseException:
        peer.close()
        raise
    return peer
