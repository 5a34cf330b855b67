"""What hostile or broken peers send: each gets Kafka's error or a closed connection, and nobody else notices."""

from __future__ import annotations

import gzip
import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.frames import encode_request
from kbroker.protocol.messages.metadata import MetadataRequest
from kbroker.protocol.records import build_batch, record
from tests.support.batches import with_fields, with_records
from tests.support.peers import Certificates
from tests.support.raw_client import LIMIT_S, RawClient, address_of, fetch_request, produce_request, stored

MIB = 1 << 20


def request(message, version: int, number: int = 1) -> bytes:
    return b"".join(encode_request(message, version, number, "raw"))


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def serves(connect) -> None:
    """A well-behaved client is served."""
    with connect() as client:
        assert client.ask(MetadataRequest(topics=[]), 9).brokers


# -- frames

HEADER = b"\0\x03\0\x09\0\0\0\x01\0\x03raw\0"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0\0\0\0" + bytes(20), id="size 0"),
        pytest.param(b"\xff\xff\xff\xff" + bytes(20), id="size -1"),
        pytest.param(b"\x80\0\0\0" + bytes(20), id="the smallest size"),
        pytest.param(b"\x7f\xff\xff\xff" + bytes(20), id="the largest size"),
        pytest.param(b"\x06\x40\0\x01" + bytes(20), id="above socket.request.max.bytes"),
        pytest.param(b"\0\0\0\x09" + bytes(9), id="too small for a header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
        pytest.param(frame(b"\x03\xe7\0\0\0\0\0\x01\0\x03raw"), id="an API that nobody knows"),
        pytest.param(frame(b"\0\x03\0\x63\0\0\0\x01\0\x03raw"), id="a version that nobody knows"),
        pytest.param(frame(b"\0\0\0\x02\0\0\0\x01\0\x03raw" + bytes(10)), id="Produce v2"),
        pytest.param(frame(b"\0\x04\0\x01\0\0\0\x01\0\x03raw" + bytes(10)), id="between brokers alone"),
        pytest.param(frame(b"\0\x03\0\x09\0\0\0\x01\x7f\xffraw"), id="client id beyond the frame"),
        pytest.param(frame(HEADER + b"\xff\xff\xff\xff\x0f\0\0\0"), id="four billion topics"),
        pytest.param(frame(HEADER + b"\x02\xff\xff\x03abc"), id="a name beyond the frame"),
        pytest.param(frame(HEADER + b"\0\0\0\0\xff\xff\xff\xff\x0f"), id="four billion tagged fields"),
        pytest.param(frame(HEADER + b"\0\0\0\0\x01\x05\xff\xff\xff\xff\x0f"), id="a tagged field of 4 GB"),
        pytest.param(frame(HEADER + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), id="a number without end"),
        pytest.param(frame(HEADER), id="no body"),
    ],
)
def test_what_is_not_a_request_closes_that_connection_alone(connect, data):
    client = connect()

    client.send_bytes(data)

    assert client.closed()
    serves(connect)


def test_whatever_bytes_come_others_are_served(connect):
    rng = random.Random(20)
    good = [request(MetadataRequest(topics=None), version) for version in (1, 5, 9, 12)] + [
        request(produce_request("nobody", b"x" * 80), 9),
        request(fetch_request("nobody"), 12),
    ]
    for _ in range(150):
        broken = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(4, len(broken))] = rng.randrange(256)
        client = connect()
        client.send_bytes(bytes(broken))
        client.sock.shutdown(socket.SHUT_WR)
    for _ in range(50):
        client = connect()
        client.send_bytes(rng.randbytes(rng.randint(1, 2000)))
        client.sock.shutdown(socket.SHUT_WR)

    serves(connect)


def test_a_request_that_is_never_finished_does_not_keep_others_waiting(connect):
    half = request(MetadataRequest(topics=None), 9)[:-2]
    waiting = [connect() for _ in range(20)]
    for client in waiting:
        client.send_bytes(half)

    serves(connect)
    assert waiting[0].silent(0.05)


def test_a_slow_sender_is_served_in_the_end(connect):
    client = connect()
    for byte in request(MetadataRequest(topics=[]), 9):
        client.send_bytes(bytes([byte]))

    assert client.receive_frame() is not None


def test_many_requests_at_once_are_all_answered(connect):
    """More than may be unanswered, and more answers than may be unsent: the broker stops reading, and goes on."""
    client = connect()
    count = 3000
    data = b"".join(request(MetadataRequest(topics=None), 9, number) for number in range(count))
    sender = threading.Thread(target=client.send_bytes, args=(data,), daemon=True)
    sender.start()

    answers = [client.receive_frame() for _ in range(count)]

    sender.join(LIMIT_S)
    assert list(range(count)) == [int.from_bytes(answer[:4], "big") for answer in answers if answer]


# -- records


def bomb(kind: str) -> bytes:
    """A small batch that unpacks to 200 MiB and more."""
    good = build_batch([record(b"x", timestamp=0)])
    zeros = bytes(200 * MIB)
    if kind == "gzip":
        return with_fields(with_records(good, gzip.compress(zeros, 1)), attributes=1)
    if kind == "zstd":
        import zstandard

        return with_fields(with_records(good, zstandard.compress(zeros, 1)), attributes=4)
    lying = struct.pack("<I", 0x184D2204)
    return with_fields(with_records(good, lying + bytes(40)), attributes=3)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "broken lz4"])
def test_what_does_not_decompress_within_bounds_is_refused_and_not_stored(connect, client, topic, kind):
    client.create(topic, max_message_bytes=8 * MIB)

    answer = client.ask(produce_request(topic, bomb(kind)), 9).responses[0].partition_responses[0]

    assert answer.error_code in (
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.INVALID_RECORD,
        ErrorCode.CORRUPT_MESSAGE,
    )
    assert [] == stored(client, topic)
    serves(connect)


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5, 7])
def test_records_that_are_not_compressed_as_they_say_are_refused(client, topic, codec):
    client.create(topic)
    plain = build_batch([record(b"v%d" % number, timestamp=0) for number in range(3)])

    answer = client.ask(produce_request(topic, with_fields(plain, attributes=codec)), 9)

    assert answer.responses[0].partition_responses[0].error_code in (
        ErrorCode.INVALID_RECORD,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
    )
    assert [] == stored(client, topic)


def test_no_damage_of_one_byte_is_stored(client, topic):
    client.create(topic)
    good = build_batch([record(b"value", key=b"key", timestamp=0) for _ in range(3)])

    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 0x55
        answer = client.ask(produce_request(topic, bytes(damaged)), 9)
        code = answer.responses[0].partition_responses[0].error_code
        # the leader epoch is the broker's to write; nothing else may differ from what the CRC or the lengths say
        assert (code == 0) == (12 <= at < 16), at

    assert {b"value"} == {value for _, value in stored(client, topic)}
    assert 3 * 4 == len(stored(client, topic))


# -- TLS


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory) -> Iterator[tuple[tuple[str, int], ssl.SSLContext]]:
    from kbroker.testing import Broker

    made = Certificates.make(tmp_path_factory.mktemp("tls"))
    config = {
        "listeners": "SSL://127.0.0.1:0",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(made.keystore),
    }
    with Broker(config) as broker:
        yield address_of(broker.bootstrap_servers), ssl.create_default_context(cafile=str(made.ca))


def test_plain_bytes_on_a_tls_port_close_and_tls_goes_on(tls_broker):
    address, context = tls_broker
    with RawClient(address) as plain:
        plain.send_bytes(request(MetadataRequest(topics=[]), 9))
        plain.receive_frame()  # an alert, which is no frame, or the end at once

    with RawClient(address, tls=context) as client:
        assert client.ask(MetadataRequest(topics=[]), 9).brokers


def test_handshakes_that_stop_keep_nobody_waiting(tls_broker):
    address, context = tls_broker
    stopped = [socket.create_connection(address) for _ in range(30)]
    for number, sock in enumerate(stopped):
        sock.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])

    with RawClient(address, tls=context) as client:
        assert client.ask(MetadataRequest(topics=[]), 9).brokers
    for sock in stopped:
        sock.close()


def test_a_client_that_trusts_somebody_else_closes_and_others_go_on(tls_broker):
    address, context = tls_broker
    for _ in range(3):
        with pytest.raises(ssl.SSLError):
            RawClient(address, tls=ssl.create_default_context())

    with RawClient(address, tls=context) as client:
        assert client.ask(MetadataRequest(topics=[]), 9).brokers


def test_big_answers_and_requests_go_through_tls(tls_broker, topic):
    address, context = tls_broker
    value = random.Random(1).randbytes(3 * MIB)
    with RawClient(address, tls=context) as client:
        client.create(topic, max_message_bytes=8 * MIB)
        batch = build_batch([record(value, timestamp=0)])
        for _ in range(3):
            client.send(produce_request(topic, batch), 9)
        assert [0, 1, 2] == [
            client.receive().responses[0].partition_responses[0].base_offset for _ in range(3)
        ]
        for _ in range(2):
            client.send(fetch_request(topic, partition_max_bytes=64 * MIB), 12)
        for _ in range(2):
            data = client.receive().responses[0].partitions[0]
            assert 3 == bytes(data.records).count(value)


# -- memory, of a broker in a process of its own


class Process:
    """`kbroker start` in a process, and its memory."""

    def __init__(self, folder: Path) -> None:
        config = folder / "server.properties"
        config.write_text("kbroker.fsync.before.ack=false\n")
        argv = [
            sys.executable,
            "-P",
            "-m",
            "kbroker",
            "start",
            "--port",
            "0",
            "--data-dir",
            str(folder / "data"),
        ]
        self.log = (folder / "log").open("wb+")
        self._process = subprocess.Popen(
            [*argv, "--config", str(config)], stdout=subprocess.PIPE, stderr=self.log
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        found = re.search(r"localhost:(\d+)", line)
        if found is None:
            self.stop()
            raise AssertionError(f"the broker says {line!r}")
        self.address = ("127.0.0.1", int(found[1]))

    def rss_kb(self) -> int:
        """Resident memory that is not files."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        raise AssertionError("no RssAnon")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self.log.close()


@pytest.fixture
def process(tmp_path) -> Iterator[Process]:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    started = Process(tmp_path)
    yield started
    started.stop()


def settled_kb(process: Process) -> int:
    """Memory once the broker has served what was sent before."""
    with RawClient(process.address) as client:
        client.ask(MetadataRequest(topics=[]), 9)
    return process.rss_kb()


def test_half_frames_that_declare_much_take_little(process):
    with RawClient(process.address) as client:
        client.ask(MetadataRequest(topics=[]), 9)
    before = settled_kb(process)
    peers = [socket.create_connection(process.address) for _ in range(500)]

    for peer in peers:
        peer.sendall((100 * MIB).to_bytes(4, "big") + HEADER + bytes(1000))

    assert settled_kb(process) - before < 16 << 10
    for peer in peers:
        peer.close()


def test_readers_that_never_read_take_little(process):
    with RawClient(process.address) as client:
        client.create("big", max_message_bytes=2 * MIB)
        batch = build_batch([record(os.urandom(MIB), timestamp=0)])
        assert (
            0 == client.ask(produce_request("big", batch), 9).responses[0].partition_responses[0].error_code
        )
    before = settled_kb(process)
    readers = [RawClient(process.address, receive_buffer=4096) for _ in range(200)]

    for reader in readers:
        for _ in range(20):
            reader.send(fetch_request("big", partition_max_bytes=2 * MIB), 12)

    assert settled_kb(process) - before < 48 << 10
    for reader in readers:
        reader.close()


def test_idle_connections_take_little_and_leave_nothing(process):
    for _ in range(2):  # the first round warms up what is kept: tables that grew
        before = settled_kb(process)
        peers = [RawClient(process.address) for _ in range(1000)]
        for peer in peers:
            peer.ask(MetadataRequest(topics=[]), 9)
        each = (settled_kb(process) - before) / len(peers)
        for peer in peers:
            peer.close()

    assert each < 3.0
