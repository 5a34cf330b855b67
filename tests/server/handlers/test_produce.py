from __future__ import annotations

import os
import time

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol import compression
from kbroker.protocol.messages.groups import FindCoordinatorRequest
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.records import build_batch, record, split_batches
from tests.support.batches import three, with_crc, with_fields, with_records
from tests.support.raw_client import fetch_request, produce_request, stored

ACKS_ALL = -1


def batch(*values: bytes, **options) -> bytes:
    now = int(time.time() * 1000)
    return build_batch([record(value, key=b"k", timestamp=now) for value in values], **options)


def answer_of(response):
    [topic] = response.responses
    [partition] = topic.partition_responses
    return partition


# -- what is stored


@pytest.mark.parametrize("acks", [-1, 1])
@pytest.mark.parametrize("version", range(3, 14))
def test_batches_get_the_next_offsets_in_every_version(client, topic, version, acks):
    topic_id = client.create(topic)
    name = topic if version < 13 else topic_id

    first = answer_of(client.ask(produce_request(name, batch(b"a", b"b"), acks=acks), version))
    second = answer_of(client.ask(produce_request(name, batch(b"c"), acks=acks), version))

    assert [(0, 0), (0, 2)] == [(answer.error_code, answer.base_offset) for answer in (first, second)]
    assert -1 == second.log_append_time_ms
    assert (0 if version >= 5 else -1) == second.log_start_offset
    assert [(0, b"a"), (1, b"b"), (2, b"c")] == stored(client, topic)


def test_many_requests_in_one_write_are_answered_in_order(client, topic):
    client.create(topic)
    numbers = range(50)

    for number in numbers:
        client.send(produce_request(topic, batch(b"%d" % number)), 9)

    assert list(numbers) == [answer_of(client.receive()).base_offset for _ in numbers]


def test_partitions_of_one_request_stand_for_themselves(client, topic):
    client.create(topic, 3)
    parts = [
        PartitionProduceData(index=index, records=None if records is None else memoryview(records))
        for index, records in ((2, batch(b"two")), (0, None), (9, batch(b"nine")), (1, batch(b"one")))
    ]

    response = client.ask(
        ProduceRequest(
            acks=-1, timeout_ms=5000, topic_data=[TopicProduceData(name=topic, partition_data=parts)]
        ),
        9,
    )

    assert {
        2: ErrorCode.NONE,
        0: ErrorCode.INVALID_RECORD,
        9: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        1: ErrorCode.NONE,
    } == {answer.index: answer.error_code for answer in response.responses[0].partition_responses}
    assert [(0, b"two")] == stored(client, topic, 2)
    assert [] == stored(client, topic, 0)
    assert [(0, b"one")] == stored(client, topic, 1)


def test_log_append_time_is_the_brokers(client, topic):
    client.create(topic, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)

    answer = answer_of(client.ask(produce_request(topic, three()), 9))

    assert before - 1000 <= answer.log_append_time_ms <= int(time.time() * 1000) + 1000


# -- acks


def test_acks_0_is_answered_by_nothing(client, topic):
    client.create(topic)

    for _ in range(3):
        client.send_bytes(b"".join(_encoded(produce_request(topic, batch(b"x"), acks=0))))

    assert 3 == answer_of(client.ask(produce_request(topic, batch(b"y")), 9)).base_offset
    assert 4 == len(stored(client, topic))


def test_acks_0_and_an_error_closes(connect, client, topic):
    client.create(topic)

    client.send_bytes(b"".join(_encoded(produce_request(topic, b"rubbish" * 20, acks=0))))

    assert client.closed()
    assert [] == stored(connect(), topic)


@pytest.mark.parametrize("acks", [2, -2, 5, 32767])
def test_other_acks_are_refused_also_from_a_connection_that_has_produced(connect, topic, acks):
    client = connect()
    client.create(topic)

    answers = [answer_of(client.ask(produce_request(topic, batch(b"x"), acks=acks), 9)) for _ in range(3)]
    client.ask(produce_request(topic, batch(b"stored")), 9)
    answers.append(answer_of(client.ask(produce_request(topic, batch(b"x"), acks=acks), 9)))

    assert {(ErrorCode.INVALID_REQUIRED_ACKS, -1)} == {
        (answer.error_code, answer.base_offset) for answer in answers
    }
    assert [(0, b"stored")] == stored(client, topic)


def _encoded(request, version: int = 9):
    from kbroker.protocol.frames import encode_request

    return encode_request(request, version, 1, "raw")


# -- what is refused

GOOD = three()
NO_LENGTH = GOOD[:8] + b"\xff\xff\xff\xff" + GOOD[12:]


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(
    ("records", "code"),
    [
        pytest.param(None, ErrorCode.INVALID_RECORD, id="null"),
        pytest.param(b"", ErrorCode.INVALID_RECORD, id="empty"),
        pytest.param(GOOD + GOOD, ErrorCode.INVALID_RECORD, id="two batches"),
        pytest.param(with_fields(GOOD, crc=1), ErrorCode.CORRUPT_MESSAGE, id="crc"),
        pytest.param(with_fields(GOOD, count=2), ErrorCode.INVALID_RECORD, id="count too small"),
        pytest.param(
            with_fields(GOOD, count=4, last_offset_delta=3), ErrorCode.INVALID_RECORD, id="count too large"
        ),
        pytest.param(with_fields(GOOD, last_offset_delta=9), ErrorCode.INVALID_RECORD, id="last offset"),
        pytest.param(with_fields(GOOD, base_offset=5), ErrorCode.INVALID_RECORD, id="base offset"),
        pytest.param(with_fields(GOOD, attributes=0x20), ErrorCode.INVALID_RECORD, id="control"),
        pytest.param(
            with_fields(GOOD, producer_id=5, base_sequence=-1), ErrorCode.INVALID_RECORD, id="no sequence"
        ),
        pytest.param(with_crc(GOOD[:61] + b"\x7f" + GOOD[62:]), ErrorCode.INVALID_RECORD, id="record length"),
    ],
)
def test_a_batch_that_does_not_add_up_is_refused_and_not_stored(client, topic, records, code, repeated):
    client.create(topic)
    before = []
    if repeated:
        client.ask(produce_request(topic, batch(b"before")), 9)
        before = [(0, b"before")]

    answer = answer_of(client.ask(produce_request(topic, records), 9))

    assert (code, -1) == (answer.error_code, answer.base_offset)
    assert before == stored(client, topic)
    after = answer_of(client.ask(produce_request(topic, batch(b"after")), 9))
    assert (0, len(before)) == (after.error_code, after.base_offset)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(GOOD[:-1], id="cut"),
        pytest.param(GOOD[:40], id="cut in the header"),
        pytest.param(GOOD[:5], id="cut in the size"),
        pytest.param(NO_LENGTH, id="negative length"),
        pytest.param(with_fields(GOOD, batch_length=len(GOOD)), id="length beyond"),
        pytest.param(with_fields(GOOD, batch_length=10), id="length too small"),
        pytest.param(GOOD + b"rest", id="something behind"),
    ],
)
def test_lengths_that_do_not_add_up_are_refused_and_the_connection_goes_on(client, topic, records):
    client.create(topic)

    answer = answer_of(client.ask(produce_request(topic, records), 9))

    assert answer.error_code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD)
    assert [] == stored(client, topic)


@pytest.mark.parametrize("magic", [0, 1, 3, -1])
def test_other_formats_are_refused(client, topic, magic):
    client.create(topic)

    answer = answer_of(client.ask(produce_request(topic, with_fields(GOOD, magic=magic)), 9))

    assert answer.error_code in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
    assert [] == stored(client, topic)


def test_a_batch_larger_than_the_topic_takes_is_too_large(client, topic):
    client.create(topic, max_message_bytes=1000)

    answer = answer_of(client.ask(produce_request(topic, batch(b"x" * 2000)), 9))

    assert ErrorCode.MESSAGE_TOO_LARGE == answer.error_code


def test_records_of_the_future_are_told_one_by_one(client, topic):
    client.create(topic)
    late = int(time.time() * 1000) + 10 * 3_600_000
    records = build_batch([record(b"now", timestamp=late - 10 * 3_600_000), record(b"late", timestamp=late)])

    answer = answer_of(client.ask(produce_request(topic, records), 9))

    assert ErrorCode.INVALID_TIMESTAMP == answer.error_code
    assert [1] == [error.batch_index for error in answer.record_errors]


@pytest.mark.parametrize(("version", "code"), [(9, 3), (13, 100)])
def test_an_unknown_topic_is_unknown(client, version, code):
    name = "nobody-knows-it" if version < 13 else b"\x77" * 16

    answer = answer_of(client.ask(produce_request(name, GOOD), version))

    assert code == answer.error_code


@pytest.mark.parametrize("version", [9, 13])
@pytest.mark.parametrize("index", [5, -1])
def test_an_unknown_partition_of_a_known_topic_is_unknown_by_name_and_by_id(client, topic, version, index):
    topic_id = client.create(topic)

    answer = answer_of(
        client.ask(produce_request(topic if version < 13 else topic_id, GOOD, partition=index), version)
    )

    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == answer.error_code


# -- idempotence


@pytest.mark.parametrize(
    ("client_id", "code"), [("raw", ErrorCode.INVALID_TOPIC_EXCEPTION), ("__admin_client", 0)]
)
def test_internal_topics_are_written_by_the_broker_and_by_tools_of_a_certain_name(connect, client_id, code):
    client = connect()
    found = FindCoordinatorRequest(key_type=0, coordinator_keys=["group"])
    while client.ask(found, 4).coordinators[0].error_code:
        pass
    client.client_id = client_id
    tombstone = build_batch([record(None, key=b"\x7f\xff", timestamp=int(time.time() * 1000))])

    for _ in range(3):
        answer = answer_of(client.ask(produce_request("__consumer_offsets", tombstone, partition=49), 9))
        assert code == answer.error_code


def idempotent(sequence: int, *values: bytes, producer_id: int = 4711, epoch: int = 0) -> bytes:
    return batch(*values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def test_a_batch_that_comes_again_gets_its_first_offset(client, topic):
    client.create(topic)
    batches = [idempotent(2 * n, b"a%d" % n, b"b%d" % n) for n in range(6)]
    for records in batches:
        client.ask(produce_request(topic, records), 9)

    again = [answer_of(client.ask(produce_request(topic, records), 9)) for records in batches]

    assert [(0, 2 * n) for n in range(1, 6)] == [
        (answer.error_code, answer.base_offset) for answer in again[1:]
    ]
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == again[0].error_code  # older than the last five
    assert 12 == len(stored(client, topic))


@pytest.mark.parametrize(
    ("sequence", "epoch", "code"),
    [
        (3, 0, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (0, 1, ErrorCode.NONE),
        (1, 1, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (2, 0, ErrorCode.NONE),
    ],
)
def test_a_gap_is_out_of_order_and_a_new_epoch_begins_at_0(client, topic, sequence, epoch, code):
    client.create(topic)
    client.ask(produce_request(topic, idempotent(0, b"a", b"b")), 9)

    answer = answer_of(client.ask(produce_request(topic, idempotent(sequence, b"c", epoch=epoch)), 9))

    assert code == answer.error_code


def test_an_old_epoch_is_refused(client, topic):
    client.create(topic)
    client.ask(produce_request(topic, idempotent(0, b"a", epoch=3)), 9)

    answer = answer_of(client.ask(produce_request(topic, idempotent(1, b"b", epoch=2)), 9))

    assert ErrorCode.INVALID_PRODUCER_EPOCH == answer.error_code


def test_an_unknown_producer_may_begin_anywhere_and_sequences_wrap(client, topic):
    client.create(topic)

    first = answer_of(client.ask(produce_request(topic, idempotent(2**31 - 2, b"a", b"b")), 9))
    second = answer_of(client.ask(produce_request(topic, idempotent(0, b"c")), 9))

    assert [0, 0] == [first.error_code, second.error_code]
    assert 3 == len(stored(client, topic))


# -- topics that change under a connection


def test_a_connection_that_has_produced_learns_that_the_topic_is_another_one(client, topic):
    from kbroker.protocol.messages.topics import DeleteTopicsRequest, DeleteTopicState

    first_id = client.create(topic)
    for _ in range(3):
        assert 0 == answer_of(client.ask(produce_request(topic, batch(b"old")), 9)).error_code
        assert 0 == answer_of(client.ask(produce_request(first_id, batch(b"old")), 13)).error_code
    client.ask(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=5000), 6)

    gone = answer_of(client.ask(produce_request(topic, batch(b"x")), 9))
    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == gone.error_code

    second_id = client.create(topic)
    assert 0 == answer_of(client.ask(produce_request(topic, batch(b"new")), 9)).base_offset
    gone = answer_of(client.ask(produce_request(first_id, batch(b"x")), 13))
    assert ErrorCode.UNKNOWN_TOPIC_ID == gone.error_code
    assert 1 == answer_of(client.ask(produce_request(second_id, batch(b"new")), 13)).base_offset


def test_a_large_batch_between_small_ones_keeps_the_order(client, topic):
    client.create(topic, max_message_bytes=8 << 20)
    values = [b"first", b"x" * (3 << 20), b"last"]

    for value in values:
        client.send(produce_request(topic, batch(value)), 9)

    assert [0, 1, 2] == [answer_of(client.receive()).base_offset for _ in values]
    data = client.ask(fetch_request(topic, 0, max_bytes=1 << 26, partition_max_bytes=1 << 26), 12)
    assert len(data.responses[0].partitions[0].records) > 3 << 20


def many(value: bytes) -> bytes:
    """More records than are checked at once, in a frame that fits the receive buffer of all connections."""
    now = int(time.time() * 1000)
    return build_batch([record(value, timestamp=now) for _ in range(20_000)], codec=compression.GZIP)


def test_requests_behind_a_batch_of_many_records_do_not_overtake_it(client, topic):
    client.create(topic)
    requests = [
        b"".join(_encoded(produce_request(topic, records)))
        for records in (batch(b"first"), many(b"1"), batch(b"last"))
    ]
    assert sum(map(len, requests)) < 64 << 10

    client.send_bytes(b"".join(requests))
    for _ in requests:
        client.receive_frame()

    values = [value for _, value in stored(client, topic)]
    assert (b"first", b"1", b"1", b"last") == (values[0], values[1], values[20_000], values[20_001])


@pytest.mark.parametrize("size", [200 << 10, 3 << 20])
def test_a_large_batch_that_gets_another_codec_keeps_its_place(client, topic, size):
    """It is compressed while others are served; what its connection sends behind it waits."""
    client.create(topic, max_message_bytes=8 << 20, compression_type="gzip")
    values = [b"first", b"x" * size, b"second", b"y" * size, b"last"]

    for value in values:
        client.send(produce_request(topic, batch(value)), 9)

    assert [0, 1, 2, 3, 4] == [answer_of(client.receive()).base_offset for _ in values]
    assert values == [value for _, value in stored(client, topic)]
    fetched = client.ask(fetch_request(topic, 0), 12).responses[0].partitions[0].records
    assert {compression.GZIP} == {each.codec for each in split_batches(memoryview(fetched))}


def test_a_large_batch_that_cannot_get_another_codec_is_refused_and_the_connection_goes_on(client, topic):
    client.create(topic, max_message_bytes=8 << 20, compression_type="gzip")
    broken = batch(os.urandom(200 << 10), codec=compression.ZSTD)
    broken = with_records(broken, bytes(len(broken) - 61))

    client.send(produce_request(topic, broken), 9)
    client.send(produce_request(topic, batch(b"fine")), 9)

    assert answer_of(client.receive()).error_code
    assert 0 == answer_of(client.receive()).base_offset


def test_batches_of_many_records_on_two_connections_do_not_mix(connect, topic):
    """They are checked while others are served, whose frames come into the same buffer."""
    clients = [connect() for _ in range(8)]
    clients[0].create(topic, len(clients))
    batches = [many(b"%d" % number) for number in range(len(clients))]

    for _ in range(3):
        for number, client in enumerate(clients):
            client.send(produce_request(topic, batches[number], partition=number), 9)
        assert {0} == {answer_of(client.receive()).error_code for client in clients}

    for number in range(len(clients)):
        values = stored(clients[0], topic, number)
        assert (60_000, {b"%d" % number}) == (len(values), {value for _, value in values})
