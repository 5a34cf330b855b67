"""The journal's bytes: what is torn is cut, what is damaged is never cut silently."""

from __future__ import annotations

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cluster import journal as j
from kbroker.errors import StartError

ONE = j.frame([j.Entry(1, 1, b"first")], synced_before=True)
TWO = j.frame([j.Entry(2, 1, b"second"), j.Entry(3, 1, b"")], synced_before=True)
WHOLE = j.JOURNAL_HEADER + ONE + TWO


def test_a_frame_is_these_bytes():
    """magic, length, CRC-32C; flags; length, index, term, command."""
    body = bytes.fromhex("01 00000002 0000000000000001 0000000000000003 6162")

    written = j.frame([j.Entry(1, 3, b"ab")], synced_before=True)

    assert b"kbJ1" + bytes.fromhex("00000017") + crc32c(body).to_bytes(4, "big") + body == written


def test_entries_come_back_in_order():
    read = j.read_journal(WHOLE, "journal")

    assert [(1, 1, b"first"), (2, 1, b"second"), (3, 1, b"")] == read.entries
    assert len(WHOLE) == read.end


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_journal_cut_anywhere_ends_at_its_last_whole_frame(length):
    read = j.read_journal(WHOLE[:length], "journal")

    ends = [0, len(j.JOURNAL_HEADER), len(j.JOURNAL_HEADER + ONE)]
    expected = max(end for end in ends if end <= length)
    assert expected == read.end
    assert (1 if expected == ends[2] else 0) == len(read.entries)


@given(st.integers(len(j.JOURNAL_HEADER + ONE), len(WHOLE) - 1), st.integers(1, 255))
def test_a_torn_last_frame_is_cut(at, flip):
    data = bytearray(WHOLE)
    data[at] ^= flip

    assert len(j.JOURNAL_HEADER + ONE) == j.read_journal(bytes(data), "journal").end


@given(st.integers(len(j.JOURNAL_HEADER), len(j.JOURNAL_HEADER + ONE) - 1), st.integers(1, 255))
def test_damage_before_a_frame_that_vouches_for_it_stops_the_start(at, flip):
    data = bytearray(WHOLE)
    data[at] ^= flip

    with pytest.raises(StartError, match=r"journal is damaged .* restore it from a copy"):
        j.read_journal(bytes(data), "journal")


def test_without_fsync_later_frames_vouch_for_nothing():
    later = j.frame([j.Entry(2, 1, b"second")], synced_before=False)
    data = bytearray(j.JOURNAL_HEADER + ONE + later)
    data[len(j.JOURNAL_HEADER) + 2] ^= 1

    assert j.Journal([], len(j.JOURNAL_HEADER)) == j.read_journal(bytes(data), "journal")


def test_a_tail_of_zeros_is_cut():
    assert len(WHOLE) == j.read_journal(WHOLE + bytes(4096), "journal").end


@pytest.mark.parametrize("data", [b"something else", b"kbroker\x02" + ONE])
def test_a_file_of_another_kind_or_version_is_refused(data):
    with pytest.raises(StartError, match="its header is not this version's"):
        j.read_journal(data, "journal")


@given(st.binary(max_size=200))
def test_garbage_behind_the_header_is_cut_or_refused_and_nothing_else(garbage):
    try:
        read = j.read_journal(WHOLE + garbage, "journal")
    except StartError:
        return
    assert read.end >= len(WHOLE)


def test_a_snapshot_comes_back_whole():
    assert (7, 2, b"state") == j.read_snapshot(j.snapshot_file(7, 2, b"state"), "snapshot")


@pytest.mark.parametrize("at", range(len(j.snapshot_file(7, 2, b"state"))))
def test_a_damaged_snapshot_is_refused(at):
    data = bytearray(j.snapshot_file(7, 2, b"state"))
    data[at] ^= 0x10

    with pytest.raises(StartError, match="snapshot is damaged"):
        j.read_snapshot(bytes(data), "snapshot")
    with pytest.raises(StartError, match="snapshot is damaged"):
        j.read_snapshot(bytes(data[:at]), "snapshot")


def test_names_carry_their_index():
    assert "journal.00000000000000000042" == j.journal_name(42)
    assert 42 == j.index_of(j.journal_name(42), "journal")
    assert 42 == j.index_of(j.snapshot_name(42), "snapshot")
    assert [None] * 3 == [
        j.index_of(name, "journal") for name in (j.snapshot_name(42), "journal.42", "snapshot.new")
    ]


@pytest.mark.parametrize("data", [b"", b"kb", bytes(8), b"k\x00\x00\x00\x00\x00\x00\x01"])
def test_a_header_that_was_never_synced_is_an_empty_journal(data):
    assert j.Journal([], 0) == j.read_journal(data, "journal")
