"""A request that is worked on in slices outlives its frame, and counts as memory in use until that has ended."""

from __future__ import annotations

import pytest

from kbroker.protocol.codec import encode
from kbroker.protocol.frames import decode_response
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kbroker.protocol.records import build_batch, decode_records, record, split_batches
from kbroker.protocol.validation import BIG_RECORDS
from kbroker.server.slices import SLICE
from tests.support.rooms import House
from tests.support.served import LIMIT, Stand, pieces
from tests.support.storage import region_bytes

RECORDS = BIG_RECORDS + 1


@pytest.fixture
def stand(tmp_path) -> Stand:
    house = House(tmp_path)
    house.open_disk()
    house.create("t")
    return Stand(house)


def big(value: bytes, size: int = 85) -> ProduceRequest:
    """A batch that is checked in slices."""
    records = build_batch([record(value * size, timestamp=1) for _ in range(RECORDS)])
    data = PartitionProduceData(index=0, records=records)
    return ProduceRequest(
        acks=1, timeout_ms=5_000, topic_data=[TopicProduceData(name="t", partition_data=[data])]
    )


def values(stand: Stand) -> list[bytes]:
    log = stand.house.partitions.get("t", 0).log
    found, offset = [], 0
    while (region := log.read(offset, up_to=log.end, max_bytes=1 << 20)) is not None:
        for batch in split_batches(memoryview(region_bytes(region))):
            found += [each.value[:1] for each in decode_records(batch)]
            offset = batch.next_offset
    return found


def base_offset(frame: bytes) -> int:
    _, response = decode_response(ProduceResponse, 9, memoryview(frame))
    [topic] = response.responses
    [answer] = topic.partition_responses
    assert 0 == answer.error_code
    return answer.base_offset


def test_a_batch_that_is_checked_in_slices_is_not_copied_beyond_the_budget(stand):
    wire = stand.wire()

    wire.arrive(*pieces(big(b"a"), 9))
    taken = LIMIT - stand.buffers.budget.left
    stand.step()
    assert [taken] == [LIMIT - stand.buffers.budget.left]
    assert len(b"".join(pieces(big(b"a"), 9))) - (256 << 10) == taken
    stand.finish()

    assert LIMIT == stand.buffers.budget.left
    assert [b"a"] * RECORDS == values(stand)


def test_others_that_would_exceed_the_budget_meanwhile_are_not_read_from(stand):
    first, second, third = stand.wire(), stand.wire(), stand.wire()
    first.arrive(*pieces(big(b"a"), 9))
    second.arrive(*pieces(big(b"b"), 9))  # nothing stops it
    third.arrive(*pieces(big(b"c"), 9))

    assert 2 == len(stand.work)
    stand.finish()
    for wire in (first, second, third):
        wire.run()
        stand.finish()

    assert [b"a"] * RECORDS + [b"b"] * RECORDS + [b"c"] * RECORDS == values(stand)
    assert [0, RECORDS, 2 * RECORDS] == [
        base_offset(frame) for wire in (first, second, third) for frame in wire.answers()
    ]
    assert LIMIT == stand.buffers.budget.left


def test_a_batch_of_a_client_that_has_gone_counts_until_nobody_looks_at_it(stand):
    wire = stand.wire()
    wire.arrive(*pieces(big(b"a"), 9))

    wire.connection.close()

    assert stand.buffers.budget.left < LIMIT
    stand.finish()
    assert LIMIT == stand.buffers.budget.left
    assert [b"a"] * RECORDS == values(stand)


def test_a_batch_in_a_buffer_that_all_use_is_copied(stand):
    """It came whole, with what a read takes; the next read is somebody else's."""
    request = big(b"a", 1)
    first, second = stand.wire(), stand.wire()
    first.arrive(b"".join(pieces(request, 9)))

    second.arrive(b"".join(pieces(big(b"b", 1), 9)))
    stand.finish()

    assert [b"a"] * RECORDS + [b"b"] * RECORDS == values(stand)


def test_a_request_of_many_things_counts_until_it_is_answered(stand):
    partition = OffsetCommitRequestPartition(partition_index=1, committed_metadata="x" * 300)
    topic = OffsetCommitRequestTopic(name="t", partitions=[partition] * 2 * SLICE)
    request = OffsetCommitRequest(group_id="g", topics=[topic])
    wire = stand.wire()

    wire.arrive(*pieces(request, 8))

    assert len(b"".join(encode(request, 8))) // 2 < LIMIT - stand.buffers.budget.left
    stand.finish()
    assert LIMIT == stand.buffers.budget.left
    assert 1 == len(wire.answers())
