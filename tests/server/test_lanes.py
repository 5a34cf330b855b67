"""A lane answers what the common way answers, byte for byte, and leaves what is not its own to the common way."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from kbroker.config import TopicConfig
from kbroker.protocol.frames import decode_response, encode_request, encode_response
from kbroker.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from kbroker.protocol.records import build_batch, record
from kbroker.replication.partition import RECOMPRESSED_ON_LOOP_BYTES_MAX
from kbroker.testing import Broker
from tests.support.batches import with_crc, with_fields, with_records

VERSIONS = range(3, 14)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as started:
        yield started


def batch(*values: bytes, **options) -> bytes:
    now = int(time.time() * 1000)
    return build_batch([record(value, timestamp=now) for value in values or (b"x",)], **options)


class Client:
    """One connection that sends Produce requests of one version."""

    def __init__(self, broker: Broker, version: int, topic: str) -> None:
        self._version = version
        self._topic = topic
        self._id = broker.call(lambda node: node.cluster.state.topics[topic].id.bytes)
        host, _, port = broker.bootstrap_servers.rpartition(":")
        self._sock = socket.create_connection((host, int(port)), timeout=60)

    def frame(self, records: bytes | None, *, partition: int = 0, acks: int = -1) -> bytes:
        topic = TopicProduceData(partition_data=[PartitionProduceData(index=partition, records=records)])
        if self._version >= 13:
            topic.topic_id = self._id
        else:
            topic.name = self._topic
        request = ProduceRequest(acks=acks, timeout_ms=60_000, topic_data=[topic])
        return b"".join(bytes(part) for part in encode_request(request, self._version, 7, "a client"))

    def send(self, frame: bytes) -> None:
        self._sock.sendall(frame)

    def answer(self) -> bytes:
        size = struct.unpack(">i", self._take(4))[0]
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            more = self._sock.recv(size - len(taken))
            assert more, "the broker closed the connection"
            taken += more
        return taken

    def produce(self, records: bytes | None, **options: int) -> tuple[int, int]:
        """Error code and base offset."""
        self.send(self.frame(records, **options))
        _, response = decode_response(ProduceResponse, self._version, memoryview(self.answer()))
        answer = response.responses[0].partition_responses[0]
        return answer.error_code, answer.base_offset

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def client(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Client]:
    made = Client(broker, getattr(request, "param", 9), broker.create_topic(f"t{time.monotonic_ns()}", 2))
    yield made
    made.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_answers_of_a_lane_are_those_of_the_common_way(broker: Broker, version: int):
    """The first request of a connection goes the common way, the following ones the lane."""
    topic = broker.create_topic(f"equal-{version}")
    in_lane = Client(broker, version, topic)
    in_lane.produce(batch())
    for size in (1, 50, 100, 5_000, 20_000, 70_000):
        records = batch(b"v" * size)
        in_lane.send(in_lane.frame(records))
        laned = in_lane.answer()
        fresh = Client(broker, version, topic)
        fresh.send(fresh.frame(records))
        common = fresh.answer()
        fresh.close()
        _, answer = decode_response(ProduceResponse, version, memoryview(laned))
        assert struct.pack(">i", len(laned)) + laned == encode_response(answer, version, 7)

        answer.responses[0].partition_responses[0].base_offset += 1
        assert decode_response(ProduceResponse, version, memoryview(common)) == (7, answer)
    in_lane.close()


def spoiled() -> dict[str, bytes | None]:
    good = batch(b"a", b"b")
    return {
        "crc": good[:-1] + bytes([good[-1] ^ 1]),
        "count": with_fields(good, count=3),
        "control": with_fields(good, attributes=0x20),
        "transactional": with_fields(good, attributes=0x10),
        "base offset": with_fields(good, base_offset=4),
        "magic": with_fields(good, magic=1),
        "trailing": with_records(good, good[61:] + b"\0"),
        "two": good + good,
        "short": good[:70],
        "header only": good[:61],
        "nothing": b"",
        "null": None,
        "future": batch_of_the_future(),
        "codec": with_fields(good, attributes=5),
        "garbage in gzip": with_crc(with_fields(good, attributes=1)),
    }


def without_times(answer: bytes) -> bytes:
    """Error messages name the bounds of that moment."""
    return re.sub(rb"\d{13,}", b"", answer)


def batch_of_the_future() -> bytes:
    return build_batch([record(b"x", timestamp=int(time.time() * 1000) + 10**8)])


@pytest.mark.parametrize("what", list(spoiled()))
def test_a_lane_refuses_what_the_common_way_refuses(broker: Broker, client: Client, what: str):
    """Same answer, nothing stored, and the connection goes on."""
    records = spoiled()[what]
    assert (0, 0) == client.produce(batch())
    client.send(client.frame(records))
    laned = client.answer()
    fresh = Client(broker, 9, client._topic)
    fresh.send(fresh.frame(records))

    common = fresh.answer()
    fresh.close()

    assert without_times(common) == without_times(laned)
    assert (0, 1) == client.produce(batch())


def test_a_connection_may_change_partition_at_any_request(client: Client):
    """Each partition counts its own offsets, whatever the lane was."""
    expected = {0: 0, 1: 0}
    for number in range(200):
        partition = (number // 3) % 2 if number < 100 else number % 2
        assert (0, expected[partition]) == client.produce(batch(), partition=partition)
        expected[partition] += 1


def test_acks_of_one_and_all_have_their_own_lane(client: Client):
    assert [(0, 0), (0, 1), (0, 2), (0, 3)] == [client.produce(batch(), acks=acks) for acks in (1, 1, -1, -1)]


def test_a_lane_ends_with_its_topic(broker: Broker, client: Client):
    """Delete and recreate under a connection: nothing goes to the old topic."""
    client.produce(batch())
    client.produce(batch(b"old"))
    broker.delete_topic(client._topic)
    assert 3 == client.produce(batch())[0]

    broker.create_topic(client._topic)

    assert (0, 0) == client.produce(batch(b"new"))
    assert [b"new"] == [found.value for found in broker.records(client._topic)]


def test_a_lane_leaves_a_large_batch_to_the_common_way_once_it_must_be_compressed(
    broker: Broker, client: Client
):
    """That takes long, and is done in a thread there."""
    records = batch(b"v" * (RECOMPRESSED_ON_LOOP_BYTES_MAX + 1))
    port = client._sock.getsockname()[1]

    def lanes(node):
        return [each.context.lane for each in node.connections._open if each.peer.endswith(f":{port}")]

    assert [(0, 0), (0, 1)] == [client.produce(records), client.produce(records)]
    [lane] = broker.call(lanes)
    assert lane is not None
    broker.call(
        lambda node: setattr(
            node.partitions.get(client._topic, 0), "config", TopicConfig(compression_type="gzip")
        )
    )

    assert (0, 2) == client.produce(records)

    assert [None] == broker.call(lanes)


def test_an_idempotent_producer_keeps_its_sequence_in_a_lane(client: Client):
    """A retry gets its first offset again, a gap is refused."""
    assert (0, 0) == client.produce(batch(producer_id=5, producer_epoch=0, base_sequence=0))
    assert (0, 1) == client.produce(batch(producer_id=5, producer_epoch=0, base_sequence=1))
    assert (0, 1) == client.produce(batch(producer_id=5, producer_epoch=0, base_sequence=1))
    assert (45, -1) == client.produce(batch(producer_id=5, producer_epoch=0, base_sequence=3))


def test_bytes_between_requests_decide_the_lane(client: Client):
    """A frame cut short where a lane would go on reading ends the connection, and stores nothing."""
    client.produce(batch())
    whole = client.frame(batch())
    broken = struct.pack(">i", len(whole) - 4 - 3) + whole[4:-3]  # without the tagged fields at the end
    client.send(broken)

    with pytest.raises((AssertionError, ConnectionError)):
        client.answer()


@pytest.mark.parametrize("client", (3, 9, 13), indirect=True)
@pytest.mark.parametrize("after", (b"\0", b"\0\0\0", b"\1\2\3\4"))
def test_a_request_with_bytes_behind_it_opens_no_lane(client: Client, after: bytes):
    """They are ignored, as Kafka does, so the records do not lie where a lane would look for them."""
    for expected in range(4):
        whole = client.frame(batch(), partition=0)
        client.send(struct.pack(">i", len(whole) - 4 + len(after)) + whole[4:] + after)
        _, response = decode_response(ProduceResponse, client._version, memoryview(client.answer()))

        answer = response.responses[0].partition_responses[0]
        assert (0, expected) == (answer.error_code, answer.base_offset)
    assert (0, 4) == client.produce(batch())


def test_answers_keep_the_order_of_the_requests(client: Client):
    """Forty requests in one write, half of them in a lane."""
    client.send(b"".join(client.frame(batch(), partition=number // 10 % 2) for number in range(40)))
    answers = [
        decode_response(ProduceResponse, 9, memoryview(client.answer()))[1]
        .responses[0]
        .partition_responses[0]
        for _ in range(40)
    ]

    assert [(number // 10 % 2, number % 10 + number // 20 * 10) for number in range(40)] == [
        (answer.index, answer.base_offset) for answer in answers
    ]
