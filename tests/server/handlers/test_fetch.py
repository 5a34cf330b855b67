from __future__ import annotations

import time

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic
from kbroker.protocol.messages.topics import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from kbroker.protocol.records import build_batch, record, split_batches
from tests.support.raw_client import LIMIT_S, fetch_request, produce_request

LONG_MS = int(LIMIT_S * 2000)  # a fetch that waits this long fails its test
PATIENT = {"max_wait_ms": LONG_MS}


def batch(*values: bytes, **options) -> bytes:
    now = int(time.time() * 1000)
    return build_batch([record(value, timestamp=now) for value in values], **options)


def produce(client, topic, *values: bytes, partition: int = 0) -> int:
    answer = client.ask(produce_request(topic, batch(*values), partition=partition), 9)
    [data] = answer.responses[0].partition_responses
    assert data.error_code == 0
    return data.base_offset


def fill(client, topic) -> None:
    """Three batches: offsets 0-1, 2-4, 5."""
    for values in ((b"a", b"b"), (b"c", b"d", b"e"), (b"f",)):
        produce(client, topic, *values)


def data_of(response):
    [topic] = response.responses
    [partition] = topic.partitions
    return partition


def offsets(data) -> list[tuple[int, int]]:
    """First and last offset of each batch."""
    return [
        (found.base_offset, found.last_offset)
        for found in split_batches(memoryview(bytearray(data.records or b"")))
    ]


# -- what is sent


@pytest.mark.parametrize("version", range(4, 19))
def test_whole_batches_are_sent_in_every_version(client, topic, version):
    topic_id = client.create(topic)
    fill(client, topic)

    answer = client.ask(fetch_request(topic if version < 13 else topic_id), version)

    data = data_of(answer)
    assert (0, 0) == (answer.error_code, data.error_code)
    assert [(0, 1), (2, 4), (5, 5)] == offsets(data)
    assert (6, 6) == (data.high_watermark, data.last_stable_offset)
    assert (0 if version >= 5 else -1) == data.log_start_offset
    assert -1 == data.preferred_read_replica
    assert 0 == answer.throttle_time_ms


@pytest.mark.parametrize(("offset", "first"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 2), (5, 5)])
def test_an_offset_inside_a_batch_gives_the_whole_batch(client, topic, offset, first):
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, offset), 12))

    assert first == offsets(data)[0][0]


@pytest.mark.parametrize("limits", [{"max_bytes": 1}, {"partition_max_bytes": 1}, {"max_bytes": 0}])
def test_the_first_batch_is_sent_whole_even_above_the_limits(client, topic, limits):
    """KIP-74: a reader must get on."""
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, 2, **limits), 12))

    assert [(2, 4)] == offsets(data)


def test_further_batches_are_sent_while_there_is_room(client, topic):
    client.create(topic)
    fill(client, topic)
    size = len(batch(b"a", b"b")) + len(batch(b"c", b"d", b"e"))

    data = data_of(client.ask(fetch_request(topic, 0, partition_max_bytes=size), 12))

    assert [(0, 1), (2, 4)] == offsets(data)


def test_the_whole_answer_is_bounded_and_the_first_partition_gets_its_batch(client, topic):
    client.create(topic, 3)
    for index in range(3):
        produce(client, topic, b"x" * 1000, partition=index)
    asked = [
        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=1 << 20) for index in (2, 0, 1)
    ]

    answer = client.ask(
        FetchRequest(
            max_wait_ms=0, min_bytes=1, max_bytes=1500, topics=[FetchTopic(topic=topic, partitions=asked)]
        ),
        12,
    )

    assert [(2, True), (0, False), (1, False)] == [
        (data.partition_index, bool(data.records)) for data in answer.responses[0].partitions
    ]


@pytest.mark.parametrize(("isolation_level", "aborted"), [(0, None), (1, [])])
def test_aborted_transactions_are_null_for_uncommitted_and_a_list_for_committed(
    client, topic, isolation_level, aborted
):
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, isolation_level=isolation_level), 12))

    assert aborted == data.aborted_transactions
    assert 6 == data.last_stable_offset


def test_a_reader_at_the_end_gets_no_records_which_is_not_null(client, topic):
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, 6), 12))

    assert (0, b"") == (data.error_code, bytes(data.records))


# -- errors


@pytest.mark.parametrize("offset", [7, 1 << 40, -1, -7])
def test_an_offset_that_is_not_there_is_out_of_range_at_once(client, topic, offset):
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, offset, **PATIENT), 12))

    assert ErrorCode.OFFSET_OUT_OF_RANGE == data.error_code
    assert (-1, -1, -1) == (data.high_watermark, data.last_stable_offset, data.log_start_offset)
    assert b"" == bytes(data.records)


def test_below_the_log_start_is_out_of_range(client, topic):
    client.create(topic)
    fill(client, topic)
    delete_records(client, topic, 2)

    assert ErrorCode.OFFSET_OUT_OF_RANGE == data_of(client.ask(fetch_request(topic, 1), 12)).error_code
    data = data_of(client.ask(fetch_request(topic, 2), 12))
    assert (2, [(2, 4), (5, 5)]) == (data.log_start_offset, offsets(data))


def delete_records(client, topic, offset):
    asked = [DeleteRecordsPartition(partition_index=0, offset=offset)]
    answer = client.ask(
        DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=topic, partitions=asked)], timeout_ms=5000), 2
    )
    assert 0 == answer.topics[0].partitions[0].error_code


@pytest.mark.parametrize(
    ("version", "code"), [(4, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), (13, ErrorCode.UNKNOWN_TOPIC_ID)]
)
def test_an_unknown_topic_is_answered_at_once(client, version, code):
    name = "nobody-knows-it" if version < 13 else b"\x77" * 16

    data = data_of(client.ask(fetch_request(name, **PATIENT), version))

    assert code == data.error_code


@pytest.mark.parametrize("version", [4, 12, 13, 18])
def test_an_unknown_partition_of_a_known_topic_is_unknown_by_name_and_by_id(client, topic, version):
    topic_id = client.create(topic)

    data = data_of(
        client.ask(fetch_request(topic if version < 13 else topic_id, partition=5, **PATIENT), version)
    )

    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == data.error_code


@pytest.mark.parametrize(("epoch", "code"), [(-1, 0), (0, 0), (99, ErrorCode.UNKNOWN_LEADER_EPOCH)])
def test_a_leader_epoch_must_be_ours(client, topic, epoch, code):
    client.create(topic)
    fill(client, topic)

    data = data_of(client.ask(fetch_request(topic, current_leader_epoch=epoch), 12))

    assert code == data.error_code


@pytest.mark.parametrize(
    ("offset", "last_fetched", "code", "diverging"),
    [
        (3, -2, 0, None),
        (3, 0, 0, None),
        (6, 0, 0, None),
        (7, 0, 0, (0, 6)),  # beyond the end of its epoch: told where that was
        (3, 1, ErrorCode.OFFSET_OUT_OF_RANGE, None),
        (99, 7, ErrorCode.OFFSET_OUT_OF_RANGE, None),
    ],
)
def test_the_epoch_a_reader_fetched_last_is_looked_at_as_in_kafka(
    client, topic, offset, last_fetched, code, diverging
):
    client.create(topic)
    fill(client, topic)

    request = fetch_request(topic, offset)
    request.topics[0].partitions[0].last_fetched_epoch = last_fetched
    data = data_of(client.ask(request, 12))

    where = data.diverging_epoch
    assert (code, diverging) == (data.error_code, where and (where.epoch, where.end_offset))


def test_one_partitions_error_does_not_keep_the_others_back(client, topic):
    client.create(topic)
    fill(client, topic)
    asked = [FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=1 << 20) for index in (9, 0)]

    answer = client.ask(
        FetchRequest(max_wait_ms=LONG_MS, min_bytes=1, topics=[FetchTopic(topic=topic, partitions=asked)]), 12
    )

    assert {9: 3, 0: 0} == {data.partition_index: data.error_code for data in answer.responses[0].partitions}
    assert 1 == sum(bool(data.records) for data in answer.responses[0].partitions)


# -- waiting


def test_a_reader_waits_for_records_and_is_woken(connect, topic):
    writer, reader = connect(), connect()
    writer.create(topic)
    reader.send(fetch_request(topic, **PATIENT), 12)
    assert reader.silent()

    produce(writer, topic, b"a")

    assert [(0, 0)] == offsets(data_of(reader.receive()))


def test_a_reader_waits_for_as_many_bytes_as_it_wants(connect, topic):
    writer, reader = connect(), connect()
    writer.create(topic)
    size = len(batch(b"a"))
    reader.send(fetch_request(topic, min_bytes=2 * size, **PATIENT), 12)

    produce(writer, topic, b"a")
    assert reader.silent()
    produce(writer, topic, b"b")

    assert [(0, 0), (1, 1)] == offsets(data_of(reader.receive()))


def test_when_the_time_is_over_there_is_what_there_is(client, topic):
    client.create(topic)
    produce(client, topic, b"a")

    data = data_of(client.ask(fetch_request(topic, min_bytes=1 << 20, max_wait_ms=50), 12))

    assert [(0, 0)] == offsets(data)


def test_a_long_poll_holds_back_what_comes_behind_it_and_keeps_the_order(connect, topic):
    writer, reader = connect(), connect()
    writer.create(topic)
    produce(writer, topic, b"a")
    reader.send(fetch_request(topic, 1, **PATIENT), 12)
    reader.send(fetch_request(topic, 0), 12)
    assert reader.silent()

    produce(writer, topic, b"b")

    assert [[(1, 1)], [(0, 0)]] == [offsets(data_of(reader.receive()))[:1] for _ in range(2)]


def test_deleting_the_topic_wakes_its_readers(connect, topic):
    admin, reader = connect(), connect()
    admin.create(topic)
    reader.send(fetch_request(topic, **PATIENT), 12)
    assert reader.silent()

    admin.ask(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=5000), 6)

    assert data_of(reader.receive()).error_code in (
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
    )


def test_nothing_to_look_at_is_answered_at_once(client):
    answer = client.ask(FetchRequest(max_wait_ms=LONG_MS, min_bytes=1, topics=[]), 12)

    assert ([], 0) == (answer.responses, answer.error_code)


# -- sessions (KIP-227)


def session_request(topic, session_id, epoch, *partitions, forgotten=(), offset=0, **fields):
    asked = [
        FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=1 << 20)
        for index in partitions
    ]
    by_id = isinstance(topic, bytes)
    named = {"topic_id": topic} if by_id else {"topic": topic}
    return FetchRequest(
        **({"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 26} | fields),
        session_id=session_id,
        session_epoch=epoch,
        topics=[FetchTopic(partitions=asked, **named)] if asked else [],
        forgotten_topics_data=[ForgottenTopic(partitions=list(forgotten), **named)] if forgotten else [],
    )


def indexes(answer) -> list[int]:
    return sorted(data.partition_index for topic in answer.responses for data in topic.partitions)


def open_session(client, topic, *partitions, version=12) -> int:
    answer = client.ask(session_request(topic, 0, 0, *partitions), version)
    assert (0, list(partitions)) == (answer.error_code, indexes(answer))
    assert answer.session_id > 0
    return answer.session_id


@pytest.mark.parametrize("version", [7, 12, 13, 18])
def test_a_session_tells_only_what_changed(client, topic, version):
    topic_id = client.create(topic, 3)
    name = topic if version < 13 else topic_id
    session = open_session(client, name, 0, 1, 2, version=version)

    assert [] == indexes(client.ask(session_request(name, session, 1), version))
    produce(client, topic, b"a", partition=1)
    changed = client.ask(session_request(name, session, 2), version)
    assert [1] == indexes(changed)
    assert session == changed.session_id
    assert [1] == indexes(client.ask(session_request(name, session, 3), version))  # it has not moved on
    moved = client.ask(session_request(name, session, 4, 1, offset=1), version)
    assert [] == indexes(moved)
    produce(client, topic, b"b", partition=1)
    assert [1] == indexes(client.ask(session_request(name, session, 5), version))


def test_a_session_grows_and_forgets(client, topic):
    client.create(topic, 3)
    for index in range(3):
        produce(client, topic, b"a", partition=index)
    session = open_session(client, topic, 0)

    assert [0, 2] == indexes(client.ask(session_request(topic, session, 1, 2), 12))
    assert [2] == indexes(client.ask(session_request(topic, session, 2, forgotten=[0]), 12))
    assert [1, 2] == indexes(client.ask(session_request(topic, session, 3, 1, forgotten=[0]), 12))


def test_a_session_waits_for_any_of_its_partitions(connect, topic):
    writer, reader = connect(), connect()
    writer.create(topic, 3)
    session = open_session(reader, topic, 0, 1, 2)
    reader.send(session_request(topic, session, 1, **PATIENT), 12)
    assert reader.silent()

    produce(writer, topic, b"a", partition=2)

    assert [2] == indexes(reader.receive())


def test_a_partition_that_joins_a_session_is_named_in_the_first_answer_even_after_a_wait(client, topic):
    """As Apache Kafka does: with its watermark and log start, and no more in the next."""
    client.create(topic, 2)
    produce(client, topic, b"a", partition=1)
    session = open_session(client, topic, 0)

    answer = client.ask(session_request(topic, session, 1, 1, offset=1, max_wait_ms=50), 12)

    data = data_of(answer)
    assert (1, 1, 0, b"") == (
        data.partition_index,
        data.high_watermark,
        data.log_start_offset,
        bytes(data.records),
    )
    assert [] == indexes(client.ask(session_request(topic, session, 2, max_wait_ms=50), 12))


def test_a_log_start_that_moves_during_a_wait_is_told_with_the_next_answer(connect, topic):
    writer, reader = connect(), connect()
    writer.create(topic, 2)
    produce(writer, topic, b"a")
    session = open_session(reader, topic, 1)
    assert [0] == indexes(reader.ask(session_request(topic, session, 1, 0, offset=1), 12))
    reader.send(session_request(topic, session, 2, **PATIENT), 12)
    assert reader.silent()
    first = DeleteRecordsPartition(partition_index=0, offset=1)
    asked = DeleteRecordsRequest(
        topics=[DeleteRecordsTopic(name=topic, partitions=[first])], timeout_ms=LONG_MS
    )
    writer.ask(asked, 2)
    assert reader.silent()

    produce(writer, topic, b"b", partition=1)

    assert {0: 1, 1: 0} == {
        data.partition_index: data.log_start_offset
        for found in reader.receive().responses
        for data in found.partitions
    }


def test_a_session_lives_on_when_its_connection_ends(connect, topic):
    first = connect()
    first.create(topic)
    session = open_session(first, topic, 0)
    first.send(session_request(topic, session, 1, **PATIENT), 12)
    assert first.silent()
    first.close()

    second = connect()
    produce(second, topic, b"a")

    assert [0] == indexes(second.ask(session_request(topic, session, 2), 12))


def test_a_session_that_is_not_there_is_not_found(client, topic):
    client.create(topic)

    for session, epoch in ((12345, 1), (0, 5), (0, -7)):
        answer = client.ask(session_request(topic, session, epoch, 0), 12)
        assert (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, 0, []) == (
            answer.error_code,
            answer.session_id,
            answer.responses,
        )


@pytest.mark.parametrize("epoch", [2, 5, -5])
def test_another_epoch_than_the_next_is_invalid_and_changes_nothing(client, topic, epoch):
    client.create(topic)
    session = open_session(client, topic, 0)

    answer = client.ask(session_request(topic, session, epoch), 12)

    assert (ErrorCode.INVALID_FETCH_SESSION_EPOCH, 0) == (answer.error_code, answer.session_id)
    assert 0 == client.ask(session_request(topic, session, 1), 12).error_code


@pytest.mark.parametrize(("before", "after"), [(12, 13), (13, 12)])
def test_a_session_does_not_change_between_names_and_ids(client, topic, before, after):
    topic_id = client.create(topic)
    names = {12: topic, 13: topic_id}
    session = open_session(client, names[before], 0, version=before)

    answer = client.ask(session_request(names[after], session, 1), after)

    assert (ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, 0) == (answer.error_code, answer.session_id)
    assert 0 == client.ask(session_request(names[before], session, 1), before).error_code


def test_a_full_request_closes_the_session_it_names(client, topic):
    client.create(topic)
    session = open_session(client, topic, 0)

    last = client.ask(session_request(topic, session, -1, 0), 12)

    assert (0, 0, [0]) == (last.error_code, last.session_id, indexes(last))
    again = client.ask(session_request(topic, session, 1), 12)
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == again.error_code


def test_a_full_request_may_open_the_next_session(client, topic):
    client.create(topic)
    first = open_session(client, topic, 0)

    answer = client.ask(session_request(topic, first, 0, 0), 12)

    assert answer.session_id not in (0, first)
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == client.ask(session_request(topic, first, 1), 12).error_code


def test_a_session_without_partitions_ends(client, topic):
    client.create(topic)
    session = open_session(client, topic, 0)

    answer = client.ask(session_request(topic, session, 1, forgotten=[0]), 12)

    assert (0, 0) == (answer.error_code, answer.session_id)
    again = client.ask(session_request(topic, session, 2), 12)
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == again.error_code


def test_a_partition_with_an_error_is_told_every_time(client, topic):
    client.create(topic)
    open_answer = client.ask(session_request(topic, 0, 0, 0, 9), 12)
    session = open_answer.session_id

    for epoch in (1, 2):
        answer = client.ask(session_request(topic, session, epoch), 12)
        assert [9] == indexes(answer)


def test_records_take_turns_among_partitions_of_a_session(client, topic):
    """The answer holds one batch: each partition gets its turn."""
    client.create(topic, 3)
    for index in range(3):
        produce(client, topic, b"x" * 1000, partition=index)
    session = open_session(client, topic, 0, 1, 2)

    turns = [
        [
            data.partition_index
            for topic_data in client.ask(session_request(topic, session, epoch, max_bytes=100), 12).responses
            for data in topic_data.partitions
            if data.records
        ]
        for epoch in (1, 2, 3)
    ]

    assert [1, 1, 1] == list(map(len, turns))
    assert {0, 1, 2} == {index for turn in turns for index in turn}
