"""Whole applications of other people's making, as processes: started, looked at, ended. Knows no scenario."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kbroker.protocol.messages.configs import DescribeConfigsRequest, DescribeConfigsResource
from kbroker.protocol.messages.offsets import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kbroker.protocol.records import decode_records, split_batches
from tests.support.clients import require
from tests.support.peers import Peer
from tests.support.raw_client import RawClient, address_of, fetch_request
from tools import kafka

PROGRAMS = Path(__file__).parent / "applications"
# Application starts are seconds of a JVM's or an interpreter's work, on two cores that others use too.
WAIT_S = 120.0
END_S = 60.0
TOPIC = 2  # a config resource's type


def properties(path: Path, values: Mapping[str, str]) -> Path:
    """A file of Java's properties."""
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


class Application:
    """A running process; what it prints goes to a file. SIGTERM is how it is asked to end."""

    def __init__(
        self, name: str, argv: list[str], folder: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(env or {})},
            )

    def __str__(self) -> str:
        return self.name

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def until(self, what: str, look: Callable[[], object], expected: object) -> None:
        """`look()` comes to be `expected` while the application runs; OSError from it means: not yet."""
        deadline = time.monotonic() + WAIT_S
        found: object = None
        while time.monotonic() < deadline and self.alive:
            try:
                found = look()
            except OSError as error:
                found = error
            if found == expected:
                return
            time.sleep(0.1)
        raise AssertionError(f"{self}: {what}: {found!r} instead of {expected!r}\n{self.log_tail()}")

    def end(self) -> int:
        """Ask it to end: its exit code, negative where a signal ended it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self} does not end within {END_S:g} s of SIGTERM\n{self.log_tail()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(END_S)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def java_application(
    name: str, main_class: str, *args: str, folder: Path, classes: Path | None = None
) -> Application:
    """A class of Kafka's jars, or of `classes`, as a process."""
    if why := kafka.missing():
        require("Apache Kafka's applications", why.partition(": ")[2], found=False)
    command = kafka.java(main_class, *args)
    if classes is not None:
        command[command.index("-cp") + 1] += f":{classes}"
    return Application(name, [command[0], "-XX:TieredStopAtLevel=1", *command[1:]], folder)


class Looker:
    """What a topic holds and its configs, what a group has committed: read byte by byte, no group of ours gets in the way.

    Each look is a connection of its own, so that the broker may be started anew in between; OSError while it is not there.
    """

    def __init__(self, peer: Peer) -> None:
        self._address = address_of(peer.plain.servers)

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        """Every value in a partition, in order; nothing where the topic is not there yet."""
        return [value for _, value in self.records(topic, partition)]

    def records(self, topic: str, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of every record, in order, those of compacted or transactional logs too."""
        found: list[tuple[bytes | None, bytes | None]] = []
        offset = 0
        with RawClient(self._address) as client:
            while True:
                answer = client.ask(fetch_request(topic, offset, partition=partition), 12)
                data = answer.responses[0].partitions[0]
                if data.error_code or not data.records:
                    return found
                for batch in split_batches(memoryview(bytearray(data.records)), cut_tail=True):
                    if not batch.is_control:
                        found += [(record.key, record.value) for record in decode_records(batch)]
                    offset = batch.next_offset

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """A group's offsets by partition, -1 where it has none."""
        wanted = OffsetFetchRequestTopics(name=topic, partition_indexes=list(range(partitions)))
        asked = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=[wanted])])
        with RawClient(self._address) as client:
            [told] = client.ask(asked, 8).groups
        if told.error_code:
            return [-1] * partitions
        return [
            each.committed_offset
            for each in sorted(told.topics[0].partitions, key=lambda each: each.partition_index)
        ]

    def config(self, topic: str, name: str) -> str | None:
        """A topic's config, None where the topic is not there."""
        with RawClient(self._address) as client:
            resource = DescribeConfigsResource(
                resource_type=TOPIC, resource_name=topic, configuration_keys=[name]
            )
            [result] = client.ask(DescribeConfigsRequest(resources=[resource]), 4).results
        return None if result.error_code else str(result.configs[0].value)
