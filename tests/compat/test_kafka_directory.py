"""A log directory that Apache Kafka wrote goes on with kbroker: same records, same offsets, same identities."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kbroker.protocol.messages.groups import DescribeGroupsRequest
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from tests.compat.driver import Client, Record
from tests.compat.registry import ALL_CODECS
from tests.compat.scenario import eventually, sample
from tests.support import raw_groups
from tests.support.clients import require
from tests.support.peers import Certificates, KbrokerPeer, free_ports
from tests.support.peers import Endpoint as At
from tests.support.raw_client import RawClient, address_of, fetch_request, stored
from tests.support.raw_members import Group
from tools import kafka
from tools.kafka import Kafka

MANY, SMALL, ONE = "many-partitions", "small.segments", "one_producer"
PARTITIONS = {MANY: 3, SMALL: 1, ONE: 1}
SEGMENT_BYTES = 1024 * 1024
DELETED_BEFORE = 7
NOT_LED = {3, 5, 6}  # unknown topic or partition, leader not available, not leader


class Successor(KbrokerPeer):
    """kbroker on Kafka's log directory, told so by a file as Kafka's: `node.id` and `log.dirs`."""

    def __init__(self, folder: Path, certificates: Certificates, directory: Path, port: int) -> None:
        folder.mkdir()
        super().__init__(folder, certificates, {"node.id": "1", "log.dirs": str(directory)})
        self.plain = At(f"127.0.0.1:{port}")
        self.settings["listeners"] = f"PLAINTEXT://{self.plain.servers}"
        self.settings["advertised.listeners"] = f"PLAINTEXT://{self.plain.servers}"

    def argv(self, properties: Path) -> list[str]:
        """Nothing but the file."""
        return [sys.executable, "-P", "-m", "kbroker", "start", "--config", str(properties)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients see of the topics."""

    ids: dict[str, bytes]
    ends: dict[tuple[str, int], tuple[Any, Any]]  # earliest and latest offset
    records: dict[tuple[str, int], list[tuple[int | None, Record]]]
    by_time: dict[int, Any]  # offsets in one partition


def look(client: Client, at: At) -> Seen:
    """Everything, by one client."""
    ends, records = {}, {}
    for topic, count in PARTITIONS.items():
        for partition in range(count):
            first, last = (
                client.offset(at, topic, when, partition=partition) for when in ("earliest", "latest")
            )
            assert first is not None
            assert last is not None
            read = client.consume(at, topic, first, last - first, partition=partition)
            ends[topic, partition] = (first, last)
            records[topic, partition] = [(record.offset, record) for record in read]
    times = [record.timestamp or 0 for _, record in records[MANY, 0]]
    by_time = {time: client.offset(at, MANY, time) for time in (0, *times[::9], max(times), max(times) + 1)}
    return Seen({topic: id_and_epochs(at, topic)[0] for topic in PARTITIONS}, ends, records, by_time)


def id_and_epochs(at: At, topic: str) -> tuple[bytes, list[int]]:
    """A topic's id, and its partitions' leader epochs."""
    with RawClient(address_of(at.servers)) as raw:
        asked = MetadataRequest(topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False)
        [found] = raw.ask(asked, 12).topics
    partitions = sorted(found.partitions, key=lambda each: each.partition_index)
    return bytes(found.topic_id), [each.leader_epoch for each in partitions]


def led(at: At, topics: dict[str, int]) -> None:
    """Wait for the leaders of these numbers of partitions: Kafka answers a creation, and serves, before they lead."""
    with RawClient(address_of(at.servers)) as raw:

        def is_led(topic: str, partition: int) -> bool:
            [found] = raw.ask(fetch_request(topic, partition=partition), 12).responses[0].partitions
            return found.error_code not in NOT_LED

        for topic, count in topics.items():
            for partition in range(count):
                eventually(partial(is_led, topic, partition), True)


def fill(client: Client, at: At) -> None:
    """Every codec in several partitions, several segments, deleted records, an idempotent producer."""
    client.create(at, MANY, partitions=PARTITIONS[MANY])
    client.create(at, SMALL, segment_bytes=str(SEGMENT_BYTES))
    client.create(at, ONE)
    led(at, PARTITIONS)
    for codec in ALL_CODECS:
        for partition in range(PARTITIONS[MANY]):
            client.produce(at, MANY, sample(client), partition=partition, codec=codec)
    for number in range(5):
        client.produce(at, SMALL, [Record(key=b"%d" % number, value=bytes([number]) * 90_000)] * 8)
    client.produce(
        at, ONE, [Record(value=b"%d" % number) for number in range(50)], idempotent=True, tiny=True
    )
    client.call("delete_records", at, topic=MANY, partition=1, offset=DELETED_BEFORE)


@pytest.mark.parametrize("end", [Kafka.stop, Kafka.kill], ids=["stopped", "killed"])
def test_a_directory_of_kafkas_is_served_and_written_on(
    end: Callable[[Kafka], None], helper: Client, certificates: Certificates, tmp_path: Path
) -> None:
    why = kafka.missing()
    require("Apache Kafka", (why or "").partition(": ")[2], found=why is None)
    broker = Kafka(port=free_ports(1)[0], folder=tmp_path / "kafka")
    at = At(broker.bootstrap_servers)
    broker.start()
    successor = Successor(tmp_path / "kbroker", certificates, broker.data_dir, broker.port)
    try:
        fill(helper, at)
        broker.stop()
        broker.start()  # its leader epochs rise, and no record shows it
        led(at, PARTITIONS)
        before = look(helper, at)
        epochs = {topic: id_and_epochs(at, topic)[1] for topic in PARTITIONS}
        end(broker)

        successor.start()

        assert before == look(helper, at)
        assert (DELETED_BEFORE, 100) == before.ends[MANY, 1]
        assert len(list(broker.data_dir.glob(f"{SMALL}-0/*.log"))) > 2
        now = {topic: id_and_epochs(at, topic)[1] for topic in PARTITIONS}
        for topic, old in epochs.items():
            assert all(was < is_ for was, is_ in zip(old, now[topic], strict=True)), f"{topic}: {old}, {now}"

        more = [Record(value=b"more %d" % number) for number in range(20)]
        assert list(range(100, 120)) == helper.produce(at, MANY, more, partition=2, codec="zstd")
        # a new producer: its id must not be one that Kafka gave out
        assert list(range(50, 70)) == helper.produce(at, ONE, more, idempotent=True, tiny=True)
        successor.restart()

        after = look(helper, at)
        assert before.ids == after.ids
        for where, old_records in before.records.items():
            assert old_records == after.records[where][: len(old_records)]
        assert [record.value for record in more] == [got.value for _, got in after.records[MANY, 2][100:]]
        assert 70 == len(after.records[ONE, 0])
    finally:
        successor.close()
        broker.close()


@pytest.mark.parametrize("client", ["java"], indirect=True)
def test_an_idempotent_producer_goes_on_from_kafka_to_kbroker(
    client: Client, helper: Client, certificates: Certificates, tmp_path: Path
) -> None:
    """The same address and directory: to a client it was a restart."""
    why = kafka.missing()
    require("Apache Kafka", (why or "").partition(": ")[2], found=why is None)
    broker = Kafka(port=free_ports(1)[0], folder=tmp_path / "kafka")
    at = At(broker.bootstrap_servers)
    broker.start()
    successor = Successor(tmp_path / "kbroker", certificates, broker.data_dir, broker.port)
    try:
        helper.create(at, ONE)
        led(at, {ONE: 1})
        records = [Record(value=b"%d" % number) for number in range(200)]
        producing = client.begin_produce(
            at, ONE, records, idempotent=True, tiny=True, pause_ms=50, give_up_ms=150_000
        )
        with RawClient(address_of(at.servers)) as raw:
            eventually(lambda: bool(stored(raw, ONE)), True)
        broker.stop()
        assert not producing.done(), producing.result()

        successor.start()

        producing.result(160)
        read = helper.consume(at, ONE, "earliest", 200)
        assert [record.value for record in records] == [record.value for record in read]
        assert 200 == helper.offset(at, ONE, "latest")
    finally:
        successor.close()
        broker.close()


def found(raw: RawClient, *groups: str) -> None:
    """Wait for the groups' coordinator: Kafka makes the topic of groups first."""
    for name in groups:
        Group(lambda: raw, name)


@pytest.mark.parametrize("end", [Kafka.stop, Kafka.kill], ids=["stopped", "killed"])
def test_its_groups_go_on_where_they_were(
    end: Callable[[Kafka], None], helper: Client, certificates: Certificates, tmp_path: Path
) -> None:
    """Offsets, and a member in its generation; then a restart of our own."""
    why = kafka.missing()
    require("Apache Kafka", (why or "").partition(": ")[2], found=why is None)
    broker = Kafka(port=free_ports(1)[0], folder=tmp_path / "kafka")
    at = At(broker.bootstrap_servers)
    broker.start()
    successor = Successor(tmp_path / "kbroker", certificates, broker.data_dir, broker.port)
    try:
        helper.create(at, MANY, partitions=3)
        led(at, {MANY: 3})
        for partition in range(3):
            helper.produce(at, MANY, [Record(value=b"v")] * 5, partition=partition)
        with RawClient(address_of(at.servers)) as raw:
            found(raw, "of one", "simple")
            joined = raw_groups.join(raw, "of one", b"all of it")
            assert 0 == raw_groups.commit(raw, "of one", {(MANY, 0): 1, (MANY, 1): 2}, joined)
            assert 0 == raw_groups.commit(raw, "of one", {(MANY, 1): 3}, joined)
            assert 0 == raw_groups.commit(raw, "simple", {(MANY, 2): 4})
        end(broker)

        for _ in range(2):
            successor.start()
            with RawClient(address_of(at.servers)) as raw:
                found(raw, "of one", "simple")
                assert {(MANY, 0): 1, (MANY, 1): 3} == raw_groups.committed(raw, "of one")
                assert {(MANY, 2): 4} == raw_groups.committed(raw, "simple")
                assert 0 == raw_groups.beat(raw, "of one", joined)
                [described] = raw.ask(DescribeGroupsRequest(groups=["of one"]), 5).groups
                assert ("Stable", "range") == (described.group_state, described.protocol_data)
                assert [b"all of it"] == [each.member_assignment for each in described.members]
                assert 0 == raw_groups.commit(raw, "of one", {(MANY, 1): 3}, joined)
            successor.stop()
    finally:
        successor.close()
        broker.close()
