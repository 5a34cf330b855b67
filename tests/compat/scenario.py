"""What the scenarios share: choosing clients, and records that show every mistake."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.compat import registry
from tests.compat.driver import Client, Record

Headers = tuple[tuple[str, bytes | None], ...]


def each_client(*abilities: str) -> pytest.MarkDecorator:
    """Run the test once for each client that can do all of this."""
    return pytest.mark.parametrize("client", registry.names(*abilities), indirect=True)


def each_client_and_codec(*abilities: str) -> pytest.MarkDecorator:
    """Run the test for each client with each codec it has."""
    pairs = [(name, codec) for name in registry.names(*abilities) for codec in registry.CLIENTS[name].codecs]
    return pytest.mark.parametrize(("client", "codec"), pairs, indirect=["client"])


def eventually(look: Callable[[], object], expected: object, *, limit_s: float = 60.0) -> None:
    """`look()` comes to be `expected`: Kafka's brokers learn of a change a moment after it was acknowledged."""
    deadline = time.monotonic() + limit_s
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert expected == found


def sample(client: Client, count: int = 20, *, start_ms: int | None = None) -> list[Record]:
    """Records as varied as the client can make them: null and empty keys and values, every byte, headers, times."""
    start = int(time.time() * 1000) - 60_000 if start_ms is None else start_ms
    return [_record(client, number, start + number * 7) for number in range(count)]


def _record(client: Client, number: int, timestamp: int) -> Record:
    keys = (f"key-{number}".encode(), None, b"", bytes(range(256)))
    values = (f"value {number} ".encode() * 40, b"", bytes(range(255, -1, -1)), None)
    if "binary" not in client.can:
        keys, values = (keys[0], b"other"), (values[0], f"{number}".encode())
    headers: Headers = (("all", b"same"), ("second", b"2"))
    if "record headers" in client.can:
        # the same name twice, in order; bytes
        headers = ((), (("h", b"1"), ("h", f"{number}".encode())), (("b", b"\xff\x00\n"),))[number % 3]
    if "null headers" in client.can and number % 3 == 1:
        headers += (("null", None),)
    if "tells null" in client.can and number % 3 == 1:
        headers += (("empty", b""),)
    return Record(
        key=keys[number % len(keys)],
        value=values[(number // 2) % len(values)],
        headers=headers,
        timestamp=timestamp if "timestamps" in client.can else None,
    )


def assert_same(sent: list[Record], received: list[Record], reader: Client) -> None:
    """Everything arrived once, in order, byte for byte, with its headers and (where the sender set it) its time."""
    offsets = [record.offset for record in received]
    assert list(range(len(sent))) == offsets, f"offsets {offsets}"
    for want, got in zip(sent, received, strict=True):
        assert _as_told_by(reader, want) == _as_told_by(reader, got), f"sent {want}, got {got}"
        if want.timestamp is not None:
            assert want.timestamp == got.timestamp, f"sent {want}, got {got}"


def _as_told_by(reader: Client, record: Record) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers as far as `reader` can tell them apart."""
    headers = record.headers if "record headers" in reader.can else ()
    if "tells null" in reader.can or "binary" not in reader.can:
        return record.key, record.value, headers
    return record.key or b"", record.value or b"", tuple((name, value or b"") for name, value in headers)
