"""The four codecs: round trips, framings, and memory that stays bounded whatever is sent."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib

import cramjam
import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression
from kbroker.protocol.compression import (
    CODECS,
    GZIP,
    LZ4,
    NONE,
    SCRATCH_BYTES,
    SNAPPY,
    XERIAL_MAGIC,
    ZSTD,
    compress,
    decompress,
    decompressed,
)

REAL_CODECS = [pytest.param(codec, id=name) for name, codec in CODECS.items() if codec]
MIB = 1024 * 1024


def code_of(codec: int, data: bytes, bytes_max: int = MIB) -> ErrorCode | None:
    """What decompressing ends in."""
    try:
        decompress(codec, data, bytes_max)
    except KafkaError as error:
        return error.code
    return None


@pytest.mark.parametrize("codec", REAL_CODECS)
@given(data=st.binary(max_size=5000) | st.integers(0, 300_000).map(lambda size: b"kbroker " * (size // 8)))
def test_what_is_compressed_comes_back(codec, data):
    assert data == decompress(codec, compress(codec, data))


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_any_kind_of_buffer_goes_in_and_comes_out(codec):
    packed = compress(codec, memoryview(b"abc" * 1000))

    assert b"abc" * 1000 == decompress(codec, bytearray(packed))
    assert b"abc" * 1000 == decompress(codec, memoryview(packed).toreadonly(), 3000)


def test_no_codec_is_a_copy():
    assert b"abc" == compress(NONE, memoryview(b"abc"))


def test_an_unknown_codec_cannot_be_used():
    with pytest.raises(KafkaError):
        compress(5, b"abc")
    assert ErrorCode.INVALID_RECORD == code_of(5, b"abc")


@pytest.mark.parametrize("codec", REAL_CODECS)
@pytest.mark.parametrize("size", [1000, SCRATCH_BYTES, SCRATCH_BYTES + 1, 3 * MIB])
def test_the_bound_is_exact(codec, size):
    packed = compress(codec, b"x" * size)

    assert None is code_of(codec, packed, size)
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(codec, packed, size - 1)


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_a_bomb_takes_no_more_memory_than_the_bound(codec, tmp_path):
    """64 MiB of zeros, taken apart in a process whose greatest size tells. Beside the bound of 8 MiB there is room
    for the first try, the codec's own window (zstd: 8 MiB at most here) and the allocator."""
    bomb = tmp_path / "bomb"
    bomb.write_bytes(compress(codec, bytes(64 * MIB)))

    child = subprocess.run(
        [sys.executable, "-P", "-c", TRY, str(codec), str(bomb)], capture_output=True, text=True, timeout=60
    )

    assert ("", 0) == (child.stderr, child.returncode)
    assert int(child.stdout) < 24 * MIB


TRY = """
import resource, sys
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression

codec, bomb = int(sys.argv[1]), open(sys.argv[2], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(3):
    try:
        compression.decompress(codec, bomb, 8 * 1024 * 1024)
    except KafkaError as error:
        assert error.code is ErrorCode.MESSAGE_TOO_LARGE, error
    else:
        raise AssertionError(codec)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


def test_a_snappy_block_that_claims_four_gigabytes_is_too_large():
    claim = b"\xff\xff\xff\xff\x0f" + b"x" * 20

    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(SNAPPY, claim)
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(SNAPPY, xerial(claim))


def test_a_zstd_window_of_two_gigabytes_is_refused():
    """The frame's header asks for a window of 2^31 bytes; nothing is reserved for it."""
    frame = b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"

    assert ErrorCode.INVALID_RECORD == code_of(ZSTD, frame)


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_many_frames_in_a_row_stay_bounded(codec):
    """Thousands of small frames or blocks: one after the other, each into what is left of the bound."""
    if codec == SNAPPY:
        packed = xerial(*[bytes(cramjam.snappy.compress_raw(b"x" * 1000))] * 5000)
    elif codec == LZ4:  # one frame of so many blocks, each as it lies in a frame of its own
        frame = lz4.frame.compress(b"x" * 1000, block_linked=False, store_size=False)
        packed = frame[:7] + frame[7:-4] * 5000 + frame[-4:]
    else:
        packed = compress(codec, b"x" * 1000) * 5000

    assert b"x" * 5_000_000 == decompress(codec, packed, 5_000_000)
    assert ErrorCode.MESSAGE_TOO_LARGE == code_of(codec, packed, MIB)


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_garbage_and_cut_data_are_invalid(codec):
    packed = compress(codec, b"kbroker " * 100)

    assert ErrorCode.INVALID_RECORD == code_of(codec, b"garbage" * 10)
    assert ErrorCode.INVALID_RECORD == code_of(codec, packed[:-1])
    assert ErrorCode.INVALID_RECORD == code_of(codec, packed[: len(packed) // 2])
    assert ErrorCode.INVALID_RECORD == code_of(codec, packed + b"more")


@pytest.mark.parametrize("codec", REAL_CODECS)
@settings(max_examples=200)
@given(data=st.data())
def test_hostile_bytes_raise_nothing_but_kafka_errors(codec, data):
    packed = bytearray(compress(codec, data.draw(st.binary(max_size=300)) * 5))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))

    assert code_of(codec, bytes(packed[:cut]), 10_000) in (
        None,
        ErrorCode.INVALID_RECORD,
        ErrorCode.MESSAGE_TOO_LARGE,
    )


@pytest.mark.parametrize("codec", REAL_CODECS)
@given(data=st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_kafka_errors(codec, data):
    assert code_of(codec, data, 10_000) in (None, ErrorCode.INVALID_RECORD, ErrorCode.MESSAGE_TOO_LARGE)


def xerial(*blocks: bytes) -> bytes:
    """Blocks in the framing of Java's snappy streams."""
    header = XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"
    return header + b"".join(len(block).to_bytes(4, "big") + block for block in blocks)


def test_snappy_is_read_in_both_framings():
    block = bytes(cramjam.snappy.compress_raw(b"abc" * 100))

    assert b"abc" * 100 == decompress(SNAPPY, block)
    assert b"abc" * 200 == decompress(SNAPPY, xerial(block, block))
    assert b"" == decompress(SNAPPY, xerial())


def test_snappy_is_written_in_javas_framing():
    packed = compress(SNAPPY, b"x" * 100_000)

    assert xerial()[:16] == packed[:16]
    assert b"x" * 100_000 == decompress(SNAPPY, packed)


@pytest.mark.parametrize(
    "tail",
    [b"\x00\x00\x00", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x09abc", b"\x7f\xff\xff\xff"],
)
def test_snappy_blocks_must_fit(tail):
    block = bytes(cramjam.snappy.compress_raw(b"abc"))

    assert ErrorCode.INVALID_RECORD == code_of(SNAPPY, xerial(block) + tail)
    assert ErrorCode.INVALID_RECORD == code_of(SNAPPY, xerial()[:12])


def test_lz4_frames_have_independent_blocks():
    """KIP-57: Java clients read no others, so they are neither written nor taken."""
    linked = bytes(cramjam.lz4.compress(b"abc" * 100))

    assert compress(LZ4, b"abc")[4] & 0x20
    assert not linked[4] & 0x20
    assert ErrorCode.INVALID_RECORD == code_of(LZ4, linked)


SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"


@pytest.mark.parametrize(
    "data",
    [
        compress(LZ4, b"abc") + compress(LZ4, b"def"),
        compress(LZ4, b"") + compress(LZ4, b"abc"),
        SKIPPABLE + compress(LZ4, b"abc"),
        compress(LZ4, b"abc") + SKIPPABLE,
        compress(LZ4, b"abc")[:-4],
        compress(LZ4, b"abc") + b"\0",
        compress(LZ4, b"abc")[:-4] + b"\0\0\0\x80" + bytes(4),
        compress(LZ4, b"abc")[:6],
        b"",
    ],
    ids=[
        "two",
        "empty-first",
        "skippable-first",
        "skippable-last",
        "no-end",
        "more",
        "empty-block",
        "header",
        "nothing",
    ],
)
def test_lz4_is_one_whole_frame(data):
    """Java's reader ends with the first frame, whatever it is, and asks for nothing behind it."""
    assert ErrorCode.INVALID_RECORD == code_of(LZ4, data)


@pytest.mark.parametrize(
    "flags", [0x71, 0x72, 0xB0, 0x30], ids=["dictionary", "reserved", "version 2", "version 0"]
)
def test_lz4_flags_that_java_does_not_know_are_refused(flags):
    frame = compress(LZ4, b"abc")

    assert 0x70 == frame[4]
    assert ErrorCode.INVALID_RECORD == code_of(LZ4, frame[:4] + bytes([flags]) + frame[5:])


@pytest.mark.parametrize("size", [0, 3, 70_000, 300_000])
@pytest.mark.parametrize("block_checksum", [False, True])
@pytest.mark.parametrize("content_checksum", [False, True])
@pytest.mark.parametrize("store_size", [False, True])
def test_lz4_frames_of_other_libraries_are_read(size, block_checksum, content_checksum, store_size):
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    frame = lz4.frame.compress(
        data,
        block_linked=False,
        block_checksum=block_checksum,
        content_checksum=content_checksum,
        store_size=store_size,
    )

    assert data == decompress(LZ4, frame)


def test_gzip_of_other_libraries_is_read():
    level_one = zlib.compressobj(1, wbits=31)

    assert b"abc" * 50 == decompress(GZIP, level_one.compress(b"abc" * 50) + level_one.flush())
    assert b"abcdef" == decompress(GZIP, compress(GZIP, b"abc") + compress(GZIP, b"def"))


@pytest.mark.parametrize("codec", REAL_CODECS)
@pytest.mark.parametrize("size", [10, 2 * MIB])
def test_two_batches_may_be_open_at_once(codec, size):
    a, b = compress(codec, b"a" * size), compress(codec, b"b" * size)

    with decompressed(codec, a) as first, decompressed(codec, b) as second:
        assert (b"a" * size, b"b" * size) == (bytes(first), bytes(second))


def test_the_view_ends_with_its_block():
    with decompressed(GZIP, compress(GZIP, b"abc")) as view:
        assert view.readonly
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_scratch_buffers_are_used_again_and_few_are_kept():
    packed = compress(ZSTD, b"abc")

    with decompressed(ZSTD, packed), decompressed(ZSTD, packed), decompressed(ZSTD, packed):
        pass
    with pytest.raises(KafkaError):
        decompress(ZSTD, b"garbage")

    assert compression.SCRATCHES_KEPT == len(compression._scratches)
