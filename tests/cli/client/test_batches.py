"""Encoding and decoding whole lists, beside the codec that does one record at a time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cli.client import batches
from kbroker.cli.client.errors import ClientError
from kbroker.errors import KafkaError
from kbroker.protocol import compression
from kbroker.protocol.records import Record, build_batch, decode_records, split_batches

NAMES = st.text(max_size=5)
BYTES = st.binary(max_size=200)
HEADERS = st.lists(st.tuples(NAMES, st.none() | BYTES), max_size=3)
MANY = [b"%d" % number for number in range(8_300)]  # deltas of one, two and three bytes


def batch_of(body, count, *, codec=compression.NONE, times=(5, 9)):
    """The one batch around a body."""
    [batch] = split_batches(memoryview(batches.wrap(body, count, times=times, codec=codec)))
    assert batch.crc_ok
    return batch


@given(st.lists(BYTES, min_size=1, max_size=200), HEADERS)
def test_values(values, headers):
    body = batches.encode_values(values, batches.encode_headers(headers))

    expected = [Record(at, 5, None, value, tuple(headers)) for at, value in enumerate(values)]
    assert expected == list(decode_records(batch_of(body, len(values))))
    assert values == batches.values_of(body, len(values))


@given(st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=200), HEADERS)
def test_keys_and_values(pairs, headers):
    body = batches.encode_pairs(pairs, batches.encode_headers(headers))

    expected = [Record(at, 5, key, value, tuple(headers)) for at, (key, value) in enumerate(pairs)]
    assert expected == list(decode_records(batch_of(body, len(pairs))))


RECORDS = st.builds(
    Record, st.just(-1), st.integers(0, 2**50), st.none() | BYTES, st.none() | BYTES, HEADERS.map(tuple)
)


@given(st.lists(RECORDS, min_size=1, max_size=50), st.sampled_from(sorted(compression.CODECS.values())))
def test_whole_records_both_ways(records, codec):
    first = records[0].timestamp
    body = batches.encode_records(records, first)
    batch = batch_of(body, len(records), codec=codec, times=(first, max(each.timestamp for each in records)))

    assert bytes(batch.view) == build_batch(records, codec=codec)
    seen = batches.records_of(batch, batches.body_of(batch))
    assert [(at, *each[1:]) for at, each in enumerate(records)] == [tuple(each) for each in seen]
    assert [each.value for each in records] == batches.values_of(batches.body_of(batch), len(records))


@pytest.mark.parametrize("length", [0, 1, 50, 63, 64, 8_180, 8_191, 8_192, 1 << 20])
def test_lengths_around_the_borders_of_varints(length):
    value = b"x" * length

    for body in (batches.encode_values([value]), batches.encode_pairs([(value, value)])):
        [record] = decode_records(batch_of(body, 1))
        assert value == record.value


def test_as_many_records_as_deltas_of_three_bytes_need():
    body = batches.encode_values(MANY)
    pairs = batches.encode_pairs([(value, value) for value in MANY])

    assert MANY == [each.value for each in decode_records(batch_of(body, len(MANY)))]
    assert MANY == [each.key for each in decode_records(batch_of(pairs, len(MANY)))]
    assert MANY == batches.values_of(body, len(MANY))


def test_append_time_is_the_batchs():
    raw = build_batch([Record(-1, 7, None, b"x")], append_time_ms=99, base_offset=40)
    [batch] = split_batches(memoryview(raw))

    assert [batches.Seen(40, 99, None, b"x", ())] == batches.records_of(batch, batches.body_of(batch))


def test_a_damaged_batch_is_not_read():
    raw = bytearray(build_batch([Record(-1, 7, None, b"x")]))
    raw[-2] ^= 1
    [batch] = split_batches(memoryview(raw))

    with pytest.raises(ClientError, match="its checksum does not fit"):
        batches.body_of(batch)


@given(st.binary(max_size=100), st.integers(1, 20))
def test_bytes_that_are_no_records_are_refused_and_nothing_worse(body, count):
    batch = batch_of(body, count)
    for read in (lambda: batches.values_of(body, count), lambda: batches.records_of(batch, body)):
        with contextlib.suppress(KafkaError):
            assert count == len(read())
