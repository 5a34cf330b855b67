"""Kafka's four codecs over whole buffers, decompression only into bounded ones. Knows nothing of records.

Decompressed bytes live in a scratch buffer that the caller gives back: `with decompressed(...) as view`. The usual one
is small and used again and again, a batch beyond it gets pages of its own that go back to the system.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from struct import Struct

import cramjam

from kbroker.errors import ErrorCode, KafkaError
from kbroker.seams import Buffer

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
CODEC_NAMES = {codec: name for name, codec in CODECS.items()}

# What one batch may hold when decompressed, unless configured otherwise: Kafka's producers send at most 1 MiB of
# uncompressed records by default. Beyond it the batch is refused as too large.
DECOMPRESSED_BYTES_MAX = 16 * 1024 * 1024

# Scratch buffers that stay: most batches fit, and bytes that are touched again and again stay in the CPU's cache.
SCRATCH_BYTES = 1024 * 1024
SCRATCHES_KEPT = 2  # the check in hand, and one that pauses between its slices

# Java's snappy streams (xerial): this header, two versions, then blocks of (int32 length, raw snappy).
XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"
_XERIAL_BLOCK_BYTES = 32 * 1024
_INT32 = Struct(">i")

# An lz4 frame's header: magic, flags, block descriptor; then the content's size where a flag says so, and a checksum byte.
_LZ4_HEADER = Struct("<IBB")
_LZ4_MAGIC = 0x184D2204
_LZ4_SIZED, _LZ4_CONTENT_CHECKSUM, _LZ4_BLOCK_CHECKSUM = 0x08, 0x04, 0x10
_LZ4_INDEPENDENT = 0x20
_LZ4_VERSION, _LZ4_VERSION_1 = 0xC0, 0x40
_LZ4_UNKNOWN = 0x03  # flags that Java's reader refuses: a dictionary's id, and a reserved one
_LZ4_STORED = 0x80000000  # of a block's length: it is not compressed
_UINT32 = Struct("<I")

_scratches: list[bytearray] = []  # idle ones; list.pop and list.append are atomic, so threads may share it


class _Overflow(Exception):
    """The bytes decompress to more than the buffer holds."""


LZ4_DEFAULT_LEVEL = 9


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """`data` as Kafka's clients would send it: snappy in Java's framing, lz4 and zstd as one frame.

    `level` as in `compression.<codec>.level`; None is the codec's default. lz4's 9 means fast, as in Kafka.
    """
    if codec == NONE:
        return bytes(data)
    if codec == GZIP:
        deflate = zlib.compressobj(-1 if level is None else level, wbits=31)
        return deflate.compress(data) + deflate.flush()
    if codec == SNAPPY:
        return _compress_xerial(memoryview(data))
    if codec == LZ4:
        # Kafka's Java clients read frames of independent blocks only (KIP-57).
        fast = level is None or level == LZ4_DEFAULT_LEVEL
        lz4 = cramjam.lz4.Compressor(level=1 if fast else level, content_checksum=False, block_linked=False)
        lz4.compress(bytes(data))
        return bytes(lz4.finish())
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data, level=level))
    raise KafkaError(ErrorCode.INVALID_RECORD, f"unknown compression codec {codec}")


@contextmanager
def decompressed(codec: int, data: Buffer, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> Iterator[memoryview]:
    """What `data` decompresses to, valid inside the `with` only.

    KafkaError MESSAGE_TOO_LARGE when that is more than `bytes_max`, INVALID_RECORD when it is nothing at all
    (not CORRUPT_MESSAGE: clients send those again, and these bytes will not get better).
    """
    buffer, size = _decompress(codec, memoryview(data), bytes_max)
    view = memoryview(buffer)
    part = view[:size].toreadonly()
    try:
        yield part
    finally:
        part.release()
        view.release()
        _give_back(buffer)


def decompress(codec: int, data: Buffer, bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """What `data` decompresses to, as bytes of its own."""
    with decompressed(codec, data, bytes_max) as view:
        return bytes(view)


def _decompress(codec: int, data: memoryview, bytes_max: int) -> tuple[bytearray | mmap, int]:
    """A scratch buffer and how many bytes of it were filled."""
    scratch = _scratches.pop() if _scratches else bytearray(SCRATCH_BYTES)
    try:
        size = _into(codec, data, scratch)
        if size > bytes_max:
            raise _too_large(bytes_max)
        return scratch, size
    except _Overflow:
        _give_back(scratch)
        if bytes_max <= SCRATCH_BYTES:
            raise _too_large(bytes_max) from None
    except BaseException:
        _give_back(scratch)
        raise
    # Anonymous pages are zero until touched: a bound of 16 MiB costs only what the batch really fills.
    pages = mmap(-1, bytes_max)
    try:
        return pages, _into(codec, data, pages)
    except _Overflow:
        pages.close()
        raise _too_large(bytes_max) from None
    except BaseException:
        pages.close()
        raise


def _into(codec: int, data: memoryview, out: bytearray | mmap) -> int:
    try:
        if codec == LZ4:
            _check_lz4(data)
            return cramjam.lz4.decompress_into(data, out)
        if codec == ZSTD:
            return cramjam.zstd.decompress_into(data, out)
        if codec == SNAPPY:
            return _snappy_into(data, out)
        if codec == GZIP:
            return cramjam.gzip.decompress_into(data, out)
    except cramjam.DecompressionError as error:
        # Rust's name for a writer that is full; nothing else distinguishes it.
        if "failed to write whole buffer" in str(error):
            raise _Overflow from None
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"{CODEC_NAMES[codec]} cannot be decompressed: {error}"
        ) from None
    raise KafkaError(ErrorCode.INVALID_RECORD, f"unknown compression codec {codec}")


def _check_lz4(data: memoryview) -> None:
    """KafkaError where Java's reader would stop (KIP-57): it takes one frame, of independent blocks, no dictionary."""
    size = len(data)
    if size < _LZ4_HEADER.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "lz4: header cut off")
    magic, flags, _ = _LZ4_HEADER.unpack_from(data)
    if magic != _LZ4_MAGIC or flags & _LZ4_VERSION != _LZ4_VERSION_1 or flags & _LZ4_UNKNOWN:
        raise KafkaError(ErrorCode.INVALID_RECORD, "lz4: not a frame that Java clients can read")
    if not flags & _LZ4_INDEPENDENT:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, "lz4: blocks depend on each other, Java clients cannot read that"
        )
    behind = 4 if flags & _LZ4_BLOCK_CHECKSUM else 0
    position = _LZ4_HEADER.size + (8 if flags & _LZ4_SIZED else 0) + 1
    while position + 4 <= size:
        (block,) = _UINT32.unpack_from(data, position)
        position += 4
        if block == 0:  # the end mark
            position += 4 if flags & _LZ4_CONTENT_CHECKSUM else 0
            break
        if block == _LZ4_STORED:
            raise KafkaError(ErrorCode.INVALID_RECORD, "lz4: a block of no bytes")
        position += (block & ~_LZ4_STORED) + behind
    else:
        raise KafkaError(ErrorCode.INVALID_RECORD, "lz4: the frame is cut off")
    if position != size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "lz4: the data does not end with its frame")


def _snappy_into(data: memoryview, out: bytearray | mmap) -> int:
    """Either framing: librdkafka and Go send raw snappy, Java sends blocks."""
    if data[:8] != XERIAL_MAGIC:
        return _raw_snappy_into(data, out)
    if len(data) < len(_XERIAL_HEADER):
        raise KafkaError(ErrorCode.INVALID_RECORD, "snappy: framing header cut off")
    filled, position, end = 0, len(_XERIAL_HEADER), len(data)
    with memoryview(out) as target:
        while position < end:
            if end - position < 4:
                raise KafkaError(ErrorCode.INVALID_RECORD, "snappy: block length cut off")
            (size,) = _INT32.unpack_from(data, position)
            position += 4
            if not 0 < size <= end - position:
                raise KafkaError(
                    ErrorCode.INVALID_RECORD, f"snappy: block of {size} bytes, {end - position} left"
                )
            with target[filled:] as rest:
                filled += _raw_snappy_into(data[position : position + size], rest)
            position += size
    return filled


def _raw_snappy_into(data: memoryview, out: bytearray | mmap | memoryview) -> int:
    if cramjam.snappy.decompress_raw_len(data) > len(out):
        raise _Overflow
    return cramjam.snappy.decompress_raw_into(data, out)


def _compress_xerial(data: memoryview) -> bytes:
    parts = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (_INT32.pack(len(block)), block)
    return b"".join(parts)


def _give_back(buffer: bytearray | mmap) -> None:
    if isinstance(buffer, mmap):
        buffer.close()
    elif len(_scratches) < SCRATCHES_KEPT:
        _scratches.append(buffer)


def _too_large(bytes_max: int) -> KafkaError:
    return KafkaError(ErrorCode.MESSAGE_TOO_LARGE, f"the batch decompresses to more than {bytes_max} bytes")
