"""A client of bytes: what a test says goes out as it is, and what comes back is seen as it came.

with RawClient(address) as client:
    answer = client.ask(MetadataRequest(topics=None), version=9)
    client.send_bytes(b"garbage")
    assert client.closed()
"""

from __future__ import annotations

import socket
import ssl
import time
from types import TracebackType
from typing import Any, Self

from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.messages.topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest

LIMIT_S = 60.0  # every wait ends, also on a machine that stands still for a while


def address_of(bootstrap_servers: str) -> tuple[str, int]:
    """Host and port of a broker's bootstrap_servers."""
    host, _, port = bootstrap_servers.rpartition(":")
    return host.strip("[]"), int(port)


class RawClient:
    """One connection."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        client_id: str | None = "raw",
        receive_buffer: int | None = None,
    ) -> None:
        self.client_id = client_id
        self._correlation_id = 0
        self._asked: list[tuple[int, type[Any], int]] = []
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(LIMIT_S)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock: Any = sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")

    # requests

    def send(self, message: Any, version: int) -> int:
        """Send a request; its correlation id."""
        self._correlation_id += 1
        number = self._correlation_id
        self.send_bytes(b"".join(encode_request(message, version, number, self.client_id)))
        self._asked.append((number, RESPONSES[message.API_KEY], version))
        return number

    def send_bytes(self, data: bytes) -> None:
        """Send these bytes."""
        self.sock.sendall(data)

    def receive(self) -> Any:
        """The response to the oldest request that has none yet."""
        expected, cls, version = self._asked.pop(0)
        frame = self.receive_frame()
        assert frame is not None, f"the connection ended before the answer to {cls.__name__} v{version} came"
        number, message = decode_response(cls, version, memoryview(frame))
        assert expected == number, "answers come in the order of the requests"
        return message

    def ask(self, message: Any, version: int) -> Any:
        """Send and receive."""
        self.send(message, version)
        return self.receive()

    def receive_frame(self) -> bytes | None:
        """The next frame without its size; None: the connection ended."""
        head = self._exactly(4)
        return None if head is None else self._exactly(int.from_bytes(head, "big"))

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.sock.recv(min(size - len(data), 1 << 20))
            except (ConnectionError, ssl.SSLError):
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)

    def closed(self) -> bool:
        """The broker closes the connection, and sends nothing before."""
        try:
            return not self.sock.recv(1)
        except (ConnectionError, ssl.SSLError):
            return True

    def silent(self, seconds: float = 0.2) -> bool:
        """Nothing comes for a while, and the connection stays."""
        self.sock.settimeout(seconds)
        try:
            self.sock.recv(1)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(LIMIT_S)
        return False

    # what nearly every test needs

    def create(self, name: str, partitions: int = 1, **configs: Any) -> bytes:
        """Create a topic (config names with underscores for dots); its id."""
        answer = self.ask(
            CreateTopicsRequest(
                topics=[
                    CreatableTopic(
                        name=name,
                        num_partitions=partitions,
                        replication_factor=1,
                        configs=[
                            CreatableTopicConfig(name=option.replace("_", "."), value=str(value))
                            for option, value in configs.items()
                        ],
                    )
                ],
                timeout_ms=int(LIMIT_S * 1000),
            ),
            7,
        )
        [topic] = answer.topics
        assert topic.error_code == 0, topic.error_message
        for index in range(partitions):
            self._await_leader(name, index)
        return topic.topic_id

    def _await_leader(self, name: str, partition: int) -> None:
        """Apache Kafka answers a creation before its leaders lead; kbroker leads at once."""
        deadline = time.monotonic() + LIMIT_S
        while self.ask(fetch_request(name, partition=partition), 12).responses[0].partitions[0].error_code:
            assert time.monotonic() < deadline, f"nobody leads {name}"

    # life

    def close(self) -> None:
        """End the connection."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# requests that many tests send


def produce_request(
    topic: str | bytes, records: bytes | None, *, acks: int = -1, partition: int = 0, timeout_ms: int = 60_000
) -> Any:
    """A Produce of one batch; to a topic's id (v13) if `topic` is bytes."""
    from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

    data = [PartitionProduceData(index=partition, records=None if records is None else memoryview(records))]
    return ProduceRequest(
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[
            TopicProduceData(topic_id=topic, partition_data=data)
            if isinstance(topic, bytes)
            else TopicProduceData(name=topic, partition_data=data)
        ],
    )


def fetch_request(
    topic: str | bytes,
    offset: int = 0,
    *,
    partition: int = 0,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 26,
    partition_max_bytes: int = 1 << 20,
    current_leader_epoch: int = -1,
    **fields: Any,
) -> Any:
    """A Fetch of one partition; by a topic's id (v13+) if `topic` is bytes."""
    from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic

    asked = [
        FetchPartition(
            partition=partition,
            fetch_offset=offset,
            partition_max_bytes=partition_max_bytes,
            current_leader_epoch=current_leader_epoch,
        )
    ]
    topics = [
        FetchTopic(topic_id=topic, partitions=asked)
        if isinstance(topic, bytes)
        else FetchTopic(topic=topic, partitions=asked)
    ]
    return FetchRequest(
        max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, topics=topics, **fields
    )


def stored(client: RawClient, topic: str, partition: int = 0) -> list[tuple[int, bytes | None]]:
    """Offset and value of everything that a reader gets from a partition."""
    from kbroker.protocol.records import decode_records, split_batches

    found: list[tuple[int, bytes | None]] = []
    offset = 0
    while True:
        answer = client.ask(fetch_request(topic, offset, partition=partition), 12)
        [data] = answer.responses[0].partitions
        assert data.error_code == 0
        if not data.records:
            return found
        for batch in split_batches(memoryview(bytearray(data.records)), cut_tail=True):
            found += [(record.offset, record.value) for record in decode_records(batch)]
            offset = batch.next_offset
