from __future__ import annotations

from types import SimpleNamespace

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kbroker.protocol.messages.topics import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from kbroker.protocol.records import build_batch, record
from kbroker.replication.partition import WRITTEN
from kbroker.server.handlers.ends import WAIT_MS_MAX
from kbroker.server.handlers.list_offsets import handle_list_offsets
from kbroker.server.rooms import Call
from kbroker.testing import Broker
from tests.support.raw_client import RawClient, address_of, produce_request
from tests.support.rooms import CALLER, FakeConnection, House

HOUR = 3_600_000
BASE = 1_700_000_000_000
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING = range(-1, -7, -1)
NONE = (0, -1, -1)


def fill(client, topic) -> None:
    """Offsets 0-1 at 0 h and 3 h, 2-3 at 1 h and 2 h, 4 at 2 h."""
    for hours in ((0, 3), (1, 2), (2,)):
        records = build_batch([record(b"x", timestamp=BASE + hour * HOUR) for hour in hours])
        answer = client.ask(produce_request(topic, records), 9)
        assert 0 == answer.responses[0].partition_responses[0].error_code


def ask(client, topic, timestamp, version=11, *, partition=0, epoch=-1, isolation_level=0):
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=isolation_level,
        topics=[
            ListOffsetsTopic(
                name=topic,
                partitions=[
                    ListOffsetsPartition(
                        partition_index=partition, timestamp=timestamp, current_leader_epoch=epoch
                    )
                ],
            )
        ],
    )
    [answer] = client.ask(request, version).topics[0].partitions
    return answer


def found(answer) -> tuple[int, int, int]:
    return answer.error_code, answer.offset, answer.timestamp


@pytest.mark.parametrize("version", range(1, 12))
def test_ends_and_times_are_found_in_every_version(client, topic, version):
    client.create(topic)
    fill(client, topic)

    latest, earliest, at = (ask(client, topic, time, version) for time in (LATEST, EARLIEST, BASE + HOUR))

    assert [(0, 5, -1), (0, 0, -1), (0, 1, BASE + 3 * HOUR)] == list(map(found, (latest, earliest, at)))
    assert [0 if version >= 4 else -1] * 3 == [answer.leader_epoch for answer in (latest, earliest, at)]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (-5, (0, BASE)),
        (0, (0, BASE)),
        (0.5, (1, BASE + 3 * HOUR)),
        (3, (1, BASE + 3 * HOUR)),
        (3.1, (-1, -1)),
    ],
)
def test_a_time_gives_the_first_record_that_is_not_older(client, topic, hours, expected):
    client.create(topic)
    fill(client, topic)

    answer = ask(client, topic, BASE + int(hours * HOUR))

    assert (0, *expected) == found(answer)


def test_the_largest_time_is_found(client, topic):
    client.create(topic)
    fill(client, topic)

    assert (0, 1, BASE + 3 * HOUR) == found(ask(client, topic, MAX_TIMESTAMP))


@pytest.mark.parametrize("isolation_level", [0, 1])
def test_latest_is_where_records_become_readable(client, topic, isolation_level):
    client.create(topic)
    fill(client, topic)

    assert (0, 5, -1) == found(ask(client, topic, LATEST, isolation_level=isolation_level))


@pytest.mark.parametrize("time", [EARLIEST, EARLIEST_LOCAL])
def test_earliest_is_the_logs_start(client, topic, time):
    client.create(topic)
    fill(client, topic)
    asked = [DeleteRecordsPartition(partition_index=0, offset=3)]
    client.ask(
        DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=topic, partitions=asked)], timeout_ms=5000), 2
    )

    assert (0, 3, -1) == found(ask(client, topic, time))
    assert (0, 3, BASE + 2 * HOUR) == found(ask(client, topic, BASE + HOUR))


def test_a_deleted_record_is_not_found_by_its_time(client, topic):
    """The record at offset 1 is the newest; once it is deleted, no other is as new."""
    client.create(topic)
    fill(client, topic)
    asked = [DeleteRecordsPartition(partition_index=0, offset=2)]
    client.ask(
        DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=topic, partitions=asked)], timeout_ms=5000), 2
    )

    assert NONE == found(ask(client, topic, BASE + 3 * HOUR))


@pytest.mark.parametrize("time", [LATEST_TIERED, EARLIEST_PENDING])
def test_nothing_is_tiered(client, topic, time):
    client.create(topic)
    fill(client, topic)

    assert NONE == found(ask(client, topic, time))


@pytest.mark.parametrize(
    ("time", "first"), [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9), (EARLIEST_PENDING, 11)]
)
def test_a_special_time_is_not_there_before_its_version(client, topic, time, first):
    client.create(topic)

    answers = [ask(client, topic, time, version).error_code for version in (first - 1, first)]

    assert [ErrorCode.UNSUPPORTED_VERSION, 0] == answers


@pytest.mark.parametrize(
    ("time", "expected"),
    [(LATEST, (0, 0, -1)), (EARLIEST, (0, 0, -1)), (MAX_TIMESTAMP, NONE), (0, NONE), (BASE, NONE)],
)
def test_an_empty_partition_has_ends_but_no_times(client, topic, time, expected):
    client.create(topic)

    assert expected == found(ask(client, topic, time))


@pytest.mark.parametrize("partition", [1, -1, 2**31 - 1])
def test_what_is_not_here_is_unknown(client, topic, partition):
    client.create(topic)

    answers = [
        ask(client, topic, LATEST, partition=partition),
        ask(client, f"{topic}-not", LATEST, partition=0),
    ]

    assert [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)] * 2 == list(map(found, answers))


@pytest.mark.parametrize("time", [EARLIEST, EARLIEST_LOCAL])
def test_the_start_of_a_log_without_records_is_of_the_current_leader_epoch(tmp_path, topic, time):
    for epoch in (0, 1):  # a restart begins a new one
        with Broker(data_dir=tmp_path) as broker, RawClient(address_of(broker.bootstrap_servers)) as client:
            if epoch == 0:
                client.create(topic)
            answer = ask(client, topic, time)
            assert (0, 0, epoch) == (answer.error_code, answer.offset, answer.leader_epoch)


@pytest.mark.parametrize(("epoch", "code"), [(-1, 0), (0, 0), (7, ErrorCode.UNKNOWN_LEADER_EPOCH)])
def test_a_leader_epoch_must_be_ours(client, topic, epoch, code):
    client.create(topic)

    assert code == ask(client, topic, LATEST, epoch=epoch).error_code


def test_a_partition_that_is_named_twice_is_refused(client, topic):
    client.create(topic)
    twice = [ListOffsetsPartition(partition_index=0, timestamp=LATEST)] * 2

    answer = client.ask(
        ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=twice)]), 7
    )

    assert {ErrorCode.INVALID_REQUEST} == {part.error_code for part in answer.topics[0].partitions}


@pytest.mark.parametrize("time", [-7, -100, -(2**63)])
def test_times_below_zero_that_mean_nothing(client, topic, time):
    client.create(topic)
    fill(client, topic)

    assert ErrorCode.UNSUPPORTED_VERSION == ask(client, topic, time).error_code


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.open_disk(fsync=True)
    house.create("t", 2)
    house.produce("t", b"a")
    return house


def wait_for_ends(house, connection, *timestamps):
    """Ask for offsets of partition 0, and of the next ones, while a record of partition 0 is not to be read yet."""
    house.partitions.get("t", 0).append(memoryview(bytearray(build_batch([record(b"b")]))), WRITTEN)
    asked = [
        ListOffsetsPartition(partition_index=index, timestamp=timestamp)
        for index, timestamp in enumerate(timestamps)
    ]
    request = ListOffsetsRequest(topics=[ListOffsetsTopic(name="t", partitions=asked)])
    return handle_list_offsets(house.rooms, Call(11, SimpleNamespace(**CALLER), connection), request)


def offsets(response) -> list[int]:
    return [partition.offset for partition in response.topics[0].partitions]


@pytest.mark.parametrize(("timestamp", "offset"), [(LATEST, 2), (MAX_TIMESTAMP, 0), (0, 0)])
def test_an_end_counts_what_was_written_before_it_was_asked_for(house, timestamp, offset):
    connection = FakeConnection()

    later = wait_for_ends(house, connection, timestamp, LATEST)

    house.broker.turn.run()
    assert (None, 1) == (later.response, connection.paused)
    house.broker.settle()
    assert ([offset, 0], 0) == (offsets(later.response), connection.paused)


def test_a_record_that_was_answered_counts_at_once(tmp_path, topic):
    with Broker(data_dir=tmp_path, kbroker_fsync_before_ack=True) as broker:
        client = RawClient(address_of(broker.bootstrap_servers))
        client.create(topic)

        for end in range(1, 20):
            client.ask(produce_request(topic, build_batch([record(b"x")]), acks=1), 9)
            assert (0, end, -1) == found(ask(client, topic, LATEST))
        client.close()


def test_a_start_is_told_at_once(house):
    response = wait_for_ends(house, FakeConnection(), EARLIEST, LATEST)

    assert [0, 0] == offsets(response)


def test_a_disk_that_is_slow_is_waited_for_only_so_long(house):
    later = wait_for_ends(house, FakeConnection(), LATEST)
    partition = house.partitions.get("t", 0)
    house.broker.turn.run()  # written; the threads that sync it stand still
    now = house.broker.clock.monotonic()

    assert partition.expire(now + WAIT_MS_MAX / 1000 - 0.1)
    assert later.response is None
    assert not partition.expire(now + WAIT_MS_MAX / 1000)
    house.broker.turn.run()

    assert [1] == offsets(later.response)


def test_nobody_waits_for_a_connection_that_is_gone(house):
    connection = FakeConnection()
    later = wait_for_ends(house, connection, LATEST)

    later.on_lost()

    assert 0 == connection.paused
    house.broker.settle()
    assert 0 == connection.paused
