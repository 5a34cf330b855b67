"""The codec alone: round trips, what a version lacks, parts, and bytes from nowhere good."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import pytest

from kbroker.errors import ProtocolError
from kbroker.protocol.codec import decode, encode
from kbroker.protocol.messages import APIS, REQUESTS, RESPONSES, topics
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kbroker.protocol.messages.fetch import (
    EpochEndOffset,
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    LeaderIdAndEpoch,
    PartitionData,
    SnapshotId,
)
from kbroker.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kbroker.protocol.messages.metadata import (
    Cursor,
    DescribeTopicPartitionsRequest,
    MetadataRequest,
    MetadataResponse,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.messages.security import SaslAuthenticateRequest
from kbroker.protocol.messages.topics import DeleteTopicsRequest, DeleteTopicState
from kbroker.protocol.wire import ZERO_UUID
from tests.support.random_messages import RandomMessages

NAMES = [name for _, name in APIS.values()]


def every_version(key):
    """(class, version) for all versions of both directions of an API."""
    for classes in (REQUESTS, RESPONSES):
        first, last = classes[key].VALID
        for version in range(first, last + 1):
            yield classes[key], version


def body_of(message, version) -> bytes:
    return b"".join(encode(message, version))


def refused(cls, version, body) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(cls, version, memoryview(body))
    return str(caught.value)


@pytest.mark.parametrize("key", APIS, ids=NAMES)
def test_messages_come_back_with_tagged_fields_that_nobody_declared(key):
    for cls, version in every_version(key):
        random = RandomMessages((key, version, cls.__name__), unknown_tags=True)
        for _ in range(3):
            message = random.message(cls, version)
            body = body_of(message, version)
            again = decode(cls, version, memoryview(body))
            assert message == again, version
            assert body == body_of(again, version), version


@pytest.mark.parametrize("key", APIS, ids=NAMES)
def test_a_frame_cut_anywhere_is_refused(key):
    for cls, version in every_version(key):
        random = RandomMessages(("cut", key, version, cls.__name__), unknown_tags=True)
        body = memoryview(body_of(random.message(cls, version), version))
        for size in range(min(len(body), 400)):
            with pytest.raises(ProtocolError):
                decode(cls, version, body[:size])


@pytest.mark.parametrize("key", APIS, ids=NAMES)
def test_bytes_after_a_request_are_ignored_and_after_a_response_refused(key):
    """As Kafka reads requests; librdkafka 2.16 sends three bytes too many (Metadata v13, all topics)."""
    for cls, version in every_version(key):
        body = body_of(RandomMessages(("after", key, version, cls.__name__)).message(cls, version), version)
        longer = memoryview(body + b"\1\0\0")
        if cls.__name__.endswith("Request"):
            assert decode(cls, version, memoryview(body)) == decode(cls, version, longer)
        else:
            with pytest.raises(ProtocolError):
                decode(cls, version, longer)


@pytest.mark.parametrize("key", APIS, ids=NAMES)
def test_damaged_frames_give_a_message_or_a_protocol_error(key):
    for cls, version in every_version(key):
        random = RandomMessages(("damage", key, version, cls.__name__))
        body = body_of(random.message(cls, version), version)
        for _ in range(25):
            damaged = bytearray(body) or bytearray(b"\0")
            for _ in range(random.rng.randrange(1, 4)):
                at = random.rng.randrange(len(damaged))
                damaged[at] = random.rng.choice((0, 1, 0x7F, 0x80, 0xFF, random.rng.randrange(256)))
            try:
                decode(cls, version, memoryview(damaged))
            except ProtocolError:
                pass
        for _ in range(10):
            noise = random.rng.randbytes(random.rng.randrange(80))
            try:
                decode(cls, version, memoryview(noise))
            except ProtocolError:
                pass


HOSTILE_COUNTS = [
    pytest.param(1, "7fff ffff", id="int32 max"),
    pytest.param(1, "000f 4240", id="a million"),
    pytest.param(12, "ffff ffff 0f", id="compact, 2^32 - 2"),
    pytest.param(12, "c1 84 3d", id="compact, a million"),
]


@pytest.mark.parametrize(("version", "count"), HOSTILE_COUNTS)
def test_a_count_that_the_bytes_cannot_hold_allocates_nothing(version, count):
    body = bytes.fromhex(count) + bytes(16)
    decode(
        MetadataRequest, version, memoryview(body_of(MetadataRequest(), version))
    )  # compiled before we measure

    peaks = []
    for _ in range(3):  # a broker that runs beside this test may take some memory for itself
        tracemalloc.start()
        try:
            said = refused(MetadataRequest, version, body)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    assert said.startswith("topics of ")
    assert min(peaks) < 20_000


def test_more_than_a_million_elements_are_refused_even_if_the_bytes_are_there():
    body = (1_000_001).to_bytes(4, "big") + bytes(2_000_002)

    assert "topics of 1000001 elements" in refused(MetadataRequest, 1, body)


def test_elements_are_bounded_for_the_message_as_a_whole():
    """Arrays of arrays multiply: 3 topics of 400,000 partitions, 12 bytes each."""
    topic = bytes.fromhex("0001 74") + (400_000).to_bytes(4, "big") + bytes(400_000 * 12)
    body = bytes.fromhex("ffffffff 00000003") + topic * 3

    assert "partitions of 1200003 elements" in refused(ListOffsetsRequest, 1, body)


def test_tagged_fields_are_bounded_for_the_message_as_a_whole():
    """101 topics with 10,000 tagged fields each."""
    topic = bytes(16) + b"\x02t" + bytes.fromhex("904e") + b"\x05\x00" * 10_000
    body = bytes([102]) + topic * 101 + bytes.fromhex("01 00 00")

    assert "tagged fields of 1000101 elements" in refused(MetadataRequest, 12, body)
    assert 99 == len(decode(MetadataRequest, 12, memoryview(bytes([100]) + topic * 99 + b"\1\0\0")).topics)


def test_an_array_of_ints_is_measured_by_the_size_of_an_int():
    body = bytes.fromhex("0000 00010001 614000 0000") + bytes(100)

    assert "partition_indexes of 1073741824 elements" in refused(REQUESTS[9], 1, b"\0\0" + body)


def test_tagged_fields_are_bounded_by_number():
    body = bytes.fromhex("02 6102 31914e") + bytes(2 * 10_001)  # client a 1, then 10,001 tagged fields

    assert "tagged fields of 10001 elements" in refused(ApiVersionsRequest, 3, body)


def test_tagged_fields_are_bounded_by_the_bytes_left():
    assert "tagged fields of 100" in refused(ApiVersionsRequest, 3, bytes.fromhex("02 61 02 31 64 00 00"))
    assert "tagged field of 9 bytes" in refused(
        ApiVersionsRequest, 3, bytes.fromhex("02 61 02 31 01 05 09 00")
    )


def test_a_tagged_field_that_does_not_fill_its_size_is_refused():
    body = bytearray(body_of(FetchRequest(cluster_id="abc"), 12))
    at = body.index(b"\x04abc")
    assert bytes.fromhex("01 00 04") == body[at - 3 : at]  # one field, tag 0, 4 bytes
    body[at - 1] = 5

    assert "cluster_id" in refused(FetchRequest, 12, bytes(body) + b"\0")


def test_a_declared_tag_is_unknown_to_versions_before_it():
    """Fetch v15 meets the high watermark of v18 (tag 1): kept as bytes, and sent on."""
    newer = FetchRequest(
        topics=[FetchTopic(topic_id=b"i" * 16, partitions=[FetchPartition(high_watermark=7)])]
    )
    body = body_of(newer, 18)

    older = decode(FetchRequest, 15, memoryview(body))

    partition = older.topics[0].partitions[0]
    assert {1: (7).to_bytes(8, "big")} == partition.unknown_tags
    assert 2**63 - 1 == partition.high_watermark
    assert body == body_of(older, 15)


def test_invalid_utf8_is_refused():
    assert "not UTF-8" in refused(ApiVersionsRequest, 3, bytes.fromhex("03 c328 02 31 00"))
    assert "not UTF-8" in refused(ProduceRequest, 3, bytes.fromhex("0002 c328 0001 00000000 00000000"))


def test_null_is_refused_where_the_schema_has_none():
    assert "client_software_name is null" in refused(ApiVersionsRequest, 3, bytes.fromhex("00 02 31 00"))
    assert "topics is null" in refused(ListOffsetsRequest, 1, bytes.fromhex("ffffffff ffffffff"))
    assert "topics is null" in refused(MetadataRequest, 0, bytes.fromhex("ffffffff"))


def test_an_endless_varint_is_refused():
    assert "varint" in refused(MetadataRequest, 9, b"\x80" * 50)


def test_a_string_of_more_than_int16_bytes_is_refused_both_ways():
    with pytest.raises(ValueError, match="32767"):
        encode(ApiVersionsRequest(client_software_name="x" * 32_768), 3)
    with pytest.raises(ValueError, match="ProduceRequest"):
        encode(ProduceRequest(transactional_id="x" * 32_768), 3)
    assert "string of 32768 bytes" in refused(ApiVersionsRequest, 3, b"\x81\x80\x02" + b"x" * 32_770)

    longest = ApiVersionsRequest(client_software_name="x" * 32_767)
    assert longest == decode(ApiVersionsRequest, 3, memoryview(body_of(longest, 3)))


def test_long_arrays_have_long_counts():
    partitions = [ListOffsetsPartition(partition_index=i, timestamp=-1) for i in range(300)]
    message = ListOffsetsRequest(topics=[ListOffsetsTopic(name="t", partitions=partitions)])
    for version in (4, 6):
        assert message == decode(ListOffsetsRequest, version, memoryview(body_of(message, version)))


@pytest.mark.parametrize("version", [8, 12])
def test_replica_lists_of_any_length_and_in_any_number_come_back(version):
    """Each combination of lengths has a layout of its own; they are kept up to a limit."""
    partitions = [
        MetadataResponsePartition(partition_index=i, replica_nodes=[i] * (i % 40), isr_nodes=[7] * (i // 40))
        for i in range(1_200)
    ]
    partitions.append(MetadataResponsePartition(replica_nodes=[1] * 127, isr_nodes=[2] * 20_000))
    message = MetadataResponse(topics=[MetadataResponseTopic(name="t", partitions=partitions)])

    assert message == decode(MetadataResponse, version, memoryview(body_of(message, version)))


def test_versions_that_do_not_exist_are_refused():
    assert "3-13, not 2" in refused(ProduceRequest, 2, b"")
    assert "not 14" in refused(ProduceRequest, 14, b"")
    assert "not -1" in refused(ProduceRequest, -1, b"")
    with pytest.raises(ValueError, match="3-13, not 99"):
        encode(ProduceRequest(), 99)


def test_decode_reads_a_stretch_of_a_larger_buffer():
    body = body_of(ApiVersionsRequest(client_software_name="kcat", client_software_version="1"), 3)
    frame = memoryview(b"header" + body + b"next")

    found = decode(ApiVersionsRequest, 3, frame, 6, 6 + len(body))

    assert "kcat" == found.client_software_name


def test_decoded_records_are_a_view_of_the_frame_and_all_else_is_copied():
    request = ProduceRequest(
        topic_data=[TopicProduceData(name="t", partition_data=[PartitionProduceData(records=b"batch")])]
    )
    frame = bytearray(body_of(request, 9))

    found = decode(ProduceRequest, 9, memoryview(frame))
    view = found.topic_data[0].partition_data[0].records
    view[0:1] = b"B"

    assert b"Batch" in frame
    frame[:] = bytes(len(frame))
    assert "t" == found.topic_data[0].name
    auth = decode(SaslAuthenticateRequest, 1, memoryview(bytearray.fromhex("00000002 6162")))
    assert (b"ab", bytes) == (auth.auth_bytes, type(auth.auth_bytes))


def test_a_field_that_the_version_lacks_must_be_ignorable_or_have_its_default():
    with pytest.raises(ValueError, match=r"DeleteTopicsRequest\.topics is set"):
        encode(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")]), 5)
    with pytest.raises(ValueError, match=r"PartitionData\.current_leader is set"):
        encode(one_partition(PartitionData(current_leader=LeaderIdAndEpoch())), 11)

    # ignorable: dropped
    request = FetchRequest(rack_id="r1", topics=[FetchTopic(topic="t", topic_id=b"i" * 16)])
    assert ("", ZERO_UUID) == dropped(request, 4)
    assert DeleteTopicsRequest() == decode(
        DeleteTopicsRequest, 6, encode(DeleteTopicsRequest(topic_names=["t"]), 6)[0]
    )


def dropped(request: FetchRequest, version: int) -> tuple[str, bytes]:
    again = decode(FetchRequest, version, memoryview(body_of(request, version)))
    return again.rack_id, again.topics[0].topic_id


def test_values_that_do_not_fit_are_value_errors():
    for wrong in (
        ProduceRequest(acks=40_000),
        ProduceRequest(acks="all"),
        ProduceRequest(topic_data=[TopicProduceData(name=None)]),
        ProduceRequest(topic_data=None),
    ):
        with pytest.raises(ValueError, match="ProduceRequest v9"):
            encode(wrong, 9)


class Region:
    """Stands for a stretch of a file: has a size, and must never be read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def one_partition(data: PartitionData) -> FetchResponse:
    return FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[data])])


SIZES = {  # (size, compact): as it stands before the records
    (5, False): bytes.fromhex("00000005"),
    (5, True): bytes.fromhex("06"),
    (2_000, False): bytes.fromhex("000007d0"),
    (2_000, True): bytes.fromhex("d10f"),
    (5_000, False): bytes.fromhex("00001388"),
    (5_000, True): bytes.fromhex("8927"),
}


@pytest.mark.parametrize("version", [4, 11, 12])
@pytest.mark.parametrize("records", [Region(5), Region(5_000), bytes(2_000), memoryview(bytes(2_000))])
def test_file_regions_and_large_records_are_parts_of_their_own(version, records):
    parts = encode(one_partition(PartitionData(records=records)), version)

    assert records is parts[1]
    assert bytes is type(parts[0])
    assert parts[0].endswith(SIZES[len(records), version >= 12])


@pytest.mark.parametrize("version", [4, 12])
@pytest.mark.parametrize(
    "records", [None, b"", b"small", memoryview(b"small"), bytearray(b"small"), Region(0)]
)
def test_small_records_are_joined_with_what_is_around_them(version, records):
    parts = encode(one_partition(PartitionData(records=records)), version)

    assert 1 == len(parts)
    data = decode(FetchResponse, version, memoryview(parts[0])).responses[0].partitions[0]
    assert (None if records is None else b"small" if len(records) else b"") == data.records


def test_tagged_structs_are_left_out_when_none_or_default():
    plain = body_of(one_partition(PartitionData()), 12)
    assert plain == body_of(one_partition(PartitionData(diverging_epoch=EpochEndOffset())), 12)

    full = PartitionData(
        diverging_epoch=EpochEndOffset(epoch=3, end_offset=40),
        current_leader=LeaderIdAndEpoch(leader_id=1, leader_epoch=4),
        snapshot_id=SnapshotId(end_offset=9, epoch=1),
    )
    full.unknown_tags = {1_000: b"later"}
    assert one_partition(full) == decode(FetchResponse, 12, memoryview(body_of(one_partition(full), 12)))


def test_a_nullable_struct_has_a_marker_in_front():
    """KIP-893: 0xff is null, 1 says that the struct follows."""
    assert bytes.fromhex("01 000007d0 ff 00") == body_of(DescribeTopicPartitionsRequest(), 0)
    cursor = Cursor(topic_name="t", partition_index=5)
    assert bytes.fromhex("01 000007d0 01 0274 00000005 00 00") == body_of(
        DescribeTopicPartitionsRequest(cursor=cursor), 0
    )


def test_constructors_take_keywords_and_start_from_kafkas_defaults():
    one, other = ApiVersionsResponse(), ApiVersionsResponse(throttle_time_ms=3)

    assert (0, 3) == (one.throttle_time_ms, other.throttle_time_ms)
    assert one.api_keys is not other.api_keys
    assert -1 == one.finalized_features_epoch
    with pytest.raises(TypeError):
        ApiVersionsResponse(throttle=3)


def test_messages_show_themselves_but_not_their_bytes():
    shown = repr(SaslAuthenticateRequest(auth_bytes=b"secret"))

    assert "SaslAuthenticateRequest(auth_bytes=<6 bytes>)" == shown


def test_families_are_imported_when_somebody_asks_for_them():
    script = (
        "import sys; from kbroker.protocol.messages import REQUESTS\n"
        "print([m for m in sys.modules if m.startswith('kbroker.protocol.messages.')], REQUESTS[18].__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert "[] ApiVersionsRequest\n" == done.stdout


@pytest.mark.parametrize("key", APIS, ids=NAMES)
def test_every_api_has_a_described_request_and_response(key):
    for classes, kind in ((REQUESTS, "Request"), (RESPONSES, "Response")):
        cls = classes[key]
        assert (key, APIS[key][1] + kind) == (cls.API_KEY, cls.__name__)
        assert cls.__doc__
    assert (REQUESTS[key].VALID, REQUESTS[key].FLEXIBLE) == (RESPONSES[key].VALID, RESPONSES[key].FLEXIBLE)


@pytest.mark.parametrize("version", [4, 5, 7])
def test_a_list_that_several_structs_hold_is_written_for_each(version):
    """Encoded once, and sent as if each had its own; null and none stay what they are."""
    row = topics.CreatableTopicConfigs(name="retention.ms", value="1")
    held = [row, topics.CreatableTopicConfigs(name="é", value=None, is_sensitive=True)]

    def response(*lists):
        return topics.CreateTopicsResponse(
            topics=[topics.CreatableTopicResult(name=str(n), configs=of) for n, of in enumerate(lists)]
        )

    sharing = encode(response(held, [], None, held, [row]), version)
    assert encode(response(held, [], None, list(held), [row]), version) == sharing
    if version >= 5:
        told = decode(topics.CreateTopicsResponse, version, b"".join(map(bytes, sharing)))
        assert [held, [], None, held, [row]] == [topic.configs for topic in told.topics]
