"""Which clients there are, what each can do, and how each is built and started. Knows no scenario."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.compat.console import Console
from tests.compat.driver import Client, DriverClient
from tests.compat.kcat import Kcat
from tests.support.clients import require
from tools import kafka

DRIVERS = Path(__file__).parent / "drivers"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "compat"  # helper programs, built once per source
NODE_MIN = (22, 15)  # the first with zstd
GO_MIN = (1, 26)  # as drivers/go/go.mod says
BUILD_S_MAX = 500  # downloads included: Go takes 160 s with empty caches on two busy cores
ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

# What a client can take part in. Left out is what its API does not offer.
EVERYTHING = frozenset(
    {
        "metadata",  # list topics and brokers
        "topics",  # create and delete topics
        "delete_records",
        "configs",  # describe and alter them
        "produce",
        "timestamps",  # the user may set a record's timestamp
        "record headers",  # a record's own headers, not one set for a whole call
        "null headers",  # a header's value may be null
        "tells null",  # null and empty differ in what it reads
        "idempotent",
        "transactions",
        "tiny",  # a request per record, several in flight
        "consume",  # from an assigned partition, without a group
        "offset",  # beginning and end
        "offset by time",
        "committed",  # read_committed
        "binary",  # any bytes as key and value, null and empty too
        "out of range",  # says so when its offset is beyond the end
        "codes",  # an error names Kafka's code
        "tls",
        "recorded",  # speaks through the recording proxy
    }
)
GROUPS = frozenset(
    {
        "groups",  # be a member of a group, commit by itself
        "commits",  # commit when told to
        "commits epochs",  # with the leader epoch of what it read
        "tells epochs",  # of what a group committed
        "commit metadata",  # with words of the user's
        "static members",  # and do not leave the group when they are closed
        "fenced",  # says so when another came in its name
        "cooperative",
        "reads on",  # while its join of a cooperative group waits for others
        "revoked",  # tells which partitions were taken away
        "many members",  # at little cost in one process
        "group admin",  # list and describe groups, read their offsets
        "delete groups",
        "alter offsets",
        "delete offsets",
    }
)
EPOCHS = frozenset({"commits epochs", "tells epochs"})
NEW_GROUPS = frozenset({"new groups"})  # by KIP-848, when told so
RESTART = frozenset({"restart"})  # also takes part in the scenarios that restart the broker


@dataclass(frozen=True, slots=True)
class Spec:
    """A client under test. `argv()` builds what must be built and gives the driver's command line; it ends the test,
    visibly, when the client is not installed."""

    argv: Callable[[], list[str]]
    can: frozenset[str] = EVERYTHING
    codecs: tuple[str, ...] = ALL_CODECS
    cannot_read: tuple[str, ...] = ()  # codecs in the framing that some other clients use
    # what it negotiates with us and with Kafka 4.3
    versions: Mapping[str, set[int]] = field(default_factory=dict)
    group_versions: Mapping[str, set[int]] = field(default_factory=dict)


def _python(script: str, module: str, package: str) -> Callable[[], list[str]]:
    def argv() -> list[str]:
        require(module, f"pip install {package}")
        return [sys.executable, str(DRIVERS / script)]

    return argv


def _kcat() -> list[str]:
    return [require("kcat", "apt-get install kcat")]


def _console() -> list[str]:
    if why := kafka.missing():
        require("Kafka's console consumer", why.partition(": ")[2], found=False)
    command = kafka.java("org.apache.kafka.tools.consumer.ConsoleConsumer")
    return [command[0], "-XX:TieredStopAtLevel=1", *command[1:]]


def java_classes(name: str, sources: list[Path]) -> Path:
    """The folder with what `sources` are compiled to."""
    require("javac", "apt-get install default-jdk-headless")
    if why := kafka.missing():
        require("Apache Kafka's jars", why.partition(": ")[2], found=False)
    options = ["-nowarn", "-proc:none", "-cp", f"{kafka.LIBS}/*"]
    return built(
        name, sources, lambda out: ["javac", *options, "-d", str(out), *(str(source) for source in sources)]
    )


def _java() -> list[str]:
    classes = java_classes("java", sorted(DRIVERS.glob("*.java")))
    command = kafka.java("Driver")
    command[command.index("-cp") + 1] += f":{classes}"
    return [command[0], "-XX:TieredStopAtLevel=1", *command[1:]]


def require_go() -> None:
    """Go is here, new enough, or this test ends."""
    found = _version("go", "env", "GOVERSION") >= GO_MIN
    require("go", f"install Go {GO_MIN[0]}.{GO_MIN[1]} or newer", found=found)


def _go(client: str) -> Callable[[], list[str]]:
    def argv() -> list[str]:
        require_go()
        sources = sorted((DRIVERS / "go").glob("*.*"))
        folder = built(
            "go", sources, lambda out: ["go", "build", "-o", str(out / "driver"), "."], DRIVERS / "go"
        )
        return [str(folder / "driver"), client]

    return argv


def _node(script: str) -> Callable[[], list[str]]:
    def argv() -> list[str]:
        npm = require("npm", "apt-get install nodejs npm")
        sources = sorted((DRIVERS / "node").glob("*.js*"))

        def install(out: Path) -> list[str]:
            for source in sources:
                shutil.copy(source, out)
            return [
                npm,
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--fetch-retries=5",
                "--prefix",
                str(out),
            ]

        folder = built("node", sources, install)
        # the Node that package.json brings, for Linux: Debian's is too old for @platformatic/kafka
        brought = next(folder.glob("node_modules/node-linux-*/bin/node"), None)
        if brought is not None:
            return [str(brought), str(folder / script)]
        found = _version("node", "--version") >= NODE_MIN
        return [
            require("node", f"install Node {NODE_MIN[0]}.{NODE_MIN[1]} or newer", found=found),
            str(folder / script),
        ]

    return argv


def _version(program: str, *args: str) -> tuple[int, int]:
    """Major and minor version of a program; (0, 0) when it is not there."""
    if shutil.which(program) is None:
        return (0, 0)
    told = subprocess.run([program, *args], capture_output=True, text=True, timeout=120, cwd=DRIVERS).stdout
    found = re.search(r"(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def built(name: str, sources: list[Path], command: Callable[[Path], list[str]], cwd: Path = DRIVERS) -> Path:
    """The folder where `command(folder)` built a helper from `sources`: once for each state of them."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    if not folder.exists():
        work = CACHE / f"{name}-{digest}.building"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        done = subprocess.run(command(work), cwd=cwd, capture_output=True, text=True, timeout=BUILD_S_MAX)
        assert 0 == done.returncode, f"building {name} failed:\n{done.stdout}{done.stderr}"
        work.rename(folder)
    return folder


def _group_versions(
    commit: int, fetch: int, find: int, join: int, beat: int, leave: int, sync: int
) -> dict[str, set[int]]:
    return {
        "OffsetCommit": {commit},
        "OffsetFetch": {fetch},
        "FindCoordinator": {find},
        "JoinGroup": {join},
        "Heartbeat": {beat},
        "LeaveGroup": {leave},
        "SyncGroup": {sync},
    }


CLIENTS = {
    "kcat": Spec(
        _kcat,
        can=frozenset(
            {
                *("metadata", "produce", "idempotent", "tiny", "consume", "offset", "offset by time"),
                *("committed", "tls", "recorded", "groups", "static members"),
            }
        ),
        versions={"Produce": {7}, "Fetch": {11}, "Metadata": {4}},
        group_versions=_group_versions(7, 7, 2, 5, 3, 1, 3),
    ),
    "kafka-python": Spec(
        _python("kafka_python_driver.py", "kafka", "kafka-python python-snappy lz4 zstandard"),
        can=EVERYTHING - {"null headers"} | RESTART | GROUPS - {"many members", "reads on"},
        versions={"Produce": {9}, "Fetch": {12}, "Metadata": {13}},
        group_versions=_group_versions(8, 8, 6, 7, 4, 5, 5),
    ),
    "confluent": Spec(
        _python("confluent_driver.py", "confluent_kafka", "confluent-kafka"),
        can=EVERYTHING | RESTART | NEW_GROUPS | GROUPS - {"delete offsets"},
        versions={"Produce": {10}, "Fetch": {16}, "Metadata": {13}},
        group_versions=_group_versions(9, 9, 2, 5, 3, 1, 3),
    ),
    "aiokafka": Spec(
        _python("aiokafka_driver.py", "aiokafka", "aiokafka cramjam"),
        can=EVERYTHING
        | GROUPS - EPOCHS - {"fenced", "cooperative", "delete groups", "alter offsets", "delete offsets"},
        versions={"Produce": {7}, "Fetch": {11}, "Metadata": {5}},
        group_versions=_group_versions(3, 3, 1, 5, 1, 1, 3),
    ),
    "java": Spec(
        _java,
        can=EVERYTHING | RESTART | NEW_GROUPS | GROUPS,
        versions={"Produce": {13}, "Fetch": {18}, "Metadata": {13}},
        group_versions=_group_versions(9, 9, 6, 9, 4, 5, 5),
    ),
    "franz-go": Spec(
        _go("franz-go"),
        can=EVERYTHING | RESTART | GROUPS,
        versions={"Produce": {13}, "Fetch": {18}, "Metadata": {13}},
        group_versions=_group_versions(10, 10, 6, 9, 4, 5, 5),
    ),
    "sarama": Spec(
        _go("sarama"),
        can=EVERYTHING | GROUPS - {"cooperative", "commits epochs"},
        versions={"Produce": {10}, "Fetch": {12}, "Metadata": {11}},
        group_versions=_group_versions(8, 8, 3, 8, 4, 5, 5),
    ),
    "kafka-go": Spec(
        _go("kafka-go"),
        can=EVERYTHING
        - {
            "delete_records",
            "idempotent",
            "transactions",
            "tiny",
            "null headers",
            "tells null",
            "out of range",
        }
        | GROUPS - EPOCHS - {"commit metadata", "static members", "fenced", "cooperative", "revoked"},
        versions={"Produce": {8}, "Fetch": {10}, "Metadata": {6, 8}},
        group_versions=_group_versions(2, 1, 0, 2, 0, 0, 0),
    ),
    "kafkajs": Spec(
        _node("kafkajs_driver.js"),
        # it consumes in groups only
        can=EVERYTHING - {"consume", "committed", "tiny", "null headers"}
        | GROUPS
        - EPOCHS
        - {
            "static members",  # and do not leave the group when they are closed
            "fenced",
            "cooperative",
            "revoked",
            "delete offsets",
        },
        codecs=("none", "gzip", "snappy"),
        versions={"Produce": {7}, "Metadata": {6}},
        group_versions=_group_versions(5, 4, 2, 5, 3, 3, 3),
    ),
    "platformatic": Spec(
        _node("platformatic_driver.js"),
        can=EVERYTHING - {"tiny"} | GROUPS - {"commit metadata", "static members", "cooperative", "revoked"},
        cannot_read=("snappy",),  # framed as Java does it; it reads and writes raw blocks
        versions={"Produce": {11}, "Fetch": {17}, "Metadata": {12}},
        group_versions=_group_versions(9, 9, 6, 9, 4, 5, 5),
    ),
    "console": Spec(
        _console, can=frozenset({"groups"}), codecs=(), group_versions=_group_versions(9, 9, 6, 9, 4, 5, 5)
    ),
}


def names(*abilities: str) -> list[str]:
    """The clients that can do all of this."""
    return [name for name, spec in CLIENTS.items() if set(abilities) <= spec.can]


def start(name: str, folder: Path) -> Client:
    """The client, running; it logs to `folder`."""
    spec = CLIENTS[name]
    argv = spec.argv()
    if name == "console":
        return Console(argv, can=spec.can)
    if name == "kcat":
        return Kcat(argv[0], can=spec.can, codecs=spec.codecs)
    return DriverClient(name, argv, can=spec.can, codecs=spec.codecs, log=folder / f"{name}.log")
