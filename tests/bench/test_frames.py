"""The bench's hand-made frames say what they mean to an independent decoder: the broker's codec."""

from __future__ import annotations

import pytest

from bench import frames
from kbroker.protocol import codec, messages
from kbroker.protocol.frames import decode_request_header, encode_response
from kbroker.protocol.messages.fetch import FetchableTopicResponse, FetchResponse
from kbroker.protocol.messages.fetch import PartitionData as FetchedPartition
from kbroker.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kbroker.protocol.records import decode_records, split_batches


def decoded(frame: bytes):
    """The request in a frame, whole: a byte too many or too few is an error."""
    view = memoryview(frame)
    assert len(frame) == 4 + int.from_bytes(frame[:4], "big")
    header = decode_request_header(view, 4)
    return codec.decode(messages.REQUESTS[header.api_key], header.api_version, view, header.body)


def test_a_batch_holds_the_records_that_were_asked_for():
    made = frames.batch(3, 100)

    (batch,) = split_batches(memoryview(made.data))

    assert batch.crc_ok
    assert [100, 100, 100] == [len(record.value) for record in decode_records(batch)]


def test_a_batch_of_a_size_fills_it_without_going_beyond():
    made = frames.batch_of_size(64 << 10, 1024)

    assert 64_000 < len(made.data) <= 65_536
    assert made.records == split_batches(memoryview(made.data))[0].count


def test_produce_asks_for_all_replicas_and_carries_its_batch():
    request = decoded(frames.produce("some-topic", 4, b"records"))

    assert -1 == request.acks
    (topic,) = request.topic_data
    (partition,) = topic.partition_data
    assert ("some-topic", 4, b"records") == (topic.name, partition.index, bytes(partition.records))


def test_fetch_asks_for_its_offset_also_after_it_was_moved():
    frame = bytearray(frames.fetch("some-topic", 2, 17, max_bytes=1 << 20))
    first = decoded(bytes(frame))
    frames.set_fetch_offset(frame, 99)
    second = decoded(bytes(frame))

    assert [17, 99] == [r.topics[0].partitions[0].fetch_offset for r in (first, second)]
    assert (2, 1 << 20) == (
        first.topics[0].partitions[0].partition,
        first.topics[0].partitions[0].partition_max_bytes,
    )
    assert (0, -1) == (first.session_id, first.session_epoch)


def test_the_small_requests_decode():
    created = decoded(frames.create_topics({"a": 1, "b": 6}, configs={"retention.ms": "1"}))
    assert [("a", 1, 1), ("b", 6, 1)] == [
        (t.name, t.num_partitions, t.replication_factor) for t in created.topics
    ]
    assert ["a", "b"] == decoded(frames.delete_topics(["a", "b"])).topic_names
    assert [0, 1] == [p.partition_index for p in decoded(frames.list_ends("a", 2)).topics[0].partitions]
    assert "bench" == decoded(frames.api_versions()).client_software_name


@pytest.mark.parametrize("error", [0, 6])
def test_a_produce_answer_has_the_length_and_the_error_that_the_load_expects(error):
    partition = PartitionProduceResponse(
        index=3, error_code=error, base_offset=1 << 40, log_append_time_ms=-1, log_start_offset=0
    )
    topic = TopicProduceResponse(name="some-topic", partition_responses=[partition])
    answer = encode_response(ProduceResponse(responses=[topic]), 9, 1)

    assert isinstance(answer, bytes)
    assert len(answer) == frames.produce_answer_size("some-topic")
    assert error == frames.produce_error("some-topic", answer)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 1 << 20])
def test_the_size_of_the_records_in_a_fetch_answer_is_found(size):
    partition = FetchedPartition(
        partition_index=0, error_code=0, high_watermark=5, last_stable_offset=5, records=bytes(size)
    )
    topic = FetchableTopicResponse(topic="some-topic", partitions=[partition])
    answer = encode_response(FetchResponse(responses=[topic]), 12, 1)

    whole = answer if isinstance(answer, bytes) else b"".join(bytes(part) for part in answer)

    assert frames.Fetched(0, 5, size) == frames.fetched("some-topic", whole)
