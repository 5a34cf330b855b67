"""`kbroker group` and `consume --group`."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.cli.conftest import LIMIT_S, ending, on_terminal

_numbers = itertools.count(1)


@pytest.fixture
def group():
    return f"group-{next(_numbers)}"


@pytest.fixture
def filled(cli, topic):
    """Three records in each of three partitions."""
    for partition in range(3):
        cli("produce", topic, "-p", partition, stdin=b"".join(b"%d-%d\n" % (partition, n) for n in range(3)))
    return topic


def test_a_group_goes_on_where_it_was(cli, filled, group):
    first = cli("consume", filled, "-g", group, "-n", 4).out.split()
    second = cli("consume", filled, "-g", group, "-e").out.split()
    third = cli("consume", filled, "-g", group, "-e").out.split()

    assert (4, 5, []) == (len(first), len(second), third)
    assert {f"{partition}-{n}" for partition in range(3) for n in range(3)} == {*first, *second}


def test_where_it_was_nowhere_it_begins_as_it_is_told(cli, filled, group):
    assert [] == cli("consume", filled, "-g", group, "-e", "--from", "end").out.split()
    cli("produce", filled, "-p", 1, stdin=b"new\n")

    assert ["new"] == cli("consume", filled, "-g", group, "-e", "--from", "beginning").out.split()


def test_groups_are_listed_and_described_with_their_lag(cli, filled, group):
    cli("consume", filled, "-g", group, "-e")
    cli("produce", filled, "-p", 1, stdin=b"new\nnewer\n")

    assert [group, "Empty", "classic", "consumer"] in cli("group", "list").rows
    assert [group, "Empty", "classic", "consumer"] not in cli("group", "list", "--state", "stable").rows
    lags = [
        (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in cli("group", "describe", group).rows
    ]
    assert [(0, 3, 3, 0), (1, 3, 5, 2), (2, 3, 3, 0)] == lags
    told = cli("group", "describe", group, "-o", "json").json
    assert ("Empty", 2, []) == (told["state"], told["lag"], told["members"])


def test_a_lag_that_is_not_known_is_not_zero(cli, process, filled, group):
    cli("group", "reset-offsets", group, "--topic", f"{filled}:0", "--to", "1", "--execute")
    assert 2 == cli("group", "describe", group, "-o", "json").json["lag"]
    assert f"{group}  Empty, 0 members, lag 2".encode() in on_terminal(process, "group", "describe", group)

    member = process("consume", filled, "-g", group, "--from", "end")
    until(lambda: "Stable" in cli("group", "describe", group).out)

    told = cli("group", "describe", group, "-o", "json").json
    assert (None, [2, None, None]) == (told["lag"], [part["lag"] for part in told["partitions"]])
    shown = on_terminal(process, "group", "describe", group)
    assert f"{group}  Stable, 1 member, lag 2 + 2 partitions unknown".encode() in shown
    ending(member)


def test_rows_carry_the_state_and_members_without_partitions(cli, process, topic, group):
    """Four members for three partitions: one has none."""
    cli("produce", topic, stdin=b"one\n")
    members = [process("consume", topic, "-g", group) for _ in range(4)]

    def rows():
        return cli("group", "describe", group).rows if group in cli("group", "list").out else []

    until(lambda: [row[-1] for row in rows()] == ["Stable"] * 4)

    *reading, idle = rows()
    assert {9} == {len(row) for row in [*reading, idle]}
    assert ["-"] * 5 == idle[:5]
    assert 4 == len({row[5] for row in [*reading, idle]})
    for member in members:
        ending(member)


def test_a_group_of_which_there_is_only_a_state_has_a_row(cli, monkeypatch, broker, filled, group):
    cli("consume", filled, "-g", group, "-e")
    broker.delete_topic(filled)
    until(lambda: not [row for row in cli("group", "describe", group).rows if row[0] == filled])

    assert [["-"] * 8 + ["Empty"]] == cli("group", "describe", group).rows
    assert None is cli("group", "describe", group, "-o", "json").json["lag"]


def until(holds):
    """Wait until it holds, within the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # whoever is waited for has use for the processor


def test_offsets_are_moved_when_it_is_said_twice(cli, filled, group):
    cli("consume", filled, "-g", group, "-e")

    planned = cli("group", "reset-offsets", group, "--to", "beginning")
    assert [[filled, str(partition), "3", "0"] for partition in range(3)] == planned.rows
    assert "nothing is changed yet: add --execute\n" == planned.err
    assert [] == cli("consume", filled, "-g", group, "-e").out.split()

    done = cli(
        "group",
        "reset-offsets",
        group,
        "--topic",
        f"{filled}:1",
        "--to",
        "beginning",
        "--execute",
        "-o",
        "json",
    )
    assert {"topic": filled, "partition": 1, "from": 3, "to": 0, "asked": None} == done.json["offsets"][0]
    assert ["1-0", "1-1", "1-2"] == cli("consume", filled, "-g", group, "-e").out.split()

    cli("group", "reset-offsets", group, "--by", "-1", "--execute")
    assert ["0-2", "1-2", "2-2"] == sorted(cli("consume", filled, "-g", group, "-e").out.split())


@pytest.mark.parametrize(
    ("move", "said", "asked"),
    [
        (["--to", "99999"], "{}-1: 99999 is after what is there, it becomes 3\n", 99999),
        (["--by", "-5"], "{}-1: -2 is before what is there, it becomes 0\n", -2),
    ],
)
def test_an_offset_that_is_not_there_is_told_of(cli, filled, group, move, said, asked):
    cli("consume", filled, "-g", group, "-e")

    planned = cli("group", "reset-offsets", group, "--topic", f"{filled}:1", *move)
    told = cli("group", "reset-offsets", group, "--topic", f"{filled}:1", *move, "-o", "json").json

    assert said.format(filled) + "nothing is changed yet: add --execute\n" == planned.err
    assert asked == told["offsets"][0]["asked"]


def test_a_group_may_be_put_somewhere_before_it_exists(cli, filled, group):
    cli("group", "reset-offsets", group, "--topic", filled, "--to", "2", "--execute")

    assert ["0-2", "1-2", "2-2"] == sorted(cli("consume", filled, "-g", group, "-e").out.split())


def test_a_group_is_deleted_with_its_offsets(cli, filled, group):
    cli("consume", filled, "-g", group, "-e")

    done = cli("group", "delete", group, "never-was", code=1)

    assert f"deleted {group}\n" == done.out
    assert "never-was: there is no group 'never-was' (GROUP_ID_NOT_FOUND)" in done.err
    assert 9 == len(cli("consume", filled, "-g", group, "-e").out.split())


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["describe", "never-was"], 1, "GROUP_ID_NOT_FOUND"),
        (
            ["reset-offsets", "never-was", "--to", "end"],
            1,
            "has committed nothing: name its topics with --topic",
        ),
        (["reset-offsets", "g"], 2, "say where to go"),
        (["reset-offsets", "g", "--to", "end", "--by", "1"], 2, "say where to go"),
        (["reset-offsets", "g", "--topic", "never-was", "--to", "end"], 1, "there is no topic 'never-was'"),
    ],
)
def test_what_cannot_be_done(cli, args, code, said):
    assert said in cli("group", *args, code=code).err


@pytest.mark.parametrize("partition", ["3", "x", ""])
def test_a_partition_that_is_not_there(cli, topic, partition):
    done = cli("group", "reset-offsets", "g", "--topic", f"{topic}:{partition}", "--to", "end", code=2)

    assert f"topic {topic} has no partition {partition!r}: it has 3" in done.err


def test_a_group_has_a_name(cli, topic):
    assert "--group is empty" in cli("consume", topic, "-g", "", code=2).err


def test_a_group_cannot_be_given_partitions(cli, topic, group):
    assert "leave --partition out" in cli("consume", topic, "-g", group, "-p", 0, code=2).err


def test_a_member_is_seen_holds_the_group_and_leaves_it_by_ctrl_c(cli, process, filled, group):
    member = process("consume", filled, "-g", group)
    read = [member.stdout.readline() for _ in range(9)]

    told = cli("group", "describe", group, "-o", "json").json
    assert ("Stable", "range", 1) == (told["state"], told["protocol"], len(told["members"]))
    assert {told["members"][0]["member"]} == {part["member"] for part in told["partitions"]}
    assert {"kbroker-cli"} == {part["client"] for part in told["partitions"]}
    refused = cli("group", "reset-offsets", group, "--topic", filled, "--to", "end", "--execute", code=1)
    why = f"group {group} has a member (Stable): stop what reads with it first"
    assert f"Error: {why}\n" == refused.err
    planned = cli("group", "reset-offsets", group, "--topic", filled, "--to", "end")
    assert f"nothing is changed, and this cannot be executed now: {why}\n" == planned.err
    assert "NON_EMPTY_GROUP" in cli("group", "delete", group, code=1).err

    assert (9, b"") == (len(set(read)), ending(member))
    told = cli("group", "describe", group, "-o", "json").json
    assert ("Empty", 0, [3, 3, 3]) == (
        told["state"],
        told["lag"],
        [part["committed"] for part in told["partitions"]],
    )
