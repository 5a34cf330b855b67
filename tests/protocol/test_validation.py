"""What a leader accepts. The answers are those of Apache Kafka 4.3 to the same bytes, but where a test says otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression, validation
from kbroker.protocol.compression import CODECS, compress
from kbroker.protocol.records import RecordBatch, build_batch, decode_records, record
from kbroker.protocol.validation import (
    CAREFUL_SLICE_RECORDS,
    RECORD_ERRORS_MAX,
    SLICE_RECORDS,
    RecordsRejected,
    check_header,
    check_produced,
    check_records,
    check_slices,
    is_big,
    walk_slices,
)
from tests.support import foreign_records
from tests.support.batches import (
    HOUR,
    NOW,
    record_lists,
    three,
    topic_config,
    view_of,
    with_crc,
    with_fields,
    with_records,
    writable,
)

CONFIG = topic_config()
COMPACTED = topic_config(cleanup_policy=frozenset({"compact", "delete"}))
APPEND_TIME = topic_config(message_timestamp_type="LogAppendTime")
ALL_CODECS = [pytest.param(codec, id=name) for name, codec in CODECS.items()]
REAL_CODECS = ALL_CODECS[1:]


def refusal(batch: bytes, config=CONFIG, **options) -> KafkaError:
    """The error that the batch is refused with."""
    with pytest.raises(KafkaError) as refused:
        check_produced(writable(batch), config, NOW, "orders-0", **options)
    return refused.value


def code_of(batch: bytes, config=CONFIG, **options) -> ErrorCode | None:
    """What the check ends in."""
    try:
        check_produced(writable(batch), config, NOW, "orders-0", **options)
    except KafkaError as error:
        return error.code
    return None


@pytest.mark.parametrize("codec", ALL_CODECS)
@given(records=record_lists())
def test_what_is_built_is_accepted(codec, records):
    batch = check_produced(writable(build_batch(records, codec=codec)), topic_config(), 2**43)

    assert records == list(decode_records(batch))


@pytest.mark.parametrize("module", [foreign_records.kafka_python, foreign_records.aiokafka])
@pytest.mark.parametrize("codec", ALL_CODECS)
def test_what_other_clients_build_is_accepted(module, codec):
    builder = module.DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10**7,
    )
    for number in range(500):
        builder.append(number, NOW, b"k", b"v" * number, [])

    assert 500 == check_produced(writable(bytes(builder.build())), CONFIG, NOW).count


def test_raw_snappy_is_accepted():
    """As librdkafka sends it."""
    plain = three()
    raw = bytes(compression.cramjam.snappy.compress_raw(plain[61:]))

    assert None is code_of(with_records(with_fields(plain, attributes=compression.SNAPPY), raw))


# --- frame and header


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        three()[:10],
        three()[:16],
        three()[:17],
        three()[:60],
        three()[:61],
        three()[:-1],
        three() + three(),
        # Kafka forgives a cut batch after the first and forgets it; here nothing is dropped unsaid
        three() + b"xyz",
        three() + three()[:-1],
        three() + bytes(100),
    ],
)
def test_exactly_one_whole_batch_is_taken(payload):
    assert ErrorCode.INVALID_RECORD == code_of(payload)


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 13, 48])
def test_a_length_below_the_header_is_corrupt(length):
    assert ErrorCode.CORRUPT_MESSAGE == code_of(with_fields(three(), batch_length=length))


def test_a_length_beyond_the_frame_is_invalid():
    """Kafka overflows at the largest and answers UNKNOWN_SERVER_ERROR."""
    assert ErrorCode.INVALID_RECORD == code_of(with_fields(three(), batch_length=2**31 - 1))


@pytest.mark.parametrize(
    ("magic", "code"),
    [(0, ErrorCode.INVALID_RECORD), (1, ErrorCode.INVALID_RECORD)]
    + [(magic, ErrorCode.CORRUPT_MESSAGE) for magic in (3, 127, -1)],
)
def test_only_magic_two_is_taken(magic, code):
    assert code == code_of(with_fields(three(), magic=magic))


@pytest.mark.parametrize("offset", [5, -1])
def test_the_base_offset_must_be_zero(offset):
    assert ErrorCode.INVALID_RECORD == code_of(with_fields(three(), base_offset=offset))


def test_the_leader_epoch_is_not_the_clients_business():
    assert None is code_of(with_fields(three(), epoch=77))


def test_max_message_bytes_counts_the_whole_batch():
    size = len(three())

    assert None is code_of(three(), topic_config(max_message_bytes=size))
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(three(), topic_config(max_message_bytes=size - 1))


def test_size_is_looked_at_before_the_crc_and_the_crc_before_the_rest():
    small = topic_config(max_message_bytes=50)
    control = three(control=True)

    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(with_fields(control, crc=1), small)
    assert ErrorCode.CORRUPT_MESSAGE == code_of(with_fields(control, crc=1))
    assert ErrorCode.INVALID_RECORD == code_of(control)


@pytest.mark.parametrize("at", range(21, len(three())))
def test_any_flipped_bit_is_a_wrong_crc(at):
    batch = bytearray(three())
    batch[at] ^= 0x10

    assert ErrorCode.CORRUPT_MESSAGE == code_of(bytes(batch))


@pytest.mark.parametrize(
    "fields",
    [{"count": n} for n in (0, -1, 2, 4, 2**31 - 1, -(2**31))]
    + [{"last_offset_delta": n} for n in (0, -1, 1, 3, 2**31 - 1, -(2**31))]
    + [{"count": n, "last_offset_delta": n - 1} for n in (0, 1, 2, 4, 2**31 - 1)],
)
def test_the_count_is_that_of_the_records(fields):
    assert ErrorCode.INVALID_RECORD == code_of(with_fields(three(), **fields))


def test_a_batch_without_records_is_invalid():
    assert ErrorCode.INVALID_RECORD == code_of(build_batch([]))
    assert ErrorCode.INVALID_RECORD == code_of(build_batch([], last_offset_delta=0))


@pytest.mark.parametrize("sequence", [-1, -5])
def test_a_producer_id_needs_a_sequence(sequence):
    batch = three(producer_id=10, producer_epoch=0, base_sequence=sequence)

    assert ErrorCode.INVALID_RECORD == code_of(batch)


def test_a_sequence_without_a_producer_is_ignored():
    assert None is code_of(three(base_sequence=5))
    assert None is code_of(three(producer_id=-2))
    assert None is code_of(three(producer_id=10, producer_epoch=-1, base_sequence=0))


@pytest.mark.parametrize("attributes", [0x40, 0x80, -(2**15)])
def test_attributes_without_a_meaning_are_ignored(attributes):
    assert None is code_of(with_fields(three(), attributes=attributes))


# --- records


@pytest.mark.parametrize(
    "records",
    [
        three()[61:] + b"xyz",
        three()[61:-1],
        three()[61:70],
        b"",
        b"\x01" * 30,  # negative lengths
        b"\x00" * 30,  # empty records
        b"\x0a" + b"\x00" * 5 + three()[61:],  # a record with no room for its fields
        b"\x80\x00" * 3,  # the same, its length in two bytes
        b"\x80\x80\x00" * 3,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xfe\xff\xff\xff\x0f" + three()[61:],  # a record of 2 GiB
        b"\xfe\xff\xff\xff\xff\x01" + three()[61:],  # of more than 32 bits
        b"\x8c",
        b"\x8c\x80",
    ],
)
@pytest.mark.parametrize("config", [CONFIG, COMPACTED])
def test_records_must_fill_the_batch_exactly(records, config):
    assert ErrorCode.INVALID_RECORD == code_of(with_records(three(), records), config)


@pytest.mark.parametrize("codec", REAL_CODECS)
@pytest.mark.parametrize("change", [lambda r: r + b"xyz", lambda r: r[:-1], lambda r: b"", lambda r: r + r])
@pytest.mark.parametrize("config", [CONFIG, COMPACTED])
def test_records_must_fill_a_compressed_batch_too(codec, change, config):
    batch = with_records(three(codec=codec), compress(codec, change(three()[61:])))

    assert ErrorCode.INVALID_RECORD == code_of(batch, config)


@pytest.mark.parametrize("codec", REAL_CODECS)
@pytest.mark.parametrize(
    "change", [lambda p: b"", lambda p: p[:-1], lambda p: b"garbage" * 5, lambda p: p + b"more"]
)
def test_what_does_not_decompress_is_invalid(codec, change):
    """Kafka answers UNKNOWN_SERVER_ERROR to most of these, and lets something after the data pass under gzip, snappy
    and lz4. They will not get better by being sent again: INVALID_RECORD, which no client repeats."""
    batch = three(codec=codec)

    assert ErrorCode.INVALID_RECORD == code_of(with_records(batch, change(batch[61:])))


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_an_unknown_codec_is_invalid(codec):
    """Kafka: UNKNOWN_SERVER_ERROR."""
    assert ErrorCode.INVALID_RECORD == code_of(with_fields(three(), attributes=codec))


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_a_batch_may_not_decompress_to_more_than_the_bound(codec):
    batch = build_batch([record(b"x" * 3_000_000, timestamp=NOW)], codec=codec)

    assert None is code_of(batch)
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(batch, decompressed_max=3_000_000)
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(batch, decompressed_max=500_000)


@pytest.mark.parametrize("size", [0, 40, 57, 58, 8184, 8185, 8186, 16_000, 1_040_000])
def test_lengths_of_any_width_are_walked(size):
    """The length of a record takes 1 byte up to 63 and 2 up to 8191."""
    batch = build_batch([record(b"x" * size, timestamp=NOW), record(b"y" * 5, timestamp=NOW)])

    assert None is code_of(batch)
    assert None is code_of(batch, topic_config(message_timestamp_before_max_ms=1000))


def one_by_one(body: bytes, count: int) -> bool:
    """Whether `count` records fill `body`, found the plain way."""
    at = 0
    for _ in range(count):
        length, bits = 0, 0
        while True:
            if at >= len(body):
                return False
            byte = body[at]
            at += 1
            length |= (byte & 0x7F) << bits
            bits += 7
            if byte < 0x80:
                break
        if length & 1 or length >> 1 < 6:
            return False
        at += length >> 1
    return at == len(body)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 50, 51, 52, 200, 1000]), st.integers(1, 40)), min_size=1, max_size=6
    ),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
    st.integers(-2, 2),
)
def test_runs_of_equal_records_are_walked_as_if_one_by_one(runs, damage, miscounted):
    """Records of one size are stepped over many at a time; what is accepted does not depend on that."""
    records = [record(b"x" * size, timestamp=NOW) for size, number in runs for _ in range(number)]
    batch = bytearray(build_batch(records))
    for where, value in damage:
        batch[61 + int(where * (len(batch) - 61))] = value
    count = max(1, len(records) + miscounted)
    adds_up = one_by_one(bytes(batch[61:]), count)

    expected = None if adds_up else ErrorCode.INVALID_RECORD

    assert expected == code_of(with_fields(bytes(batch), count=count, last_offset_delta=count - 1))


@settings(max_examples=300)
@given(
    st.data(), record_lists(), st.sampled_from(list(CODECS.values())), st.sampled_from([CONFIG, COMPACTED])
)
def test_hostile_batches_raise_nothing_but_kafka_errors(data, records, codec, config):
    batch = bytearray(build_batch(records, codec=codec))
    for _ in range(data.draw(st.integers(1, 4))):
        batch[data.draw(st.integers(21, len(batch) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(batch[: data.draw(st.integers(61, len(batch)))])

    assert code_of(with_fields(cut, batch_length=len(cut) - 12), config, decompressed_max=100_000) in (
        None,
        ErrorCode.INVALID_RECORD,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.MESSAGE_TOO_LARGE,
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    assert code_of(data) in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)


def test_without_the_walk_only_header_and_crc_count():
    broken = with_records(three(), b"not records at all")

    assert ErrorCode.INVALID_RECORD == code_of(broken)
    assert None is code_of(broken, walk=False)
    assert ErrorCode.CORRUPT_MESSAGE == code_of(with_fields(three(), crc=1), walk=False)


def test_without_the_walk_keys_and_times_still_count():
    keyless = build_batch([record(b"v", timestamp=NOW)])

    assert ErrorCode.INVALID_RECORD == code_of(keyless, COMPACTED, walk=False)
    assert [] == list(check_slices(view_of(many(2 * SLICE_RECORDS)), CONFIG, NOW, walk=False))
    assert [] != list(check_slices(view_of(many(2 * SLICE_RECORDS)), COMPACTED, NOW, walk=False))
    assert ErrorCode.INVALID_TIMESTAMP == code_of(at(NOW + 2 * HOUR), walk=False)


# --- compacted topics


@pytest.mark.parametrize("codec", ALL_CODECS)
def test_compacted_topics_take_no_record_without_a_key(codec):
    keys = (b"a", None, b"", None, b"b" * 100)
    batch = build_batch([record(b"v", key=key, timestamp=NOW) for key in keys], codec=codec)

    error = refusal(batch, COMPACTED)

    assert ErrorCode.INVALID_RECORD == error.code
    assert [1, 3] == [index for index, _ in error.record_errors]
    assert "orders-0" in error.record_errors[0][1]
    assert None is code_of(batch)


def test_tombstones_are_taken_by_compacted_topics():
    assert None is code_of(build_batch([record(None, key=b"k", timestamp=NOW)]), COMPACTED)


@pytest.mark.parametrize("config", [COMPACTED, topic_config(message_timestamp_before_max_ms=HOUR)])
@pytest.mark.parametrize(
    "body",
    [
        b"\x0c\x00\x00\x00\x10\x01\x00",  # a key of 8 bytes in a record of 6
        b"\x0c\x00\xff\xff\xff\xff\xff",  # a time that does not end
        b"\x0c\x00\x00\xff\xff\xff\xff",  # an offset that does not end
        b"\x0c\x00\x00\x00\xff\xff\xff",  # a key length that does not end
        b"\x0c\x00\x00\x00\xfe\xff\x7f",
        b"\x1e\x00" + b"\xff" * 14,
        b"\x0e\x00\x00\x00\x06key",  # nothing behind the key
        b"\x08\x00\x00\x00\x01",  # nothing behind no key
    ],
)
def test_a_record_that_is_looked_at_must_hold_its_key(config, body):
    batch = with_fields(with_records(three(), body), count=1, last_offset_delta=0)

    assert ErrorCode.INVALID_RECORD == code_of(batch, config)


@pytest.mark.parametrize("offset", [b"\x0a", b"\x01", b"\x80\x02"], ids=["5", "-1", "128"])
def test_records_of_compacted_topics_count_from_zero(offset):
    """Compaction goes by the offsets in records: one that is not where it stands would never be cleaned."""
    fields = b"\0\0" + offset + b"\x02k\x02v\0"
    body = bytes([len(fields) << 1]) + fields
    batch = with_fields(with_records(three(), body), count=1, last_offset_delta=0)

    assert ErrorCode.INVALID_RECORD == code_of(batch, COMPACTED)
    assert None is code_of(batch)


# --- times


def at(*times: int, **options) -> bytes:
    """A batch with one record at each time."""
    return build_batch([record(b"v", key=b"k", timestamp=time) for time in times], **options)


@pytest.mark.parametrize("codec", ALL_CODECS)
def test_times_too_far_ahead_are_named_one_by_one(codec):
    error = refusal(at(NOW, NOW + 2 * HOUR, NOW + HOUR, NOW + HOUR + 1, codec=codec))

    assert isinstance(error, RecordsRejected)
    assert ErrorCode.INVALID_TIMESTAMP == error.code
    assert [1, 3] == [index for index, _ in error.record_errors]
    assert str(NOW + 2 * HOUR) in error.record_errors[0][1]


def test_times_too_far_back_are_named_one_by_one():
    bounded = topic_config(message_timestamp_before_max_ms=HOUR)

    error = refusal(at(NOW, NOW - HOUR, NOW - HOUR - 1), bounded)

    assert (ErrorCode.INVALID_TIMESTAMP, [2]) == (error.code, [index for index, _ in error.record_errors])
    assert None is code_of(at(NOW - 10 * HOUR))


def test_a_record_without_a_time_is_never_too_old():
    assert None is code_of(at(-1), topic_config(message_timestamp_before_max_ms=HOUR))


def test_the_smallest_time_of_all_is_out_of_range():
    assert ErrorCode.INVALID_TIMESTAMP == code_of(at(-(2**63)))


def test_a_time_beyond_64_bits_is_out_of_range():
    endless = topic_config(message_timestamp_after_max_ms=2**63 - 1, cleanup_policy=frozenset({"compact"}))
    batch = with_fields(at(0, 2**62), base_timestamp=2**63 - 1, max_timestamp=2**63 - 1)

    assert None is code_of(batch, endless)  # nothing asks for the times
    assert ErrorCode.INVALID_TIMESTAMP == code_of(with_fields(batch, base_timestamp=-(2**63)), endless)


def test_times_do_not_matter_where_the_broker_sets_them():
    assert None is code_of(at(NOW + 10**9), APPEND_TIME)
    assert None is code_of(at(0), APPEND_TIME)


def test_keys_and_times_at_fault_are_told_together():
    batch = build_batch(
        [
            record(b"v", key=b"a", timestamp=NOW + 2 * HOUR),
            record(b"v", timestamp=NOW + 2 * HOUR),
            record(b"v", key=b"b", timestamp=NOW),
            record(b"v", timestamp=NOW),
        ]
    )

    error = refusal(batch, COMPACTED)

    assert (ErrorCode.INVALID_TIMESTAMP, [0, 1, 3]) == (
        error.code,
        [index for index, _ in error.record_errors],
    )


def test_a_header_that_claims_too_late_a_time_is_put_right():
    batch = check_produced(writable(with_fields(at(NOW, NOW + 5), max_timestamp=NOW + 9 * HOUR)), CONFIG, NOW)

    again = RecordBatch(batch.view)
    assert (NOW + 5, NOW + 5, True) == (batch.max_timestamp, again.max_timestamp, again.crc_ok)


def test_a_header_that_claims_too_early_a_time_is_believed():
    """Kafka looks at the time of each record and would refuse; the header is believed unless something is amiss."""
    assert None is code_of(with_fields(at(NOW + 5 * HOUR), max_timestamp=NOW, base_timestamp=NOW))


def test_only_the_broker_sets_append_time():
    """Kafka refuses the claim where it would be true, and corrects it elsewhere."""
    claim = three(append_time_ms=NOW)

    error = refusal(claim, APPEND_TIME)
    corrected = check_produced(writable(claim), CONFIG, NOW)

    assert (ErrorCode.INVALID_TIMESTAMP, [0, 1, 2]) == (
        error.code,
        [index for index, _ in error.record_errors],
    )
    assert (False, True) == (corrected.is_log_append_time, RecordBatch(corrected.view).crc_ok)


def test_no_more_than_a_thousand_records_are_blamed_by_name():
    batch = at(*[NOW + 2 * HOUR] * (RECORD_ERRORS_MAX + 500))

    error = refusal(batch)

    assert RECORD_ERRORS_MAX == len(error.record_errors)
    assert str(RECORD_ERRORS_MAX + 500) in error.message


# --- slices


def many(number: int, **options) -> bytes:
    return build_batch([record(b"v", key=b"k", timestamp=NOW)] * number, **options)


@pytest.mark.parametrize("codec", ALL_CODECS)
def test_a_big_batch_is_checked_with_pauses(codec):
    batch = check_header(writable(many(3 * SLICE_RECORDS, codec=codec)), CONFIG)

    assert is_big(batch.view)
    assert 2 == len(list(check_slices(batch, CONFIG, NOW)))
    assert 2 == len(list(walk_slices(batch)))
    assert 3 * SLICE_RECORDS // CAREFUL_SLICE_RECORDS - 1 == len(list(check_slices(batch, COMPACTED, NOW)))


def test_a_batch_is_big_by_bytes_or_by_records():
    assert not is_big(None)
    assert not is_big(memoryview(b""))
    assert not is_big(writable(three()))
    assert is_big(writable(build_batch([record(b"x" * validation.BIG_BYTES)])))
    assert not is_big(writable(many(validation.BIG_RECORDS)))
    assert is_big(writable(many(validation.BIG_RECORDS + 1)))


@pytest.mark.parametrize("config", [CONFIG, COMPACTED])
@pytest.mark.parametrize("codec", ALL_CODECS)
def test_slices_and_one_go_agree(codec, config):
    whole = many(2 * SLICE_RECORDS + 7)[61:]
    for body in (whole, whole[:-1], whole + b"x", whole[: len(whole) // 2]):
        batch = view_of(with_records(many(2 * SLICE_RECORDS + 7, codec=codec), compress(codec, body)))
        expected = None if body is whole else ErrorCode.INVALID_RECORD

        assert expected is outcome(lambda batch=batch: check_records(batch, config, NOW))
        assert expected is outcome(lambda batch=batch: list(check_slices(batch, config, NOW)))


def outcome(check) -> ErrorCode | None:
    try:
        check()
    except KafkaError as error:
        return error.code
    return None


def test_errors_are_collected_over_all_slices():
    keys = [b"k"] * (3 * CAREFUL_SLICE_RECORDS)
    keys[0] = keys[CAREFUL_SLICE_RECORDS] = keys[-1] = None
    batch = view_of(build_batch([record(b"v", key=key, timestamp=NOW) for key in keys]))

    with pytest.raises(RecordsRejected) as refused:
        list(check_slices(batch, COMPACTED, NOW))

    assert [0, CAREFUL_SLICE_RECORDS, 3 * CAREFUL_SLICE_RECORDS - 1] == [
        i for i, _ in refused.value.record_errors
    ]


def test_a_check_that_is_given_up_gives_its_buffer_back():
    slices = check_slices(view_of(many(2 * SLICE_RECORDS, codec=compression.ZSTD)), CONFIG, NOW)
    next(slices)
    held = len(compression._scratches)

    slices.close()

    assert min(held + 1, compression.SCRATCHES_KEPT) == len(compression._scratches)


def test_a_batch_that_compaction_emptied_can_be_walked():
    assert [] == list(walk_slices(view_of(build_batch([], codec=compression.GZIP, last_offset_delta=3))))


# --- by hand


def test_a_batch_put_together_by_hand_is_accepted():
    records = bytes.fromhex("0c 00 00 00 01 01 00" + "10 00 08 02 02 6b 02 76 00")
    header = struct.pack(">hiqqqhii", 0, 1, NOW, NOW + 4, -1, -1, -1, 2)
    batch = struct.pack(">qiibI", 0, 9 + len(header) + len(records), -1, 2, 0) + header + records

    accepted = check_produced(writable(with_crc(batch)), CONFIG, NOW)

    assert [(0, NOW, None, None), (1, NOW + 4, b"k", b"v")] == [r[:4] for r in decode_records(accepted)]
