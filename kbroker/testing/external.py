"""A Kafka that somebody else runs, with the embedded broker's methods: one suite of tests for both. Blocking, no loop.

Speaks versions that every Kafka since 2.4 and kbroker have, so it asks for no list of them. On a cluster it goes to
each partition's leader. It deletes nothing that was not created through it: the Kafka may be other people's too.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
)
from kbroker.protocol.records import Record, decode_records, split_batches
from kbroker.protocol.wire import Message
from kbroker.testing.text import config_text, raise_if_refused

# Every request, and every wait for the cluster to agree on a topic, ends within this time, or raises.
ANSWER_SECONDS_MAX = 30.0
# Between two looks at what a cluster is doing.
LOOK_SECONDS = 0.02
FETCH_BYTES = 1 << 20
FETCH_WAIT_MS = 500
EARLIEST, LATEST = -2, -1  # ListOffsets' special timestamps
BROKERS_DEFAULT = -1  # replication factor: as the cluster is configured (KIP-464)
CLIENT_ID = "kbroker.testing"

# From Kafka 2.4 on; the newest without topic ids, which would need one more look-up.
METADATA, CREATE_TOPICS, DELETE_TOPICS, LIST_OFFSETS, FETCH = 8, 5, 3, 5, 11

# Metadata names a leader before that broker has heard of it, and goes on naming the one that it was.
NOT_THERE = frozenset(
    {
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
)
# What passes: the last one is of a leader that has not heard yet how far its followers are (KIP-207).
PASSING = NOT_THERE | {ErrorCode.OFFSET_NOT_AVAILABLE}

Address = tuple[str, int]
Leaders = dict[int, Address]  # of one topic, by partition; empty: to be asked for
T = TypeVar("T")


class NotYet(TimeoutError):
    """What is waited for is not there: look again, until the time is over."""


class ExternalBroker:
    """The Kafka at `bootstrap_servers` (host:port, several with commas; plain text)."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._bootstrap = [_address(each) for each in bootstrap_servers.split(",")]
        self._wires: dict[Address, Wire] = {}
        self._created: list[str] = []

    # -- life: not ours

    def start(self) -> Self:
        """See that it answers. ConnectionError where it does not."""
        self._metadata([])
        return self

    def stop(self) -> None:
        """Close our connections; the Kafka goes on."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def restart(self) -> NoReturn:
        """Not possible: RuntimeError."""
        self._not_ours("restart")

    def kill(self) -> NoReturn:
        """Not possible: RuntimeError."""
        self._not_ours("kill")

    def _not_ours(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"the Kafka at {self.bootstrap_servers} is not ours to {what}: use kbroker.testing.Broker for that test"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- use

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, Any] | None = None) -> str:
        """Create a topic and wait until every partition has a leader; its name. KafkaError where Kafka refuses it."""
        configs = [
            CreatableTopicConfig(name=key, value=config_text(value)) for key, value in (config or {}).items()
        ]
        topic = CreatableTopic(
            name=name, num_partitions=partitions, replication_factor=BROKERS_DEFAULT, configs=configs
        )
        request = CreateTopicsRequest(topics=[topic], timeout_ms=int(ANSWER_SECONDS_MAX * 1000))
        raise_if_refused(self._ask_controller(request, CREATE_TOPICS).topics[0])
        self._created.append(name)
        _until(partial(self._see_led, name, partitions))
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records, and wait until it is gone."""
        self._delete([name])

    def topics(self) -> list[str]:
        """The names of all topics, other people's too; not Kafka's internal ones."""
        return sorted(topic.name or "" for topic in self._metadata(None).topics if not topic.is_internal)

    def records(self, topic: str, partition: int | None = None) -> list[Record]:
        """Everything in a topic (or one of its partitions) that consumers may read, partition by partition."""
        leaders = self._leaders(topic)
        if partition is not None and partition not in leaders:
            raise KeyError(f"topic {topic!r} has no partition {partition}")
        found: list[Record] = []
        for index in sorted(leaders) if partition is None else (partition,):
            found += self._read(topic, index, leaders)
        return found

    def reset(self) -> None:
        """Delete every topic that was created through this object; others stay."""
        there = set(self.topics())
        self._delete([name for name in self._created if name in there])

    def _delete(self, names: list[str]) -> None:
        if not names:
            return
        request = DeleteTopicsRequest(topic_names=names, timeout_ms=int(ANSWER_SECONDS_MAX * 1000))
        for result in self._ask_controller(request, DELETE_TOPICS).responses:
            raise_if_refused(result)
        self._created = [name for name in self._created if name not in names]
        _until(partial(self._see_gone, names))

    def _read(self, topic: str, index: int, leaders: Leaders) -> list[Record]:
        offset = self._offset(topic, index, EARLIEST, leaders)
        end = self._offset(topic, index, LATEST, leaders)
        found: list[Record] = []
        while offset < end:
            asked = FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=FETCH_BYTES)
            request = FetchRequest(
                max_wait_ms=FETCH_WAIT_MS,
                min_bytes=1,
                max_bytes=FETCH_BYTES,
                topics=[FetchTopic(topic=topic, partitions=[asked])],
            )
            part = self._ask_leader(
                topic, index, leaders, request, FETCH, lambda answer: answer.responses[0].partitions[0]
            )
            batches = split_batches(memoryview(bytes(part.records or b"")), cut_tail=True)
            for batch in batches:
                if not batch.is_control:
                    found += [each for each in decode_records(batch) if offset <= each.offset < end]
                offset = batch.next_offset
        return found

    def _offset(self, topic: str, index: int, when: int, leaders: Leaders) -> int:
        asked = ListOffsetsTopic(
            name=topic, partitions=[ListOffsetsPartition(partition_index=index, timestamp=when)]
        )
        request = ListOffsetsRequest(replica_id=-1, topics=[asked])
        part = self._ask_leader(
            topic, index, leaders, request, LIST_OFFSETS, lambda answer: answer.topics[0].partitions[0]
        )
        return int(part.offset)

    # -- the cluster

    def _metadata(self, names: list[str] | None) -> MetadataResponse:
        asked = None if names is None else [MetadataRequestTopic(name=name) for name in names]
        request = MetadataRequest(topics=asked, allow_auto_topic_creation=False)
        answer = self._any_wire().ask(request, METADATA)
        assert isinstance(answer, MetadataResponse)
        return answer

    def _see_led(self, name: str, partitions: int) -> None:
        """See that so many of the topic's partitions have a leader."""
        topic = self._metadata([name]).topics[0]
        led = sum(part.leader_id >= 0 and not part.error_code for part in topic.partitions)
        if led != partitions:
            raise NotYet(f"topic {name} has no leaders after {ANSWER_SECONDS_MAX:.0f} s")

    def _see_gone(self, names: list[str]) -> None:
        """See that no topic has one of these names."""
        if set(names) & set(self.topics()):
            raise NotYet(f"{', '.join(names)} not deleted after {ANSWER_SECONDS_MAX:.0f} s")

    def _leaders(self, name: str) -> Leaders:
        answer = self._metadata([name])
        topic = answer.topics[0]
        if topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise KeyError(f"there is no topic {name!r}")
        raise_if_refused(topic)
        brokers = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
        for part in topic.partitions:
            if part.leader_id not in brokers:
                raise KafkaError(
                    ErrorCode.LEADER_NOT_AVAILABLE, f"partition {part.partition_index} of {name}"
                )
        return {part.partition_index: brokers[part.leader_id] for part in topic.partitions}

    def _ask_leader(
        self,
        topic: str,
        index: int,
        leaders: Leaders,
        request: Message,
        version: int,
        part_of: Callable[[Any], Any],
    ) -> Any:
        """What a partition's leader says of it; asked again while the cluster moves it. KafkaError where it refuses."""

        def ask() -> Any:
            if not leaders:
                leaders.update(self._leaders(topic))
            part = part_of(self._wire(leaders[index]).ask(request, version))
            if part.error_code in NOT_THERE:
                leaders.clear()
            raise_if_refused(part)
            return part

        return _until(ask)

    def _ask_controller(self, request: Message, version: int) -> Any:
        answer = self._metadata([])
        at = [
            (broker.host, broker.port) for broker in answer.brokers if broker.node_id == answer.controller_id
        ]
        return (self._wire(at[0]) if at else self._any_wire()).ask(request, version)

    def _any_wire(self) -> Wire:
        for at in self._bootstrap[:-1]:
            try:
                return self._wire(at)
            except OSError:
                continue
        return self._wire(self._bootstrap[-1])

    def _wire(self, at: Address) -> Wire:
        wire = self._wires.get(at)
        if wire is None or wire.ended():
            if wire is not None:
                wire.close()
            wire = self._wires[at] = Wire(at)
        return wire


class Wire:
    """One connection: a request, its answer, the next."""

    def __init__(self, at: Address) -> None:
        self._broken = False
        self._at = at
        self._number = 0
        try:
            self._sock = socket.create_connection(at, timeout=ANSWER_SECONDS_MAX)
        except OSError as error:
            raise ConnectionError(f"no Kafka answers at {at[0]}:{at[1]}: {error}") from error
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: Message, version: int) -> Any:
        """Send a request, wait for its answer."""
        self._number += 1
        try:
            parts: list[Any] = encode_request(request, version, self._number, CLIENT_ID)
            self._sock.sendall(b"".join(parts))
            size = int.from_bytes(self._take(4), "big")
            taken = self._take(size)
        except BaseException:
            self.close()  # what comes next on it would be the answer to this
            raise
        number, answer = decode_response(RESPONSES[request.API_KEY], version, memoryview(taken))
        assert number == self._number, f"answer {number} to request {self._number}"
        return answer

    def _take(self, size: int) -> bytearray:
        taken = bytearray(size)
        view = memoryview(taken)
        while len(view):
            count = self._sock.recv_into(view)
            if count == 0:
                raise ConnectionError(f"the Kafka at {self._at[0]}:{self._at[1]} closed the connection")
            view = view[count:]
        return taken

    def ended(self) -> bool:
        """Whether it is closed, by us or by the Kafka: it closes what was silent for ten minutes."""
        if self._broken:
            return True
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        return bool(waiting.poll(0))  # nothing is asked, so what comes is the end

    def close(self) -> None:
        """Close it. Idempotent."""
        self._broken = True
        self._sock.close()


def _address(text: str) -> Address:
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _until(look: Callable[[], T]) -> T:
    """What `look` returns, which is called again while it raises what passes; when the time is over it raises that."""
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        try:
            return look()
        except (NotYet, KafkaError) as error:
            passes = isinstance(error, NotYet) or error.code in PASSING
            if not passes or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)
