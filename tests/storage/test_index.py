"""Index files as they are read: what rises counts, up to where it no longer does."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from kbroker.storage.index import OffsetIndex, TimeIndex

SMALL = st.integers(0, 3)
TIMES = SMALL | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1 << 31, (1 << 32) - 1, 1 << 32])
OFFSETS = SMALL | st.integers(0, 2**31 - 1)
TORN = st.binary(max_size=7)


def time_entries(raw: bytes) -> list[tuple[int, int]]:
    """What a time index says, read one entry after another."""
    kept: list[tuple[int, int]] = []
    for timestamp, relative in struct.iter_unpack(">qi", raw[: len(raw) // 12 * 12]):
        if not timestamp and not relative:
            break
        if kept and (timestamp <= kept[-1][0] or relative < kept[-1][1]):
            break
        kept.append((timestamp, relative))
    return kept


@given(st.lists(st.tuples(TIMES, OFFSETS)), st.booleans(), TORN)
@example([(-5, 0), (0, 0), (5, 1)], False, b"")
@example([(0, 0), (5, 1)], False, b"")
@example([(5, 3), (6, 2), (7, 4)], False, b"")
def test_a_time_index_is_read_as_one_entry_after_another_would_be(entries, rising, torn):
    raw = b"".join(struct.pack(">qi", *each) for each in (sorted(entries) if rising else entries)) + torn

    index = TimeIndex.parse(raw)

    assert time_entries(raw) == list(zip(index.timestamps, index.offsets, strict=True))
    assert raw[: 12 * len(index)] == index.encode()


@given(st.lists(st.tuples(st.integers(1, 1 << 40), OFFSETS)))
def test_what_was_added_to_a_time_index_can_be_read_again(entries):
    index = TimeIndex()
    for timestamp, relative in sorted(dict(entries).items()):
        if not len(index) or relative >= index.offsets[-1]:
            index.add(timestamp, relative)

    again = TimeIndex.parse(index.encode() + bytes(24))  # Kafka preallocates

    assert (index.timestamps, index.offsets) == (again.timestamps, again.offsets)


@given(st.lists(st.tuples(OFFSETS, OFFSETS)), TORN)
def test_an_offset_index_rises_in_both_columns(entries, torn):
    raw = b"".join(struct.pack(">ii", *each) for each in entries) + torn

    index = OffsetIndex.parse(raw)

    kept = list(zip(index.offsets, index.positions, strict=True))
    assert entries[: len(kept)] == kept
    for column in zip(*kept, strict=True):
        assert all(before < after for before, after in pairwise(column))
