"""What clients are known to trip over, over real sockets. One row for each quirk, and where it is tested.

| quirk | test |
|---|---|
| Q1 ApiVersions of an unknown version | here, test_dispatch |
| Q2 ApiVersions' response header is v0 | here |
| Q4 software names | here, handlers/test_api_versions |
| Q6 answers in request order | here, handlers/test_fetch (a long poll), handlers/test_produce |
| Q7 acks=0 | handlers/test_produce |
| Q8 unsupported versions close | test_dispatch, test_bad_input |
| Q9 Produce is advertised from 0 | here, test_dispatch |
| Q10 zstd to every Fetch version | here |
| Q11 unknown tagged fields | here, test_dispatch; protocol/test_codec (kept) |
| Q12, Q13 ranges that clients choose from | here |
| Q14 all topics and none | here, handlers/test_metadata |
| Q15 topics that are created by asking | here, handlers/test_metadata |
| Q16 the controller is a broker | here |
| Q17 leader epochs | here (a restart raises it), storage/test_log_properties |
| Q18 partitions stay listed without a leader | handlers/test_metadata |
| Q19 current leader epochs | handlers/test_fetch, handlers/test_list_offsets, handlers/test_leader_epochs |
| Q20 the leader in refusals | needs a second broker |
| Q21 topic ids after a topic is made again | handlers/test_produce, here (Fetch) |
| Q22 topic names | here, handlers/test_topics |
| Q23 CreateTopics' defaults | handlers/test_topics |
| Q24 configs are described in full | handlers/test_configs |
| Q25 offsets and epochs are stamped in place | here, handlers/test_produce (LogAppendTime), protocol/test_records |
| Q26, Q27 batches that are refused | handlers/test_produce, protocol/test_validation |
| Q28 idempotent producers | handlers/test_produce; here (a restart) |
| Q29 InitProducerId always works | handlers/test_producers |
| Q30 NOT_ENOUGH_REPLICAS | here |
| Q31-Q36 Fetch | handlers/test_fetch |
| Q37 ListOffsets | handlers/test_list_offsets |
| Q38 OffsetForLeaderEpoch | handlers/test_leader_epochs |
| Q39 ids of new members | test_group_quirks; groups/test_classic_joining |
| Q40 a new group waits for more | test_group_quirks; groups/test_classic_joining |
| Q41 session timeouts | test_group_quirks, handlers/test_groups (v0) |
| Q42 heartbeats | test_group_quirks; groups/test_classic_members (who does not sync is removed) |
| Q43 assignments | test_group_quirks; groups/test_classic_assignment |
| Q44 joining again | test_group_quirks, handlers/test_group_views (an unknown group); groups/test_classic_joining |
| Q45 commits | test_group_quirks, handlers/test_offsets |
| Q46 committed offsets | handlers/test_offset_fetch, test_group_quirks |
| Q47 coordinators | test_group_quirks, handlers/test_coordinators; groups/test_coordinator |
| Q48 groups survive their broker | test_group_quirks (a restart, a kill); groups/test_coordinator |
| Q49 throttle times | here |
| Q50 sizes | test_bad_input, net/test_connection; test_listener (idle) |
| Q51 no telemetry | here |
| Q52 what UIs look at | handlers/test_cluster, handlers/test_metadata |
| Q53 secrets | needs SASL |
| Q54 localhost in both families | here |
"""

from __future__ import annotations

import socket
import time

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol import compression
from kbroker.protocol.frames import decode_response
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kbroker.protocol.messages.list_offsets import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.topics import DeleteTopicsRequest, DeleteTopicState
from kbroker.protocol.records import build_batch, record, split_batches
from kbroker.testing import Broker
from tests.support.raw_client import RawClient, address_of, fetch_request, produce_request, stored


def batch(*values: bytes, **options) -> bytes:
    now = int(time.time() * 1000)
    return build_batch([record(value, timestamp=now) for value in values], **options)


def produced(client, topic, records, version=9):
    return client.ask(produce_request(topic, records), version).responses[0].partition_responses[0]


def fetched(client, topic, version=12, **options):
    return client.ask(fetch_request(topic, **options), version).responses[0].partitions[0]


# -- connections and versions


@pytest.mark.parametrize("version", [5, 9, 127, 32767])
def test_q1_an_unknown_version_of_api_versions_is_answered_in_v0_and_not_closed(client, version):
    body = version.to_bytes(2, "big") + b"\0\0\0\x07\0\x03raw\0" + b"\x02a\x02b\0"
    client.send_bytes((len(body) + 2).to_bytes(4, "big") + b"\0\x12" + body)

    number, answer = decode_response(ApiVersionsResponse, 0, memoryview(client.receive_frame()))

    assert (7, ErrorCode.UNSUPPORTED_VERSION) == (number, answer.error_code)
    [(first, last)] = [(key.min_version, key.max_version) for key in answer.api_keys if key.api_key == 18]
    assert first == 0 <= last < version
    assert 0 == client.ask(ApiVersionsRequest(), 2).error_code


@pytest.mark.parametrize("version", range(5))
def test_q2_the_response_header_of_api_versions_has_no_tagged_fields(client, version):
    client.send(ApiVersionsRequest(client_software_name="a", client_software_version="1"), version)

    frame = client.receive_frame()

    assert b"\0\0\0\x01\0\0" == frame[:6]  # correlation id, and at once the error code


@pytest.mark.parametrize(("name", "code"), [("a-client.1", 0), ("", 42), ("-a", 42), ("a b", 42)])
def test_q4_software_names_have_a_form(client, name, code):
    answer = client.ask(ApiVersionsRequest(client_software_name=name, client_software_version="1"), 3)

    assert code == answer.error_code


def test_q6_answers_come_in_the_order_of_the_requests_whatever_they_take(client, topic):
    client.create(topic)

    client.send(produce_request(topic, batch(b"a")), 9)
    client.send(fetch_request(f"{topic}-not"), 12)
    client.send(MetadataRequest(topics=[]), 9)
    client.send(fetch_request(topic, 0, max_wait_ms=50, min_bytes=1 << 20), 12)
    client.send(produce_request(topic, batch(b"b"), acks=1), 9)

    for _ in range(5):
        client.receive()  # asserts the correlation id


def ranges(client) -> dict[int, tuple[int, int]]:
    answer = client.ask(ApiVersionsRequest(client_software_name="a", client_software_version="1"), 3)
    return {key.api_key: (key.min_version, key.max_version) for key in answer.api_keys}


def test_q9_q12_what_old_clients_choose_from_is_there(client):
    found = ranges(client)

    assert (0, 13) == found[0]  # KAFKA-18659
    # segmentio's Conn takes Fetch 10 and Produce 7, or older ones
    assert found[1][0] <= 4
    assert 10 <= found[1][1]
    assert 7 <= found[0][1]


def test_q51_telemetry_is_not_advertised(client):
    assert not {71, 72} & set(ranges(client))


def test_q11_unknown_tagged_fields_are_skipped(client):
    header = b"\0\x03\0\x09\0\0\0\x09\0\x03raw" + b"\x02\x07\x01a\x09\x02bc"
    body = header + b"\x01\0\0\0" + b"\x01\x63\x03xyz"
    client.send_bytes(len(body).to_bytes(4, "big") + body)

    frame = client.receive_frame()

    assert b"\0\0\0\x09" == frame[:4]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_q54_localhost_is_both_loopbacks(host):
    with Broker({"listeners": "PLAINTEXT://localhost:0"}) as broker:
        port = address_of(broker.bootstrap_servers)[1]
        try:
            client = RawClient((host, port))
        except OSError:
            with socket.socket(socket.AF_INET6) as probe, pytest.raises(OSError, match=r"."):
                probe.bind(("::1", 0))
            return  # this machine has no IPv6
        with client:
            assert client.ask(MetadataRequest(topics=[]), 9).brokers


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, topic: client.ask(MetadataRequest(topics=[]), 9),
        lambda client, topic: client.ask(ApiVersionsRequest(), 2),
        lambda client, topic: client.ask(produce_request(topic, batch(b"a")), 9),
        lambda client, topic: client.ask(fetch_request(topic), 12),
    ],
)
def test_q49_nobody_is_told_to_wait(client, topic, ask):
    client.create(topic)

    assert 0 == ask(client, topic).throttle_time_ms


# -- topics


def test_q14_null_is_all_topics_and_an_empty_list_none(client, topic):
    client.create(topic)

    all_in_v0 = client.ask(MetadataRequest(topics=[]), 0) if ranges(client)[3][0] == 0 else None

    assert topic in [found.name for found in client.ask(MetadataRequest(topics=None), 9).topics]
    assert [] == client.ask(MetadataRequest(topics=[]), 9).topics
    assert all_in_v0 is None or topic in [found.name for found in all_in_v0.topics]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250])
def test_q15_q22_a_bad_name_is_invalid_and_makes_no_topic(client, name):
    answer = client.ask(MetadataRequest(topics=[MetadataRequestTopic(name=name)]), 9)

    assert [ErrorCode.INVALID_TOPIC_EXCEPTION] == [found.error_code for found in answer.topics]
    assert name not in [found.name for found in client.ask(MetadataRequest(topics=None), 9).topics]


def test_q15_a_missing_topic_is_there_after_a_few_tries(client, topic):
    wanted = MetadataRequest(topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=True)
    deadline = time.monotonic() + 60

    while code := client.ask(wanted, 9).topics[0].error_code:
        assert code in (ErrorCode.LEADER_NOT_AVAILABLE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        assert time.monotonic() < deadline

    assert 0 == produced(client, topic, batch(b"a")).error_code


def test_q16_the_controller_is_one_of_the_brokers(client):
    answer = client.ask(MetadataRequest(topics=[]), 9)

    assert answer.controller_id in [broker.node_id for broker in answer.brokers]


def test_q21_the_id_of_a_topic_that_was_made_again_is_unknown_to_readers(client, topic):
    first = client.create(topic)
    assert 0 == fetched(client, first, 13).error_code
    client.ask(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=60_000), 6)

    second = client.create(topic)

    assert ErrorCode.UNKNOWN_TOPIC_ID == fetched(client, first, 13).error_code
    assert 0 == fetched(client, second, 13).error_code


# -- records


@pytest.mark.parametrize("version", range(4, 19))
def test_q10_zstd_goes_to_every_version_of_fetch(client, topic, version):
    topic_id = client.create(topic)
    produced(client, topic, batch(b"a" * 100, codec=compression.ZSTD))

    data = fetched(client, topic if version < 13 else topic_id, version)

    [found] = split_batches(memoryview(bytearray(data.records)))
    assert compression.ZSTD == found.codec


def test_q25_offset_and_epoch_are_the_brokers_and_the_rest_is_the_clients(client, topic):
    client.create(topic)
    records = batch(b"a", b"b")
    produced(client, topic, records)
    produced(client, topic, records)

    first, second = split_batches(memoryview(bytearray(fetched(client, topic).records)))

    assert [(0, 0), (2, 0)] == [(found.base_offset, found.epoch) for found in (first, second)]
    assert {records[16:]} == {bytes(found.view[16:]) for found in (first, second)}
    assert [True, True] == [first.crc_ok, second.crc_ok]


def test_q30_nobody_can_ask_for_more_replicas_than_there_are(client, topic):
    """KIP-966: min.insync.replicas counts up to the number of replicas."""
    client.create(topic, min_insync_replicas=2)

    assert 0 == produced(client, topic, batch(b"a")).error_code


@pytest.mark.parametrize(("acks", "code"), [(-1, ErrorCode.NOT_ENOUGH_REPLICAS), (1, 0)])
def test_q30_too_few_replicas_in_sync_refuse_before_anything_is_stored(acks, code):
    with Broker() as broker, RawClient(address_of(broker.bootstrap_servers)) as client:
        client.create("orders", min_insync_replicas=2)
        broker.call(lambda node: setattr(node.partitions.get("orders", 0), "replicas", 3))

        answer = client.ask(produce_request("orders", batch(b"a"), acks=acks), 9)

        assert code == answer.responses[0].partition_responses[0].error_code
        assert (acks == 1) == bool(stored(client, "orders"))


# -- restarts


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_q17_q28_a_restart_raises_the_epoch_and_knows_its_producers(tmp_path, how):
    sequences = [
        batch(b"%d" % number, producer_id=7, producer_epoch=0, base_sequence=number) for number in range(3)
    ]
    with Broker(data_dir=tmp_path) as broker:
        with RawClient(address_of(broker.bootstrap_servers)) as client:
            client.create("orders")
            for number in range(2):
                assert number == produced(client, "orders", sequences[number]).base_offset
            before = epoch_of(client)
        if how == "kill":
            broker.kill()
            broker.start()
        else:
            broker.restart()
        with RawClient(address_of(broker.bootstrap_servers)) as client:
            again, following = (
                produced(client, "orders", sequences[1]),
                produced(client, "orders", sequences[2]),
            )
            assert [(0, 1), (0, 2)] == [(found.error_code, found.base_offset) for found in (again, following)]
            after = epoch_of(client)
            assert after > before
            assert [(before, 2), (after, 3)] == [end_of(client, epoch) for epoch in (before, after)]


def epoch_of(client) -> int:
    answer = client.ask(MetadataRequest(topics=[MetadataRequestTopic(name="orders")]), 9)
    return answer.topics[0].partitions[0].leader_epoch


def end_of(client, epoch) -> tuple[int, int]:
    asked = [OffsetForLeaderPartition(partition=0, leader_epoch=epoch)]
    answer = client.ask(
        OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic="orders", partitions=asked)]), 4
    )
    [found] = answer.topics[0].partitions
    return found.leader_epoch, found.end_offset
