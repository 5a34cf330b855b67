"""Reading: offsets, positions, waiting."""

from __future__ import annotations

import time
from concurrent.futures import wait

import pytest

from tests.compat.driver import CALL_LIMIT_S, Client, ClientFailed, Record
from tests.compat.scenario import each_client
from tests.support.peers import Endpoint, Peer

FETCH = 1
LONG_WAIT_MS = 25_000  # what most clients allow at most


def numbers(count: int, *, start_ms: int | None = None, step_ms: int = 1000) -> list[Record]:
    times = [None if start_ms is None else start_ms + number * step_ms for number in range(count)]
    return [Record(value=f"{number}".encode(), timestamp=time) for number, time in enumerate(times)]


@each_client("offset")
def test_the_beginning_and_the_end(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)

    empty = (client.offset(at, topic, "earliest"), client.offset(at, topic, "latest"))
    helper.produce(at, topic, numbers(10))
    helper.call("delete_records", at, topic=topic, partition=0, offset=3)

    assert (0, 0) == empty
    assert (3, 10) == (client.offset(at, topic, "earliest"), client.offset(at, topic, "latest"))


@each_client("offset by time")
def test_offsets_by_time(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    start = 1_700_000_000_000
    helper.produce(at, topic, numbers(5, start_ms=start))  # one batch
    helper.produce(at, topic, numbers(5, start_ms=start + 5_000), codec="gzip")

    def at_time(time: int) -> int | None:
        return client.offset(at, topic, time)

    assert 0 == at_time(start - 1)
    assert 3 == at_time(start + 3_000)
    assert 4 == at_time(start + 3_001)
    assert 8 == at_time(start + 8_000)
    assert at_time(start + 9_001) in (None, 10)  # none: some clients name the end


@pytest.mark.parametrize("codec", ["none", "zstd"])
@each_client("consume")
def test_reading_from_the_middle_of_a_batch(
    client: Client, codec: str, helper: Client, at: Endpoint, topic: str
) -> None:
    if codec not in client.codecs:
        codec = "gzip"
    helper.create(at, topic)
    helper.produce(at, topic, numbers(100), codec=codec)

    read = client.consume(at, topic, 57, 43)

    assert list(range(57, 100)) == [record.offset for record in read]
    assert [f"{number}".encode() for number in range(57, 100)] == [record.value for record in read]


@each_client("consume")
def test_two_consumers_at_different_positions_do_not_disturb_each_other(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    for _ in range(10):
        helper.produce(at, topic, numbers(50))

    reading = [client.begin_consume(at, topic, offset, 500 - offset) for offset in (0, 333)]

    assert [list(range(500)), list(range(333, 500))] == [
        [record["offset"] for record in one.result(CALL_LIMIT_S)["records"]] for one in reading
    ]


@each_client("consume", "recorded")
def test_a_long_poll_waits_and_wakes_up(client: Client, helper: Client, peer: Peer, topic: str) -> None:
    helper.create(peer.plain, topic)
    helper.produce(peer.plain, topic, [Record(value=b"before")])
    mark = peer.proxy.mark()

    reading = client.begin_consume(
        peer.recorded,
        topic,
        1,
        1,
        max_wait_ms=LONG_WAIT_MS,
        timeout_ms=LONG_WAIT_MS * 2,
        client_id="long-poll",
    )
    peer.proxy.wait_for(
        lambda request: (request.api_key, request.client_id) == (FETCH, "long-poll"), mark=mark, limit=60
    )
    seen = time.monotonic()
    done, _ = wait([reading], timeout=0.3)
    assert not done  # there is nothing to read yet
    helper.produce(peer.plain, topic, [Record(value=b"wake up")])

    # before the poll would have ended by itself
    [record] = reading.result(seen + LONG_WAIT_MS / 1000 - time.monotonic())["records"]
    assert 1 == record["offset"]


@each_client("consume", "committed")
def test_a_read_committed_consumer_sees_everything(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, numbers(20), idempotent=True)

    assert list(range(20)) == [record.offset for record in client.consume(at, topic, 0, 20, committed=True)]


@each_client("consume", "out of range")
def test_an_offset_beyond_the_end_is_out_of_range(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, numbers(5))

    with pytest.raises(ClientFailed):
        client.consume(at, topic, 77, 1)
