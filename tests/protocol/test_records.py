"""Batches as views: header, stamps, splitting, building and decoding; and what other clients make of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError, ProtocolError
from kbroker.protocol import compression
from kbroker.protocol.records import (
    Record,
    RecordBatch,
    append_varint,
    build_batch,
    decode_records,
    read_varint,
    recompress,
    record,
    split_batches,
)
from tests.support import foreign_records
from tests.support.batches import (
    NOW,
    record_lists,
    three,
    view_of,
    with_crc,
    with_fields,
    with_records,
    writable,
)

ALL_CODECS = [pytest.param(codec, id=name) for name, codec in compression.CODECS.items()]

# One record (key "k", value "v", header h: null), offset 7, leader epoch 3; put together field by field.
GOLDEN = bytes.fromhex(
    "0000000000000007 0000003d 00000003 02 4b6c3d62 0000 00000000 0000018bcfe56800 0000018bcfe56800"
    "ffffffffffffffff ffff ffffffff 00000001 16 00 00 00 02 6b 02 76 02 02 68 01".replace(" ", "")
)


def test_header_is_read_in_place():
    batch = RecordBatch(memoryview(with_crc(GOLDEN)))

    assert (7, 61, 3, 2, 0, 0) == (
        batch.base_offset,
        batch.batch_length,
        batch.epoch,
        batch.magic,
        batch.attributes,
        batch.last_offset_delta,
    )
    assert (NOW, NOW, -1, -1, -1, 1) == (
        batch.base_timestamp,
        batch.max_timestamp,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.count,
    )
    assert (73, 7, 8, -1, True) == (
        batch.size,
        batch.last_offset,
        batch.next_offset,
        batch.last_sequence,
        batch.crc_ok,
    )


def test_the_bytes_of_a_built_batch_are_known():
    built = build_batch(
        [record(b"v", key=b"k", timestamp=NOW, headers=[("h", None)])], base_offset=7, epoch=3
    )

    assert with_crc(GOLDEN) == built


def test_flags_are_read_from_the_attributes():
    batch = view_of(three(codec=compression.LZ4, transactional=True, control=True, append_time_ms=5))

    assert compression.LZ4 == batch.codec
    assert batch.is_transactional
    assert batch.is_control
    assert batch.is_log_append_time
    assert not batch.has_delete_horizon


def test_stamp_leaves_the_crc_alone():
    batch = view_of(three())
    crc = batch.crc

    batch.stamp(1234567890123, 42)

    again = RecordBatch(batch.view)
    assert (1234567890123, 42, crc, True) == (again.base_offset, again.epoch, again.crc, again.crc_ok)
    assert (1234567890123, 42) == (batch.base_offset, batch.epoch)


def test_append_time_replaces_every_records_time():
    batch = view_of(three())

    batch.stamp_append_time(NOW + 5)

    again = RecordBatch(batch.view)
    assert (True, True, NOW + 5) == (again.crc_ok, again.is_log_append_time, again.max_timestamp)
    assert [NOW + 5] * 3 == [r.timestamp for r in decode_records(again)]


def test_maximum_timestamp_can_be_put_right():
    batch = view_of(three())

    batch.stamp_max_timestamp(NOW + 1)

    again = RecordBatch(batch.view)
    assert (NOW + 1, NOW + 1, True) == (batch.max_timestamp, again.max_timestamp, again.crc_ok)


def test_a_claim_to_append_time_can_be_taken_back():
    batch = view_of(three(append_time_ms=NOW))

    batch.clear_append_time()

    again = RecordBatch(batch.view)
    assert (False, False, True) == (batch.is_log_append_time, again.is_log_append_time, again.crc_ok)


def test_a_read_only_view_cannot_be_stamped():
    with pytest.raises(TypeError):
        RecordBatch(memoryview(three())).stamp(1, 1)


def test_sequences_go_on_at_zero_after_the_largest():
    batch = view_of(three(producer_id=9, producer_epoch=0, base_sequence=2**31 - 2))

    assert 0 == batch.last_sequence


def test_crc_covers_everything_from_the_attributes_on():
    whole = three()

    broken = [at for at in range(len(whole)) if not view_of(flip(whole, at)).crc_ok]

    assert [*range(17, len(whole))] == broken


def flip(batch: bytes, at: int) -> bytes:
    return batch[:at] + bytes([batch[at] ^ 1]) + batch[at + 1 :]


def test_batches_back_to_back_are_split():
    first, second = three(), three(base_offset=3, codec=compression.GZIP)

    batches = split_batches(writable(first + second))

    assert [(0, len(first)), (3, len(second))] == [(b.base_offset, len(b.view)) for b in batches]
    assert [] == split_batches(memoryview(b""))


@pytest.mark.parametrize("left", [1, 11, 12, 16, 17, 60, 61, 90])
def test_a_cut_tail_is_damage_unless_it_is_expected(left):
    whole = three()
    data = writable(whole + whole[:left])

    with pytest.raises(ProtocolError):
        split_batches(data)
    assert 1 == len(split_batches(data, cut_tail=True))


@pytest.mark.parametrize(
    "fields",
    [{"magic": 0}, {"magic": 1}, {"magic": 3}]
    + [{"batch_length": length} for length in (48, 0, -1, -(2**31))],
)
def test_what_is_no_batch_cannot_be_split(fields):
    with pytest.raises(ProtocolError):
        split_batches(writable(with_fields(three(), **fields)), cut_tail=True)


@given(st.binary(max_size=300), st.booleans())
def test_splitting_garbage_raises_nothing_but_protocol_errors(data, cut_tail):
    try:
        split_batches(memoryview(data), cut_tail=cut_tail)
    except ProtocolError:
        pass


@given(record_lists(), st.sampled_from(list(compression.CODEC_NAMES)), st.integers(0, 2**40))
def test_what_is_built_is_decoded(records, codec, base):
    moved = [r._replace(offset=base + r.offset) for r in records]

    batch = view_of(build_batch(moved, base_offset=base, codec=codec))

    assert moved == list(decode_records(batch))
    assert (True, len(records)) == (batch.crc_ok, batch.count)
    assert max(r.timestamp for r in records) == batch.max_timestamp


def test_offsets_may_have_gaps():
    records = [Record(10, NOW, b"a", b"1"), Record(15, NOW, b"b", None)]

    batch = view_of(build_batch(records, base_offset=8, last_offset_delta=20))

    assert records == list(decode_records(batch))
    assert (8, 28) == (batch.base_offset, batch.last_offset)


@pytest.mark.parametrize("codec", ALL_CODECS)
def test_a_batch_that_compaction_emptied_has_no_records(codec):
    batch = view_of(build_batch([], base_offset=4, last_offset_delta=5, codec=codec, producer_id=1))

    assert [] == list(decode_records(batch))
    assert (True, 61, 9) == (batch.is_emptied, batch.size, batch.last_offset)


def test_a_delete_horizon_rebases_the_times():
    batch = view_of(build_batch([record(None, key=b"k", timestamp=NOW)], delete_horizon_ms=NOW + 100))

    assert (True, NOW + 100) == (batch.has_delete_horizon, batch.base_timestamp)
    assert [NOW] == [r.timestamp for r in decode_records(batch)]


@pytest.mark.parametrize("before", ALL_CODECS)
@pytest.mark.parametrize("after", ALL_CODECS)
def test_a_batch_is_recompressed_with_its_header_kept(before, after):
    old = view_of(
        three(codec=before, producer_id=5, producer_epoch=1, base_sequence=7, base_offset=70, epoch=2)
    )

    new = view_of(recompress(old, after))

    assert list(decode_records(old)) == list(decode_records(new))
    assert (after, True) == (new.codec, new.crc_ok)
    assert (5, 1, 7, 70, 2, 3) == (
        new.producer_id,
        new.producer_epoch,
        new.base_sequence,
        new.base_offset,
        new.epoch,
        new.count,
    )


RECORD = bytes.fromhex("0e 00 00 00 02 6b 02 76 00".replace(" ", ""))  # one byte more than its length says


@pytest.mark.parametrize(
    "body",
    [
        b"",
        RECORD[:-1],  # cut
        b"\x10" + RECORD[1:] + b"\x00",  # a byte after its last header
        b"\x01" + RECORD[1:],  # negative length
        b"\x10\x00\x00\x00\x03k\x02v\x00",  # key of -2 bytes
        b"\x10\x00\x00\x00\x7ek\x02v\x00",  # key longer than the record
        b"\x10\x00\x00\x00\x02k\x02v\x01",  # -1 headers
        b"\x10\x00\x00\x00\x02k\x02v\x7e",  # 63 headers in no bytes
        b"\x14\x00\x00\x00\x02k\x02v\x02\x01\x01",  # header without a key
        b"\x16\x00\x00\x00\x02k\x02v\x02\x02\xff\x01",  # header key that is not UTF-8
        b"\xff" * 10 + b"\x01",  # a length of eleven bytes
        RECORD + RECORD,
    ],
)
def test_records_that_do_not_add_up_are_refused(body):
    batch = view_of(with_records(build_batch([record(b"v")]), body))

    with pytest.raises(KafkaError) as refused:
        list(decode_records(batch))
    assert ErrorCode.INVALID_RECORD == refused.value.code


@settings(max_examples=200)
@given(st.data(), record_lists(), st.sampled_from(list(compression.CODEC_NAMES)))
def test_decoding_damaged_batches_raises_nothing_but_kafka_errors(data, records, codec):
    built = bytearray(build_batch(records, codec=codec))
    for _ in range(data.draw(st.integers(1, 3))):
        built[data.draw(st.integers(17, len(built) - 1))] = data.draw(st.integers(0, 255))

    code = None
    try:
        list(decode_records(view_of(bytes(built)), decompressed_max=100_000))
    except KafkaError as error:
        code = error.code

    assert code in (None, ErrorCode.INVALID_RECORD, ErrorCode.MESSAGE_TOO_LARGE)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_round_trip(value):
    out = bytearray(b"x")
    append_varint(out, value)

    assert (value, len(out)) == read_varint(out, 1)


def test_a_varint_has_ten_bytes_at_most():
    with pytest.raises(ValueError, match="varint"):
        read_varint(b"\xff" * 20, 0)
    with pytest.raises(IndexError):
        read_varint(b"\xff" * 3, 0)


# --- other people's batches


def theirs(module, records, codec, *, producer=(-1, -1, -1), transactional=0) -> bytes:
    """The batch as kafka-python or aiokafka builds it."""
    builder = module.DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=producer[0],
        producer_epoch=producer[1],
        base_sequence=producer[2],
        batch_size=10**7,
    )
    for item in records:
        assert (
            builder.append(item.offset, item.timestamp, item.key, item.value, list(item.headers)) is not None
        )
    return bytes(builder.build())


def read_by(module, batch: bytes) -> list[Record]:
    """The batch's records as kafka-python or aiokafka reads them."""
    reader = module.DefaultRecordBatch(batch)
    assert reader.validate_crc()
    return [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in reader]


OTHERS = [
    pytest.param(foreign_records.kafka_python, id="kafka-python"),
    pytest.param(foreign_records.aiokafka, id="aiokafka"),
]


@pytest.mark.parametrize("module", OTHERS)
@pytest.mark.parametrize("codec", ALL_CODECS)
@settings(max_examples=25)
@given(records=record_lists())
def test_we_read_what_others_build(module, codec, records):
    batch = view_of(theirs(module, records, codec))

    assert records == list(decode_records(batch))
    assert batch.crc_ok


@pytest.mark.parametrize("module", OTHERS)
@pytest.mark.parametrize("codec", ALL_CODECS)
@settings(max_examples=25)
@given(records=record_lists())
def test_others_read_what_we_build(module, codec, records):
    assert records == read_by(module, build_batch(records, codec=codec))


@pytest.mark.parametrize("module", OTHERS)
def test_others_see_producer_and_flags_as_we_do(module):
    batch = view_of(theirs(module, [Record(0, NOW, None, b"v")], 0, producer=(77, 3, 12), transactional=1))
    ours = module.DefaultRecordBatch(
        three(producer_id=77, producer_epoch=3, base_sequence=12, transactional=True)
    )

    assert (77, 3, 12, True) == (
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.is_transactional,
    )
    assert (77, 3, 12, True) == (
        ours.producer_id,
        ours.producer_epoch,
        ours.base_sequence,
        ours.is_transactional,
    )


def test_control_records_are_read_by_others():
    marker = record(struct.pack(">hi", 0, 9), key=struct.pack(">hh", 0, 1), timestamp=NOW)
    batch = build_batch([marker], control=True, transactional=True, producer_id=1, producer_epoch=0)

    [read] = foreign_records.kafka_python.DefaultRecordBatch(batch)

    assert (False, True) == (read.abort, read.commit)
