"""`kbroker start` as a process of its own, to be killed, stopped and started again on the same folder and port."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

from kbroker.testing import ExternalBroker
from kbroker.testing.external import Wire
from tests.support.peers import ROOT, free_ports

LIMIT_S = 60.0
CLEAN_MARKER = ".kafka_cleanshutdown"


class BrokerProcess:
    """One broker: its folder and port stay, its processes come and go."""

    def __init__(self, folder: Path, *, data: Path | None = None, **settings: str) -> None:
        self.data = data or folder / "data"
        self.log = folder / "broker.log"
        self.port = free_ports(1)[0]
        self.starts = 0
        self._settings = {name.replace("_", "."): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Begin to start it."""
        argv = [sys.executable, "-P", "-m", "kbroker", "start", "--port", str(self.port)]
        argv += ["--data-dir", str(self.data)]
        for name, value in self._settings.items():
            argv += ["--set", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT
            )

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.spawn()
        assert self._serves(), f"kbroker does not serve:\n{self.log_text()[-3000:]}"
        self.starts += 1

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return bool(selector.select(LIMIT_S)) and bool(self._process.stdout.readline())

    def send(self, number: signal.Signals) -> None:
        """A signal; it need not end it."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        process, self._process = self._process, None
        assert process is not None
        status = process.wait(LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()
        return status

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it if it still runs."""
        if self._process is not None:
            self.kill()

    def wire(self) -> Wire:
        """A new connection to it."""
        return Wire(("127.0.0.1", self.port))

    def admin(self) -> ExternalBroker:
        """Topics and records over the network."""
        return ExternalBroker(self.bootstrap_servers)

    def log_text(self) -> str:
        """All it logged, in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
