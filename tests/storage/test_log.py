"""A partition's log on a real file system: append, write, flush, read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.protocol.records import split_batches
from kbroker.storage.disk import RealDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(RealDisk(), str(tmp_path))


def test_appended_is_not_written_and_written_is_not_flushed(broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())

    assert 0 == log.append(batch(b"a", b"b"), 3)
    assert 2 == log.append(batch(b"c"), 3)
    assert (0, 0, 0, 3) == (log.start, log.flushed, log.written, log.end)
    broker.turn.run()
    assert (0, 3, 3) == (log.flushed, log.written, log.end)
    broker.settle()
    assert (3, 3, 3) == (log.flushed, log.written, log.end)


def test_read_gives_whole_batches_with_offsets_and_epoch_stamped(broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    for value in (b"a", b"b", b"c"):
        log.append(batch(value, value), 7)
    broker.settle()

    region = log.read(3, up_to=6, max_bytes=1_000_000)

    assert region is not None
    batches = split_batches(memoryview(region_bytes(region)))
    assert [(2, 7), (4, 7)] == [(one.base_offset, one.epoch) for one in batches]
    assert all(one.crc_ok for one in batches)
    assert log.read(6, up_to=6, max_bytes=1_000_000) is None
