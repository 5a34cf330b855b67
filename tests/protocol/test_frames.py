"""Frames byte by byte, and headers from nowhere good."""

from __future__ import annotations

import pytest

from kbroker.errors import ProtocolError
from kbroker.protocol.codec import decode
from kbroker.protocol.frames import (
    FRAME_SIZE_MIN,
    decode_request_header,
    decode_response,
    encode_request,
    encode_response,
)
from kbroker.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    SupportedFeatureKey,
)
from kbroker.protocol.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from kbroker.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kbroker.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kbroker.protocol.messages.security import SaslHandshakeRequest, SaslHandshakeResponse

# (message, version, correlation id, the frame with its size); the client id of every request is "c"
GOLDEN_REQUESTS = [
    pytest.param(
        ApiVersionsRequest(),
        0,
        1,
        "0000000b 0012 0000 00000001 0001 63",
        id="ApiVersions v0",
    ),
    pytest.param(
        ApiVersionsRequest(client_software_name="kcat", client_software_version="1.7"),
        3,
        2,
        "00000016 0012 0003 00000002 0001 63 00  05 6b636174 04 312e37 00",
        id="ApiVersions v3",
    ),
    pytest.param(
        ProduceRequest(
            acks=-1,
            timeout_ms=30_000,
            topic_data=[
                TopicProduceData(name="t", partition_data=[PartitionProduceData(index=3, records=b"batch")])
            ],
        ),
        9,
        7,
        "00000024 0000 0009 00000007 0001 63 00  00 ffff 00007530 02 02 74 02 00000003 06 6261746368 00 00 00",
        id="Produce v9",
    ),
    pytest.param(
        FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=50 * 1024 * 1024,
            topics=[
                FetchTopic(
                    topic="t",
                    partitions=[
                        FetchPartition(current_leader_epoch=5, fetch_offset=10, partition_max_bytes=1 << 20)
                    ],
                )
            ],
        ),
        12,
        9,
        "0000004e 0001 000c 00000009 0001 63 00"
        "ffffffff 000001f4 00000001 03200000 00 00000000 ffffffff"
        "02 02 74 02 00000000 00000005 000000000000000a ffffffff ffffffffffffffff 00100000 00 00"
        "01 01 00",
        id="Fetch v12",
    ),
    pytest.param(
        MetadataRequest(topics=[MetadataRequestTopic(name="t")]),
        12,
        4,
        "00000023 0003 000c 00000004 0001 63 00  02 00000000000000000000000000000000 02 74 00 01 00 00",
        id="Metadata v12",
    ),
]

GOLDEN_RESPONSES = [
    pytest.param(
        ApiVersionsResponse(
            api_keys=[
                ApiVersion(api_key=0, min_version=3, max_version=13),
                ApiVersion(api_key=18, min_version=0, max_version=4),
            ]
        ),
        0,
        1,
        "00000016 00000001 0000 00000002 0000 0003 000d 0012 0000 0004",
        id="ApiVersions v0",
    ),
    pytest.param(
        # the header is v0 although the body is flexible
        ApiVersionsResponse(
            api_keys=[ApiVersion(api_key=18, min_version=0, max_version=4)],
            supported_features=[SupportedFeatureKey(name="m", min_version=1, max_version=7)],
            finalized_features_epoch=5,
        ),
        3,
        2,
        "00000027 00000002  0000 02 0012 0000 0004 00 00000000"
        "02 00 08 02 02 6d 0001 0007 00  01 08 0000000000000005",
        id="ApiVersions v3",
    ),
    pytest.param(
        ProduceResponse(
            responses=[
                TopicProduceResponse(
                    name="t",
                    partition_responses=[
                        PartitionProduceResponse(index=3, base_offset=100, log_start_offset=0)
                    ],
                )
            ]
        ),
        9,
        7,
        "00000030 00000007 00"
        "02 02 74 02 00000003 0000 0000000000000064 ffffffffffffffff 0000000000000000 01 00 00 00 00000000 00",
        id="Produce v9",
    ),
    pytest.param(
        FetchResponse(
            responses=[
                FetchableTopicResponse(
                    topic="t",
                    partitions=[
                        PartitionData(
                            high_watermark=11,
                            last_stable_offset=11,
                            log_start_offset=0,
                            aborted_transactions=None,
                            records=b"batch",
                        )
                    ],
                )
            ]
        ),
        12,
        9,
        "0000003f 00000009 00  00000000 0000 00000000"
        "02 02 74 02 00000000 0000 000000000000000b 000000000000000b 0000000000000000 00 ffffffff 06 6261746368 00"
        "00 00",
        id="Fetch v12",
    ),
    pytest.param(
        MetadataResponse(
            brokers=[MetadataResponseBroker(node_id=1, host="localhost", port=9092)],
            cluster_id="c",
            controller_id=1,
            topics=[
                MetadataResponseTopic(
                    name="t",
                    topic_id=bytes(range(16)),
                    partitions=[
                        MetadataResponsePartition(
                            leader_id=1, leader_epoch=5, replica_nodes=[1], isr_nodes=[1]
                        )
                    ],
                )
            ],
        ),
        12,
        4,
        "0000005b 00000004 00  00000000"
        "02 00000001 0a 6c6f63616c686f7374 00002384 00 00  02 63  00000001"
        "02 0000 02 74 000102030405060708090a0b0c0d0e0f 00"
        "02 0000 00000000 00000001 00000005 02 00000001 02 00000001 01 00  80000000 00  00",
        id="Metadata v12",
    ),
]


@pytest.mark.parametrize(("message", "version", "correlation_id", "expected"), GOLDEN_REQUESTS)
def test_requests_byte_by_byte(message, version, correlation_id, expected):
    frame = b"".join(encode_request(message, version, correlation_id, "c"))

    assert bytes.fromhex(expected) == frame
    header = decode_request_header(memoryview(frame), 4)
    assert (message.API_KEY, version, correlation_id) == (
        header.api_key,
        header.api_version,
        header.correlation_id,
    )
    assert "c" == header.client_id
    assert message == decode(type(message), version, memoryview(frame), header.body)


@pytest.mark.parametrize(("message", "version", "correlation_id", "expected"), GOLDEN_RESPONSES)
def test_responses_byte_by_byte(message, version, correlation_id, expected):
    frame = encode_response(message, version, correlation_id)

    assert bytes.fromhex(expected) == frame
    assert (correlation_id, message) == decode_response(type(message), version, memoryview(frame)[4:])


def test_large_records_follow_the_header_as_parts():
    records = bytes(3_000)
    response = FetchResponse(
        responses=[FetchableTopicResponse(topic="t", partitions=[PartitionData(records=records)] * 2)]
    )

    parts = encode_response(response, 12, 9)

    assert [bytes, bytes, bytes, bytes, bytes] == [type(part) for part in parts]
    assert records is parts[1]
    assert records is parts[3]
    frame = b"".join(parts)
    assert len(frame) - 4 == int.from_bytes(frame[:4], "big")
    assert (9, response) == decode_response(FetchResponse, 12, memoryview(frame)[4:])


def test_sasl_handshake_is_never_flexible():
    asked = b"".join(encode_request(SaslHandshakeRequest(mechanism="PLAIN"), 1, 1, None))
    assert bytes.fromhex("00000011 0011 0001 00000001 ffff 0005 504c41494e") == asked
    assert bytes.fromhex("0000000a 00000001 0021 00000000") == encode_response(
        SaslHandshakeResponse(error_code=33), 1, 1
    )


def test_the_client_id_may_be_null_or_empty():
    null = decode_request_header(memoryview(bytes.fromhex("0012 0000 00000001 ffff")))
    empty = decode_request_header(memoryview(bytes.fromhex("0012 0000 00000001 0000")))

    assert (None, 10) == (null.client_id, null.body)
    assert ("", 10) == (empty.client_id, empty.body)


def test_a_flexible_header_may_carry_tagged_fields_which_are_skipped():
    frame = memoryview(bytes.fromhex("0012 0003 00000001 0001 63  02 00 02 aabb 85 01 00  05"))

    header = decode_request_header(frame)

    assert "c" == header.client_id
    assert b"\x05" == frame[header.body :]


def test_headers_of_unknown_keys_and_versions_are_read_so_that_somebody_can_name_the_client():
    unknown = decode_request_header(memoryview(bytes.fromhex("7fff 0063 00000001 0001 63")))
    newer = decode_request_header(memoryview(bytes.fromhex("0012 0063 00000001 0001 63 00")))

    assert (32_767, 99, "c", 11) == (unknown.api_key, unknown.api_version, unknown.client_id, unknown.body)
    assert (18, 99, "c", 12) == (newer.api_key, newer.api_version, newer.client_id, newer.body)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("", id="empty"),
        pytest.param("0012 0003 00000001 00", id="one byte short of the smallest"),
        pytest.param("0012 0000 00000001 0005 63", id="client id cut"),
        pytest.param("0012 0000 00000001 0002 c328", id="client id not UTF-8"),
        pytest.param("0012 0003 00000001 0001 63", id="tagged fields missing"),
        pytest.param("0012 0003 00000001 0001 63 01", id="tagged field missing"),
        pytest.param("0012 0003 00000001 0001 63 01 00 05 61", id="tagged field cut"),
        pytest.param("0012 0003 00000001 0001 63 ffffffffff 01", id="endless count"),
        pytest.param("0012 0003 00000001 0001 63 ffffffff0f 00 00", id="hostile count"),
    ],
)
def test_broken_headers_are_refused(frame):
    with pytest.raises(ProtocolError):
        decode_request_header(memoryview(bytes.fromhex(frame)))


def test_a_header_does_not_reach_into_the_next_frame():
    """The shared receive buffer goes on after `end`."""
    buf = memoryview(bytes.fromhex("0012 0003 00000001 0001 63  00 05"))

    with pytest.raises(ProtocolError):
        decode_request_header(buf, 0, 11)
    with pytest.raises(ProtocolError):
        decode_request_header(buf, 0, FRAME_SIZE_MIN)


def test_broken_responses_are_refused():
    with pytest.raises(ProtocolError):
        decode_response(ApiVersionsResponse, 0, memoryview(b"\0\0\0"))
    with pytest.raises(ProtocolError):
        decode_response(MetadataResponse, 12, memoryview(b"\0\0\0\1"))
