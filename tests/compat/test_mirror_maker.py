"""MirrorMaker 2 between two brokers: its connectors in a standalone worker of Kafka Connect."""

from __future__ import annotations

from pathlib import Path

from tests.compat.application import Looker, java_application, properties
from tests.compat.driver import Client, Record
from tests.compat.group import Member, until
from tests.support.peers import Peer, free_ports

STANDALONE = "org.apache.kafka.connect.cli.ConnectStandalone"
MIRROR = "org.apache.kafka.connect.mirror.Mirror"
BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
PARTITIONS = 2
KEPT_MS, LATER_MS = "86400000", "43200000"
FIRST, ALL = 5, 8  # records in each partition: before it mirrors, and in the end


def record(number: int) -> Record:
    return Record(
        key=b"key %d" % number,
        value=None if number == 1 else b"value %d" % number,
        headers=(("header", b"\x00\xff"),),
        timestamp=1_700_000_000_000 + number,
    )


def test_topics_records_configs_and_offsets_of_groups_come_to_the_other_broker(
    peer: Peer, strict_peer: Peer, helper: Client, topic: str, tmp_path: Path
) -> None:
    there, here = peer.plain, strict_peer.plain
    group, source, target = f"{topic}-group", f"{topic}-there", f"{topic}-here"
    mirrored, looker = f"{source}.{topic}", Looker(strict_peer)

    def write(start: int, end: int) -> None:
        for partition in range(PARTITIONS):
            records = [record(number) for number in range(start, end)]
            helper.produce(there, topic, records, partition=partition)

    def come() -> list[int]:
        return [len(looker.records(mirrored, partition)) for partition in range(PARTITIONS)]

    def committed() -> list[int]:
        return looker.committed(group, mirrored, PARTITIONS)

    def commit_all(count: int) -> None:
        member = Member(helper, there, group, topic, auto_commit=False)
        until("all is read", lambda: len(member.look()), count, member)
        member.commit()
        member.leave()

    converters = {f"{kind}.converter": BYTES for kind in ("key", "value", "header")}
    both = {
        "source.cluster.alias": source,
        "source.cluster.bootstrap.servers": there.servers,
        "target.cluster.alias": target,
        "target.cluster.bootstrap.servers": here.servers,
        "topics": topic,
        "groups": group,
        **converters,
    }
    mirror = {
        "name": "mirror",
        "connector.class": f"{MIRROR}SourceConnector",
        "replication.factor": "1",
        "offset-syncs.topic.replication.factor": "1",
        "offset.lag.max": "0",
        "refresh.topics.interval.seconds": "1",
        "sync.topic.configs.interval.seconds": "1",
    }
    checkpoints = {
        "name": "checkpoints",
        "connector.class": f"{MIRROR}CheckpointConnector",
        "checkpoints.topic.replication.factor": "1",
        "refresh.groups.interval.seconds": "1",
        "emit.checkpoints.interval.seconds": "1",
        "sync.group.offsets.enabled": "true",
        "sync.group.offsets.interval.seconds": "1",
    }
    worker = {
        "bootstrap.servers": here.servers,
        "listeners": f"http://127.0.0.1:{free_ports(1)[0]}",
        **converters,
        "plugin.discovery": "service_load",
        "offset.storage.file.filename": str(tmp_path / "offsets"),
        "offset.flush.interval.ms": "500",
    }
    files = [
        properties(tmp_path / f"{values['name']}.properties", values)
        for values in ({"name": "worker", **worker}, {**mirror, **both}, {**checkpoints, **both})
    ]

    helper.create(there, topic, partitions=PARTITIONS, **{"retention.ms": KEPT_MS})
    write(0, FIRST)
    commit_all(PARTITIONS * FIRST)
    application = java_application("mirror", STANDALONE, *map(str, files), folder=tmp_path)
    try:
        application.until("records come", come, [FIRST] * PARTITIONS)
        application.until("the group's offsets come", committed, [FIRST] * PARTITIONS)
        application.until("configs come", lambda: looker.config(mirrored, "retention.ms"), KEPT_MS)

        helper.call("alter", there, topic=topic, configs={"retention.ms": LATER_MS})
        write(FIRST, ALL)
        commit_all(PARTITIONS * (ALL - FIRST))
        application.until("more records come", come, [ALL] * PARTITIONS)
        application.until("the group's offsets follow", committed, [ALL] * PARTITIONS)
        application.until("configs follow", lambda: looker.config(mirrored, "retention.ms"), LATER_MS)
        for partition in range(PARTITIONS):
            assert [record(number) for number in range(ALL)] == helper.consume(
                here, mirrored, 0, ALL, partition=partition
            )
        assert 143 == application.end() % 256  # a JVM's way to say SIGTERM
    finally:
        application.kill()
