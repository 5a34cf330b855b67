"""The two brokers behind one interface: start, stop, where they listen, what they cost. Nothing of what is measured."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import machine
from bench.client import Address, trusting
from tools.kafka import Kafka, free_port

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ROOT / ".cache" / "compiled" / "lib"  # where `make compiled` puts it
START_S_MAX = 60
STOP_S_MAX = 30

# The heap that Kafka's own start script gives it.
KAFKA_HEAP = "1g"

# Both get these. Deleted topics leave the disk and the page cache at once, before the next measurement.
# Groups do not wait for more members, and their topic has as many partitions in both.
SHARED_CONFIG = {
    "log.segment.delete.delay.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "8",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and its self-signed certificate for localhost, PEM files."""

    chain: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """By openssl: RSA 2048, as most brokers have it."""
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made


class Peer(Protocol):
    """A broker that can be started, once or again with an empty folder."""

    name: str

    @property
    def pid(self) -> int: ...

    @property
    def plain(self) -> Address: ...

    @property
    def tls(self) -> Address: ...

    def prepare(self) -> None:
        """What is done once and not part of a start: folders, config, Kafka's formatting."""

    def launch(self) -> None:
        """Start the process; does not wait."""

    def end(self) -> None:
        """Stop it and remove its data."""


def start(peer: Peer) -> None:
    """Start with an empty folder and wait until it accepts."""
    peer.prepare()
    peer.launch()
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if not alive(peer):
            break
        try:
            socket.create_connection(("127.0.0.1", peer.plain.port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    peer.end()
    raise RuntimeError(f"{peer.name} did not serve; its output is above")


def alive(peer: Peer) -> bool:
    """Has its process not ended by itself?"""
    return Path(f"/proc/{peer.pid}/exe").exists()


class ApacheKafka:
    """Apache Kafka, with the files and ports that `tools.kafka` gives it."""

    name = "kafka"

    def __init__(
        self, folder: Path, certificate: Certificate | None, *, config: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder / "kafka"
        self._certificate = certificate
        self._config = config or {}
        self._broker: Kafka | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def plain(self) -> Address:
        return Address(self._running.port)

    @property
    def tls(self) -> Address:
        assert self._certificate is not None, "started without a certificate"
        return Address(self._running.tls_port, trusting(str(self._certificate.chain)))

    @property
    def _running(self) -> Kafka:
        assert self._broker is not None, "not prepared"
        return self._broker

    def prepare(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        pem = (self._certificate.chain, self._certificate.key) if self._certificate else None
        # The one cipher suite that an OpenSSL server takes by itself too.
        suite = (
            {"ssl.cipher.suites": "TLS_AES_256_GCM_SHA384", "ssl.enabled.protocols": "TLSv1.3"} if pem else {}
        )
        self._broker = Kafka(
            folder=self._folder, tls=pem, heap=KAFKA_HEAP, config={**SHARED_CONFIG, **self._config, **suite}
        )
        self._broker.prepare()

    def launch(self) -> None:
        self._running.start(wait=False)

    def end(self) -> None:
        if self._broker is not None:
            if self._broker.pid and not alive(self):
                sys.stderr.write(self._broker.log_text()[-2000:])
            self._broker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class Kbroker:
    """kbroker from folder `code`, run by the Python that is asked for."""

    name = "kbroker"

    def __init__(
        self,
        folder: Path,
        certificate: Certificate | None,
        *,
        python: str = sys.executable,
        code: Path = ROOT,
        fsync: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder / "kbroker"
        self._certificate = certificate
        self._python = python
        self._code = code
        self._fsync = fsync
        self._config = config or {}
        self._port = self._tls_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def plain(self) -> Address:
        return Address(self._port)

    @property
    def tls(self) -> Address:
        assert self._certificate is not None, "started without a certificate"
        return Address(self._tls_port, trusting(str(self._certificate.chain)))

    def prepare(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._port, self._tls_port = free_port(), free_port()

    def launch(self) -> None:
        command = [self._python, "-m", "kbroker", "start", "--data-dir", str(self._folder / "data")]
        for name, value in self._settings().items():
            command += ["--set", f"{name}={value}"]
        if self._certificate is None:
            command += ["--port", str(self._port)]
        with (self._folder / "kbroker.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._code,  # `python -m` looks there first
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_clean_environment(),
            )

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.returncode not in (0, -15):
                log = (self._folder / "kbroker.log").read_text(errors="replace")
                sys.stderr.write(f"kbroker ended with {self._process.returncode}:\n{log[-2000:]}\n")
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _settings(self) -> Mapping[str, str]:
        settings = {
            **SHARED_CONFIG,
            "kbroker.fsync.before.ack": "true" if self._fsync else "false",
            **self._config,
        }
        if self._certificate is not None:
            both = self._folder / "server.pem"
            both.write_text(self._certificate.key.read_text() + self._certificate.chain.read_text())
            both.chmod(0o600)
            listeners = f"PLAINTEXT://127.0.0.1:{self._port},SSL://127.0.0.1:{self._tls_port}"
            settings |= {"listeners": listeners, "advertised.listeners": listeners}
            settings |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(both)}
            settings |= {"ssl.enabled.protocols": "TLSv1.3"}
        return settings


def _clean_environment() -> dict[str, str]:
    """Ours, without what would change how Python runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class Meter:
    """The server's CPU between two moments."""

    __slots__ = ("_before", "_peer")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._before = machine.cpu_s(peer.pid)

    def cpu_s(self) -> float:
        return machine.cpu_s(self._peer.pid) - self._before
