"""A log directory that Kafka 4.3 wrote: stopped cleanly, and copied while the broker ran (indexes full of zeros)."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from kbroker.model import TopicPartition
from kbroker.protocol.records import decode_records, split_batches
from kbroker.storage.disk import RealDisk
from kbroker.storage.log import PartitionLog
from tests.support.storage import Broker, batch, config, region_bytes

ARCHIVE = Path(__file__).parent / "data" / "kafka-4.3-log-directories.tar.gz"
PLAIN, ONE, IDEMPOTENT = (
    TopicPartition("plain", 0),
    TopicPartition("plain", 1),
    TopicPartition("idem.potent_x-1", 0),
)


@pytest.fixture(params=["stopped", "running"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return Broker(RealDisk(), str(tmp_path / request.param))


def values(log: PartitionLog) -> list[bytes | None]:
    found = []
    offset = log.start
    while offset < log.end:
        region = log.read(offset, up_to=log.end, max_bytes=50_000)
        assert region is not None
        for one in split_batches(memoryview(region_bytes(region))):
            assert one.crc_ok
            found += [record.value for record in decode_records(one)]
            offset = one.last_offset + 1
    return found


def test_its_topics_are_found_with_their_ids_and_its_own_metadata_log_is_not(broker: Broker) -> None:
    opened = broker.directory.open(1, None)

    topics = {tp.topic for tp in opened.partitions}
    assert {"plain", "idem.potent_x-1", "__consumer_offsets"} == topics
    assert 1 == len({topic_id for tp, topic_id in opened.partitions.items() if tp.topic == "plain"})
    assert "MkU3OEVBNTcwNTJENDM2Qg" == opened.identity.cluster_id
    assert frozenset() == opened.lost


def test_every_record_is_served_and_new_ones_follow(broker: Broker) -> None:
    opened = broker.directory.open(1, None)
    log = broker.directory.log(PLAIN, opened.partitions[PLAIN], config())
    broker.settle()

    assert [b"%05d" % number + b"x" * 900 for number in range(3000)] == values(log)
    assert (3000, 3, 0) == (log.flushed, len(log.segments), log.epochs.last)
    assert 3000 == log.append(batch(b"ours"), 1)
    for tp, topic_id in opened.partitions.items():
        broker.directory.log(tp, topic_id, config())
    broker.settle()
    broker.directory.close()

    again = Broker(broker.disk, broker.directory.path)
    assert again.directory.open(1, None).clean
    log = again.directory.log(PLAIN, opened.partitions[PLAIN], config())
    assert 3001 == log.end
    assert b"ours" == values(log)[-1]
    assert [(0, 0), (1, 3000)] == log.epochs.pairs


def test_producers_are_known_and_times_found(broker: Broker) -> None:
    opened = broker.directory.open(1, None)
    log = broker.directory.log(IDEMPOTENT, opened.partitions[IDEMPOTENT], config())
    broker.settle()

    assert [b"v%d" % number for number in range(100)] == values(log)
    (producer,) = log.producers.producers.values()
    assert (99, 99) == (producer.sent[-1].last_sequence, producer.sent[-1].last_offset)
    newest = log.max_timestamp(log.end)
    assert newest is not None
    found = log.find_time(newest[1], up_to=log.end)
    assert found == newest
    assert log.find_time(newest[1] + 1, up_to=log.end) is None
