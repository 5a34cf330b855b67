"""Which clients there are, what each can do, and how each is built and started. Knows no scenario."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.compat.driver import Client, DriverClient
from tests.support.clients import require

DRIVERS = Path(__file__).parent / "drivers"
ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

# What a client can take part in. Left out is what its API does not offer (README.md of this folder says why).
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
        "idempotent",
        "tiny",  # a request per record, several in flight
        "consume",  # from an assigned partition, without a group
        "offset",  # beginning and end
        "offset by time",
        "committed",  # read_committed
        "binary",  # any bytes as key and value, null and empty too
        "out of range",  # says so when its offset is beyond the end
        "restart",  # also takes part in the scenarios that restart the broker
        "codes",  # an error names Kafka's code
        "tls",
        "recorded",  # speaks through the recording proxy
    }
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A client under test. `start(log folder)` skips the test, visibly, when the client is not installed."""

    start: Callable[[Path], list[str]]
    can: frozenset[str] = EVERYTHING
    codecs: tuple[str, ...] = ALL_CODECS
    versions: Mapping[str, int] = field(default_factory=dict)  # what it negotiates with us and with Kafka 4.3


def _python(script: str, module: str, package: str) -> Callable[[Path], list[str]]:
    def start(_: Path) -> list[str]:
        require(module, f"pip install {package}")
        return [sys.executable, str(DRIVERS / script)]

    return start


CLIENTS = {
    "kafka-python": Spec(
        _python("kafka_python_driver.py", "kafka", "'kafka-python[snappy,lz4,zstd]'"),
        can=EVERYTHING - {"null headers"},
        versions={"Produce": 9, "Fetch": 12, "Metadata": 13},
    ),
    "confluent": Spec(
        _python("confluent_driver.py", "confluent_kafka", "confluent-kafka"),
        versions={"Produce": 10, "Fetch": 16, "Metadata": 13},
    ),
    "aiokafka": Spec(
        _python("aiokafka_driver.py", "aiokafka", "aiokafka[all]"),
        versions={"Produce": 7, "Fetch": 11, "Metadata": 5},
    ),
}


def names(*abilities: str) -> list[str]:
    """The clients that can do all of this."""
    return [name for name, spec in CLIENTS.items() if set(abilities) <= spec.can]


def start(name: str, folder: Path) -> Client:
    """The client, running; it logs to `folder`."""
    spec = CLIENTS[name]
    argv = spec.start(folder)
    return DriverClient(name, argv, can=spec.can, codecs=spec.codecs, log=folder / f"{name}.log")
