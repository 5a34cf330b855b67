"""`kbroker dump-log`: what it shows of whole files, what it says of damaged ones, and that nothing makes it fall over."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbroker.cli.dump_log import DUMPERS, dump_log
from kbroker.cli.dumps.tables import CHECKPOINTS
from kbroker.protocol.compression import CODECS
from kbroker.protocol.records import build_batch, record
from tests.support.batches import NOW, three, with_crc, with_fields, with_records

SEGMENT = "00000000000000000000.log"

# Written by Apache Kafka 4.3 at the end of a partition with one transactional producer.
KAFKAS_SNAPSHOT = bytes.fromhex(
    "000126611a9a000000010000000000000000000000000027000000000000"
    "003400000013000001a20cd2b8a000000000ffffffffffffffff"
)


def run(*paths: Path, flags: tuple[str, ...] = ()) -> Result:
    """The verb's outcome; a traceback fails the test."""
    result = CliRunner().invoke(dump_log, [*flags, *map(str, paths)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def damage(result: Result) -> list[str]:
    """What is said to be damaged, without the paths."""
    return [line.split("DAMAGED ", 1)[1] for line in result.output.splitlines() if "DAMAGED " in line]


def segment() -> bytes:
    """Four batches, offsets 0 to 8: plain, gzip with a producer, a commit marker, append time."""
    marker = record(struct.pack(">hi", 0, 9), key=struct.pack(">hh", 0, 1), timestamp=NOW)
    return b"".join(
        [
            three(epoch=1),
            three(
                epoch=1, base_offset=3, codec=CODECS["gzip"], producer_id=7, producer_epoch=2, base_sequence=5
            ),
            build_batch(
                [marker],
                epoch=2,
                base_offset=6,
                control=True,
                transactional=True,
                producer_id=7,
                producer_epoch=2,
            ),
            build_batch([record(b"v"), record(None)], epoch=2, base_offset=7, append_time_ms=NOW + 1000),
        ]
    )


def test_a_segment_shows_a_line_for_each_batch(tmp_path):
    lines = run(written(tmp_path, SEGMENT, segment())).output.splitlines()

    assert 6 == len(lines)
    assert (
        "  position=0 offsets=0..2 count=3 size=91 epoch=1 codec=none"
        " CreateTime=1700000000000(2023-11-14T22:13:20.000Z)" in lines[1]
    )
    assert "codec=gzip" in lines[2]
    assert "producer=7 producer_epoch=2 sequences=5..7" in lines[2]
    assert "transactional control" in lines[3]
    assert "LogAppendTime=1700000001000(" in lines[4]
    assert "4 batches, 9 records, offsets 0..9 (exclusive)" in lines[5]


def test_deep_iteration_shows_every_record_without_its_data(tmp_path):
    result = run(written(tmp_path, SEGMENT, segment()), flags=("--deep-iteration",))

    assert 0 == result.exit_code
    assert (
        "    offset=4 timestamp=1700000000000(2023-11-14T22:13:20.000Z) key=1B value=2B headers=0"
        in result.output
    )
    assert "control=COMMIT coordinator_epoch=9" in result.output
    assert "offset=8 timestamp=1700000001000(2023-11-14T22:13:21.000Z) key=null value=null" in result.output


def test_print_data_log_shows_keys_values_and_headers(tmp_path):
    """Text as text; what a terminal would obey, as hex."""
    batch = build_batch(
        [
            record("schön und gut".encode(), key=b"\x1b[2J", headers=[("h\n", None), ("n", b"\xff")]),
            record(b""),
        ]
    )

    output = run(written(tmp_path, SEGMENT, batch), flags=("--print-data-log",)).output

    assert "key=0x1b5b324a value='schön und gut' header 'h\\n'=null header n=0xff" in output
    assert "offset=1 timestamp=0(1970-01-01T00:00:00.000Z) key=null value=''" in output


def test_verify_says_nothing_but_ok(tmp_path):
    path = written(tmp_path, SEGMENT, segment())

    assert (0, f"{path}: ok\n") == (
        run(path, flags=("--verify",)).exit_code,
        run(path, flags=("--verify",)).output,
    )


def test_an_empty_segment_is_whole(tmp_path):
    result = run(written(tmp_path, "00000000000000000042.log", b""))

    assert 0 == result.exit_code
    assert "0 batches, 0 records, offsets 42..42 (exclusive), 0 bytes" in result.output


def test_segments_in_transit_are_read_by_their_own_name(tmp_path):
    paths = [
        written(tmp_path, f"00000000000000000000.log.{kind}", three())
        for kind in ("deleted", "swap", "cleaned")
    ]

    assert 0 == run(*paths).exit_code


def test_a_wrong_crc_is_told_and_the_next_batches_are_read(tmp_path):
    broken = with_fields(three(), crc=1)

    result = run(
        written(tmp_path, SEGMENT, three() + with_fields(broken, base_offset=3, crc=1) + three(base_offset=6))
    )

    assert 1 == result.exit_code
    assert ["position=91"] == [line.split(":")[0] for line in damage(result)]
    assert "offsets=6..8" in result.output


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (three(base_offset=3)[:-1], "batch of 91 bytes, 90 left"),
        (three(base_offset=3)[:20], "20 bytes, a batch's header alone has 61"),
        (bytes(200), "zeros"),
        (with_fields(three(), magic=1), "magic 1"),
        (with_fields(three(), batch_length=-1), "batch of 11 bytes"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_position(tmp_path, tail, why):
    result = run(written(tmp_path, SEGMENT, three() + tail))

    assert 1 == result.exit_code
    assert damage(result)[0].startswith(f"position=91: {why}")
    assert f"position=91: the last {len(tail)} bytes cannot be read" == damage(result)[1]


@pytest.mark.parametrize("second", [three(base_offset=2), three()])
def test_offsets_that_go_back_are_damage(tmp_path, second):
    result = run(written(tmp_path, SEGMENT, three() + second))

    assert "position=91: offset" in damage(result)[0]


def test_offsets_below_the_files_name_are_damage(tmp_path):
    assert 1 == run(written(tmp_path, "00000000000000000005.log", three())).exit_code


def test_more_records_than_offsets_are_damage(tmp_path):
    path = written(tmp_path, SEGMENT, with_fields(three(), last_offset_delta=1))

    assert ["position=0: 3 records in offsets 0..1"] == damage(run(path))


@pytest.mark.parametrize("flag", ["--verify", "--deep-iteration"])
def test_records_that_do_not_add_up_are_found_when_asked_for(tmp_path, flag):
    path = written(tmp_path, SEGMENT, three() + with_records(three(base_offset=3), three()[61:] + b"x"))

    assert 0 == run(path).exit_code
    assert ["position=91"] == [line.split(":")[0] for line in damage(run(path, flags=(flag,)))]


# --- indexes


def indexed(tmp_path: Path) -> int:
    """Writes a segment of two batches (offsets 100-102 and 103-105); where the second lies."""
    first = three(base_offset=100)
    second = with_fields(three(base_offset=103), max_timestamp=NOW + 5)
    written(tmp_path, "00000000000000000100.log", first + second)
    return len(first)


def index(tmp_path: Path, *entries: tuple[int, int], tail: bytes = b"") -> Path:
    data = b"".join(struct.pack(">ii", *entry) for entry in entries)
    return written(tmp_path, "00000000000000000100.index", data + tail)


def time_index(tmp_path: Path, *entries: tuple[int, int], tail: bytes = b"") -> Path:
    data = b"".join(struct.pack(">qi", *entry) for entry in entries)
    return written(tmp_path, "00000000000000000100.timeindex", data + tail)


def test_an_index_is_compared_with_its_segment(tmp_path):
    second = indexed(tmp_path)
    result = run(index(tmp_path, (5, second)), time_index(tmp_path, (NOW, 2), (NOW + 5, 5)))

    assert (0, []) == (result.exit_code, damage(result))
    assert f"  offset=105 position={second}" in result.output
    assert "  timestamp=1700000000005(2023-11-14T22:13:20.005Z) offset=105" in result.output


def test_reserved_space_at_the_end_of_an_index_is_no_damage(tmp_path):
    second = indexed(tmp_path)
    paths = [
        index(tmp_path, (5, second), tail=bytes(8 * 20_000)),
        time_index(tmp_path, (NOW, 2), tail=bytes(12 * 20_000)),
    ]

    assert 0 == run(*paths).exit_code
    assert 0 == run(index(tmp_path, tail=bytes(80_000))).exit_code


@pytest.mark.parametrize(
    ("entries", "tail", "why"),
    [
        ([(4, 91)], b"", "entry=0: the batch at position 91 ends with offset 105, not 104"),
        ([(5, 90)], b"", "entry=0: no batch at position 90 of the segment"),
        ([(5, 182)], b"", "entry=0: position 182 is beyond the segment"),
        ([(5, 91), (5, 91)], b"", "entry=1: does not grow"),
        ([(-5, 91)], b"", "entry=0: does not grow"),
        ([(5, 91)], b"abc", "entry=1: 3 bytes at the end; an entry has 8"),
    ],
)
def test_an_index_that_lies_is_damaged(tmp_path, entries, tail, why):
    indexed(tmp_path)

    result = run(index(tmp_path, *entries, tail=tail))

    assert 1 == result.exit_code
    assert damage(result)[0].startswith(why)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([(NOW + 1, 2)], f"entry=0: the batch at offset 102 has the maximum timestamp {NOW}"),
        ([(NOW, 6)], "entry=0: offset 106 is not in the segment"),
        ([(NOW, 2), (NOW, 5)], "entry=1: does not grow"),
        ([(NOW, -1)], "entry=0: does not grow"),
    ],
)
def test_a_time_index_that_lies_is_damaged(tmp_path, entries, why):
    indexed(tmp_path)

    assert damage(run(time_index(tmp_path, *entries)))[0].startswith(why)


def test_a_time_index_beside_a_damaged_segment_says_so(tmp_path):
    written(tmp_path, "00000000000000000100.log", b"x" * 100)

    assert "entry=0: the segment is damaged at position=0" in damage(run(time_index(tmp_path, (NOW, 2))))[0]


def test_an_index_without_its_segment_is_shown(tmp_path):
    assert 0 == run(index(tmp_path, (5, 91)), time_index(tmp_path, (NOW, 2))).exit_code


# --- tables


def test_a_snapshot_of_kafkas_is_shown(tmp_path):
    result = run(written(tmp_path, "00000000000000000054.snapshot", KAFKAS_SNAPSHOT))

    assert 0 == result.exit_code
    assert (
        "producer=0 epoch=0 last_sequence=39 last_offset=52 offset_delta=19"
        " timestamp=1795511466144(2026-11-24T09:11:06.144Z) coordinator_epoch=0 txn_first_offset=-1"
        in result.output
    )


def resealed(snapshot: bytes) -> bytes:
    return snapshot[:2] + struct.pack(">I", crc32c(snapshot[6:])) + snapshot[6:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "position=0: 0 bytes"),
        (b"\x00\x02" + KAFKAS_SNAPSHOT[2:], "position=0: version 2"),
        (KAFKAS_SNAPSHOT[:-1] + b"\x00", "position=2: the CRC"),
        (resealed(KAFKAS_SNAPSHOT[:-1]), "position=6: 1 producers announced, 45 bytes follow"),
        (
            resealed(KAFKAS_SNAPSHOT[:6] + b"\x7f\xff\xff\xff" + KAFKAS_SNAPSHOT[10:]),
            "position=6: 2147483647",
        ),
    ],
)
def test_a_damaged_snapshot_is_told(tmp_path, data, why):
    assert damage(run(written(tmp_path, "00000000000000000054.snapshot", data)))[0].startswith(why)


def test_aborted_transactions_are_shown(tmp_path):
    entry = struct.pack(">hqqqq", 0, 7, 33, 53, 54)
    whole = written(tmp_path, "00000000000000000000.txnindex", entry)
    result = run(whole)

    assert (0, True) == (result.exit_code, "producer=7 offsets=33..53 last_stable_offset=54" in result.output)
    for data in (entry + b"x", b"\x00\x01" + entry[2:], struct.pack(">hqqqq", 0, 7, 53, 33, 54)):
        assert 1 == run(written(tmp_path, "00000000000000000001.txnindex", data)).exit_code


def test_checkpoints_are_shown(tmp_path):
    epochs = written(tmp_path, "leader-epoch-checkpoint", b"0\n2\n0 0\n2 50\n")
    points = written(tmp_path, "recovery-point-offset-checkpoint", b"0\n1\norders 3 17\n")
    result = run(epochs, points)

    assert 0 == result.exit_code
    assert "  epoch=2 start_offset=50" in result.output
    assert "  topic=orders partition=3 offset=17" in result.output


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_may_be_empty(tmp_path, name):
    assert 0 == run(written(tmp_path, name, b"")).exit_code
    assert 0 == run(written(tmp_path, name, b"0\n0\n")).exit_code


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"1\n0\n", "line=1: version 1"),
        (b"0\n", "line=2: nothing announced"),
        (b"0\n2\n0 0\n", "line=2: 2 announced, 1 lines follow"),
        (b"0\nmany\n0 0\n", "line=2: many announced"),
        (b"0\n1\n0\n", "line=3: not epoch start_offset"),
        (b"0\n1\na b\n", "line=3: not epoch start_offset"),
        (b"0\n1\n0 9 9\n", "line=3: not epoch start_offset"),
        (b"0\n1\n0 " + b"9" * 5000 + b"\n", "line=3: not epoch start_offset"),
        (b"0\n2\n1 0\n1 5\n", "line=4: does not grow"),
        (b"0\n2\n1 5\n2 4\n", "line=4: does not grow"),
        (b"\xff\xfe\x1b[2J", "line=1: version"),
    ],
)
def test_a_damaged_checkpoint_is_told(tmp_path, data, why):
    result = run(written(tmp_path, "leader-epoch-checkpoint", data))

    assert damage(result)[0].startswith(why)
    assert "\x1b" not in result.output


# --- the verb


def test_files_of_another_kind_are_refused_before_anything_is_shown(tmp_path):
    result = run(written(tmp_path, SEGMENT, segment()), written(tmp_path, "partition.metadata", b""))

    assert (2, "") == (result.exit_code, result.stdout)
    assert "partition.metadata" in result.stderr


def test_a_missing_file_is_refused(tmp_path):
    assert 2 == run(tmp_path / SEGMENT).exit_code


def test_one_damaged_file_of_many_decides_the_exit_code(tmp_path):
    good = written(tmp_path, SEGMENT, segment())
    bad = written(tmp_path, "00000000000000000009.log", b"x")

    result = run(bad, good, flags=("--verify",))

    assert (1, True) == (result.exit_code, f"{good}: ok" in result.output)


NAMES = [f"00000000000000000000{suffix}" for suffix in DUMPERS] + list(CHECKPOINTS)
FLAGS = [(), ("--verify",), ("--deep-iteration",), ("--print-data-log",)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), st.binary(max_size=300), st.sampled_from(FLAGS))
def test_random_files_end_in_an_exit_code(tmp_path, name, data, flags):
    written(tmp_path, SEGMENT, three())

    assert run(written(tmp_path, name, data), flags=flags).exit_code in (0, 1)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(FLAGS), st.booleans())
def test_mutated_segments_end_in_an_exit_code(tmp_path, data, flags, sealed):
    """With `sealed` the first batch's CRC agrees with the damage, so that its records are looked at."""
    first = bytearray(three(codec=data.draw(st.sampled_from(list(CODECS.values())))))
    for _ in range(data.draw(st.integers(1, 3))):
        first[data.draw(st.integers(0, len(first) - 1))] = data.draw(st.integers(0, 255))
    batch = with_crc(bytes(first)) if sealed else bytes(first)

    assert run(written(tmp_path, SEGMENT, batch + segment()), flags=flags).exit_code in (0, 1)


def test_a_folder_names_the_segments_in_it(tmp_path):
    path = written(tmp_path, SEGMENT, segment())

    result = run(tmp_path)

    assert 2 == result.exit_code
    assert f"is a folder: name files in it ({path})" in " ".join(result.stderr.split())


def test_a_folder_without_segments_says_so(tmp_path):
    assert "is a folder without segments" in run(tmp_path).stderr


def test_verify_leaves_out_what_it_does_not_know_and_says_so(tmp_path):
    path = written(tmp_path, SEGMENT, segment())
    other = written(tmp_path, "partition.metadata", b"version: 0\n")
    (tmp_path / "folder").mkdir()

    result = run(other, path, tmp_path / "folder", flags=("--verify",))

    assert 0 == result.exit_code
    assert [
        f"{other}: not checked, a file of another kind",
        f"{tmp_path}/folder: not checked, a folder",
        f"{path}: ok",
    ] == result.output.splitlines()


def test_verify_of_nothing_that_it_knows_is_refused(tmp_path):
    other = written(tmp_path, "partition.metadata", b"version: 0\n")

    assert 2 == run(other, flags=("--verify",)).exit_code
