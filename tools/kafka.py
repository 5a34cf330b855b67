"""Apache Kafka 4.3 on loopback: one KRaft broker, to test and measure against. Knows nothing of kbroker.

    python -m tools.kafka install              jars from Maven Central into .cache/kafka/libs (about 120 MB)
    python -m tools.kafka start [--port 9092]  a broker in the background; prints its address
    python -m tools.kafka stop [--port N]      ends it (without a port: every broker started from here)
    python -m tools.kafka run CLASS ARGS...    a Kafka tool, e.g. org.apache.kafka.tools.DumpLogSegments

In Python: `with Kafka() as peer: peer.bootstrap_servers`, and `run(CLASS, *ARGS)`. Needs java and, for the download,
mvn (Debian: apt install maven default-jre-headless).
"""

# ruff: noqa: TID251, T201 -- a command line: it waits by the clock and prints

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parent / ".cache" / "kafka"
POM = HERE / "kafka-pom.xml"  # which jars
LIBS = HOME / "libs"  # them, and a copy of POM, written last
RUNNING = HOME / "running"  # one <port>.json per broker: its pid and folder

INSTALL_S_MAX = 900
START_S_MAX = 60
STOP_S_MAX = 20

# A small JVM that still serves a test suite; the benchmark asks for more.
HEAP = "512m"

# As Kafka's own start script has them.
JVM_FLAGS = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
)

LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d %p %m (%c)%n%throwable"/></Console>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""

# What makes a single broker behave in tests as a cluster does in production: internal topics with one replica,
# no wait for a group's first members. Everything else stays at Kafka's own defaults.
SINGLE_BROKER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
}


class KafkaUnavailable(RuntimeError):
    """Kafka cannot run here; the sentence names what is missing and the command that mends it."""


def missing() -> str | None:
    """Why Kafka cannot be started here without a download, or None when it can."""
    if shutil.which("java") is None:
        return "java is not installed: apt install default-jre-headless"
    if not _installed():
        return "Apache Kafka's jars are not here: python -m tools.kafka install"
    return None


def _installed() -> bool:
    there = LIBS / POM.name
    return there.is_file() and there.read_bytes() == POM.read_bytes()


def install() -> Path:
    """Download the jars unless they are there. Safe to call from several processes at once."""
    if _installed():
        return LIBS
    if shutil.which("mvn") is None:
        raise KafkaUnavailable("mvn is not installed: apt install maven default-jre-headless")
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed():
            _download()
    return LIBS


def _download() -> None:
    # Into a folder of its own, moved when complete: a half-done download is never taken for Kafka. Jars that stay are not
    # touched: somebody may run them.
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        work = Path(folder)
        shutil.copy(POM, work / "pom.xml")
        copy = ["mvn", "-B", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'libs'}"]
        done = subprocess.run(copy, cwd=work, capture_output=True, text=True, timeout=INSTALL_S_MAX)
        if done.returncode != 0:
            raise KafkaUnavailable(f"mvn could not download Apache Kafka:\n{done.stdout}{done.stderr}")
        wanted = {jar.name: jar for jar in (work / "libs").iterdir()}
        LIBS.mkdir(exist_ok=True)
        for jar in LIBS.iterdir():
            if jar.name not in wanted:
                jar.unlink()
        for name, jar in wanted.items():
            if not (LIBS / name).exists():
                jar.rename(LIBS / name)
        (work / "pom.xml").rename(LIBS / POM.name)


def java(main_class: str, *args: str, heap: str = "256m", log4j: Path | None = None) -> list[str]:
    """The command line that runs a class from Kafka's jars."""
    if why := missing():
        raise KafkaUnavailable(why)
    if log4j is None:
        log4j = HOME / "log4j2.xml"
        if not log4j.exists():
            log4j.write_text(LOG4J)
    return [
        "java",
        f"-Xmx{heap}",
        f"-Dlog4j2.configurationFile={log4j}",
        *JVM_FLAGS,
        "-cp",
        f"{LIBS}/*",
        main_class,
        *args,
    ]


def run(
    main_class: str, *args: str, stdin: str | None = None, timeout: float = 120, heap: str = "256m"
) -> subprocess.CompletedProcess[str]:
    """Run one of Kafka's tools to its end; its output is captured."""
    install()
    return subprocess.run(
        java(main_class, *args, heap=heap), input=stdin, capture_output=True, text=True, timeout=timeout
    )


class Kafka:
    """One broker, also its own controller. `with Kafka() as peer:`, or start() and stop(); may be started again.

    `folder` keeps data, config and log (default: a temporary one, removed at the end). `tls` is (certificate chain,
    PKCS#8 key), both PEM files: adds an SSL listener. `config` overrides anything. `features` have these levels, others
    Kafka's own.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        folder: Path | None = None,
        config: Mapping[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
        tls_port: int = 0,
        heap: str = HEAP,
        features: Mapping[str, int] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.tls_port = (tls_port or free_port()) if tls else 0
        self.controller_port = free_port()
        self.pid = 0
        self._keep = folder is not None
        self._folder = folder
        self._config = dict(config or {})
        self._tls = tls
        self._heap = heap
        self._features = dict(features or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def tls_bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.tls_port}"

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder

    @property
    def data_dir(self) -> Path:
        """The log directory: a folder per partition."""
        return self.folder / "data"

    def log_text(self) -> str:
        """What the broker wrote to its output."""
        return (self.folder / "kafka.log").read_text(errors="replace")

    def __enter__(self) -> Kafka:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Everything that comes before the broker's own start: jars, folder, config, a formatted data folder."""
        install()
        if self._folder is None:
            HOME.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f"broker-{self.port}-", dir=HOME))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(LOG4J)
        (self.folder / "server.properties").write_text(
            "".join(f"{k}={v}\n" for k, v in self._properties().items())
        )
        if not (self.data_dir / "meta.properties").exists():
            self._format()

    def start(self, *, wait: bool = True) -> None:
        """Start the broker and, unless told otherwise, wait until its port answers."""
        assert self._process is None, "already running"
        _refuse_taken(self.port, self.tls_port, self.controller_port)
        self.prepare()
        command = java(
            "kafka.Kafka", str(self._server_properties), heap=self._heap, log4j=self.folder / "log4j2.xml"
        )
        command.insert(1, f"-Xms{self._heap}")
        with (self.folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid
        _note(self)
        if wait:
            self.wait_until_serving()

    def wait_until_serving(self) -> None:
        """Until the clients' port accepts."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        text = self.log_text()
        self.kill()
        raise KafkaUnavailable(f"Kafka did not serve within {START_S_MAX} s:\n{text[-4000:]}")

    def stop(self) -> None:
        """End it as SIGTERM does: cleanly. The data stays for another start()."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop, and remove the folder if it was ours."""
        self.stop()
        if not self._keep and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S_MAX)
        self._process, self.pid = None, 0
        (RUNNING / f"{self.port}.json").unlink(missing_ok=True)

    @property
    def _server_properties(self) -> Path:
        return self.folder / "server.properties"

    def _properties(self) -> dict[str, str]:
        listeners = f"PLAINTEXT://127.0.0.1:{self.port}"
        tls: dict[str, str] = {}
        if self._tls is not None:
            listeners += f",SSL://127.0.0.1:{self.tls_port}"
            tls = self._tls_properties(*self._tls)
        return {
            **SINGLE_BROKER,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
            "log.dirs": str(self.data_dir),
            **tls,
            **self._config,
        }

    def _tls_properties(self, chain: Path, key: Path) -> dict[str, str]:
        # Kafka wants key and chain in one file.
        both = self.folder / "server.pem"
        both.write_text(key.read_text() + chain.read_text())
        both.chmod(0o600)
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(both)}

    def _format(self) -> None:
        # Kafka's form of a UUID. Its first six bits are zero: an id that begins with "-" is read as an option.
        cluster_id = urlsafe_b64encode(bytes((os.urandom(1)[0] & 3,)) + os.urandom(15)).decode().rstrip("=")
        levels = [arg for name, level in self._features.items() for arg in ("--feature", f"{name}={level}")]
        what = ("-t", cluster_id, "-c", str(self._server_properties), *levels)
        done = run("kafka.tools.StorageTool", "format", *what)
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka could not format its folder:\n{done.stdout}{done.stderr}")


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(*ports: int) -> None:
    """Who listens there would be taken for the Kafka that is started."""
    for port in filter(None, ports):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise KafkaUnavailable(
                    f"port {port} cannot be had ({error.strerror}): choose another"
                ) from None


def _note(broker: Kafka) -> None:
    RUNNING.mkdir(parents=True, exist_ok=True)
    facts = {"pid": broker.pid, "folder": str(broker.folder)}
    (RUNNING / f"{broker.port}.json").write_text(json.dumps(facts))


def _running() -> Iterator[tuple[int, int, Path]]:
    """(port, pid, folder) of the brokers started from here that still run."""
    for note in sorted(RUNNING.glob("*.json")):
        facts = json.loads(note.read_text())
        # A pid may have gone to somebody else: it is ours only if its command line names the broker's folder.
        command = Path(f"/proc/{facts['pid']}/cmdline")
        if command.exists() and facts["folder"].encode() in command.read_bytes():
            yield int(note.stem), int(facts["pid"]), Path(facts["folder"])
        else:
            note.unlink(missing_ok=True)


def stop_running(port: int | None) -> list[int]:
    """Stop what `start` left in the background; returns the ports."""
    stopped = []
    for its_port, pid, _ in list(_running()):
        if port is None or port == its_port:
            _terminate(pid)
            (RUNNING / f"{its_port}.json").unlink(missing_ok=True)
            stopped.append(its_port)
    return stopped


def _terminate(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(STOP_S_MAX * 10):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.kafka", description="Apache Kafka on loopback, to test and measure against."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="download the jars")
    start = verbs.add_parser("start", help="start a broker in the background")
    start.add_argument("--port", type=int, default=9092)
    start.add_argument("--folder", type=Path, help="keeps data, config and log (default: under .cache/kafka)")
    start.add_argument("--heap", default=HEAP)
    start.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    stop = verbs.add_parser("stop", help="stop what was started")
    stop.add_argument("--port", type=int)
    tool = verbs.add_parser("run", help="run a tool class")
    tool.add_argument("main_class", metavar="CLASS")
    tool.add_argument("args", nargs=argparse.REMAINDER)
    asked = parser.parse_args(argv)
    try:
        return _obey(asked)
    except KafkaUnavailable as why:
        print(why, file=sys.stderr)
        return 1


def _obey(asked: argparse.Namespace) -> int:
    if asked.verb == "install":
        print(install())
    elif asked.verb == "start":
        config = dict(setting.split("=", 1) for setting in asked.settings)
        folder = asked.folder or HOME / f"broker-{asked.port}"
        broker = Kafka(port=asked.port, folder=folder, config=config, heap=asked.heap)
        broker.start()
        print(broker.bootstrap_servers)
    elif asked.verb == "stop":
        for port in stop_running(asked.port):
            print(f"stopped 127.0.0.1:{port}")
    else:
        install()
        return subprocess.call(java(asked.main_class, *asked.args))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
