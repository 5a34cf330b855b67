"""Groups of stock clients: where a group goes on, who reads what, who takes over, what admin clients see and change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.compat.conftest import _Clients
from tests.compat.driver import Client, ClientFailed
from tests.compat.group import Member, Place, describe, offsets, places, settled, until, write
from tests.compat.scenario import each_client
from tests.support.peers import Endpoint

UNKNOWN_MEMBER_ID, NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, GROUP_SUBSCRIBED_TO_TOPIC = 25, 68, 69, 86
# A long poll that was sent before a rebalance is answered after it: what that brings of a partition that is another
# member's by now is handed out all the same, now and then.
HANDS_OUT_OLD_POLLS = {"platformatic"}


@each_client("groups")
def test_a_group_that_commits_by_itself_goes_on_where_it_left(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=2)
    write(helper, at, topic, 2, 10)
    first = Member(client, at, topic, topic)
    until("all is read", first.places, places(2, 0, 10), first)
    until("it is committed", lambda: offsets(helper, at, topic, topic, 2), [10, 10], first)
    first.leave()
    assert [10, 10] == offsets(helper, at, topic, topic, 2)

    write(helper, at, topic, 2, 5)
    second = Member(client, at, topic, topic)
    until("the rest is read", second.places, places(2, 10, 15), second)
    assert 10 == len(second.look())
    second.leave()


@each_client("commits")
def test_a_group_goes_on_where_it_committed(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic, partitions=2)
    write(helper, at, topic, 2, 10)
    first = Member(client, at, topic, topic, auto_commit=False)
    until("all is read", first.places, places(2, 0, 10), first)
    assert [None, None] == offsets(helper, at, topic, topic, 2)
    first.commit()
    assert [10, 10] == offsets(helper, at, topic, topic, 2)
    write(helper, at, topic, 2, 5)
    until("the rest is read", first.places, places(2, 0, 15), first)
    first.leave()

    second = Member(client, at, topic, topic, auto_commit=False)
    until("what was not committed is read again", second.places, places(2, 10, 15), second)
    second.leave()
    assert [10, 10] == offsets(helper, at, topic, topic, 2)


@each_client("commit metadata")
def test_a_commit_keeps_its_metadata(
    client: Client, clients: _Clients, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    write(helper, at, topic, 1, 3)
    member = Member(client, at, topic, topic, auto_commit=False)
    until("all is read", member.places, places(1, 0, 3), member)

    words = "worker 7, größer"
    member.commit(words)
    member.leave()

    # not the helper: it reads on behind the metadata's end
    reader = clients.get("kafka-python")
    found = reader.call("group_offset", at, group=topic, topic=topic, partition=0)
    # confluent-kafka sends the end of its C string along
    assert (3, words) == (found["offset"], found["metadata"].rstrip("\0"))


@each_client("groups")
def test_partitions_are_divided_and_taken_over(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    """What is read while nothing moves is read once; nothing is ever left out."""
    helper.create(at, topic, partitions=4)
    write(helper, at, topic, 4, 5)
    one = Member(client, at, topic, topic)
    until("all is read", one.places, places(4, 0, 5), one)
    two = Member(client, at, topic, topic)
    settled(helper, at, topic, 4, [one, two])

    write(helper, at, topic, 4, 10)
    until("all is read", lambda: one.places() | two.places(), places(4, 0, 15), one, two)
    new = [place for place in one.read + two.read if place[1] >= 5]
    if client.name not in HANDS_OUT_OLD_POLLS:
        assert len(new) == len(set(new))
    assert {place[0] for place in one.read if place[1] >= 5} != {0, 1, 2, 3}

    one.leave()
    settled(helper, at, topic, 4, [two])
    write(helper, at, topic, 4, 5)
    until("all is read", lambda: two.places() >= places(4, 15, 20), True, two)
    assert places(4, 0, 20) == set(one.read) | set(two.read)
    two.leave()
    until("nobody is left", lambda: describe(helper, at, topic)["state"], "empty")


@each_client("cooperative")
def test_a_member_of_a_cooperative_group_goes_on_while_another_joins(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=4)
    one = Member(client, at, topic, topic, cooperative=True)
    settled(helper, at, topic, 4, [one])

    two = Member(client, at, topic, topic, cooperative=True)
    settled(helper, at, topic, 4, [one, two])

    write(helper, at, topic, 4, 10)
    until("all is read", lambda: one.places() | two.places(), places(4, 0, 10), one, two)
    assert 2 == len(one.revoked), "only what moved was taken away"
    assert set(one.revoked) == {partition for partition, _ in two.read}
    two.leave()
    one.leave()


@each_client("groups")
def test_two_groups_read_a_topic_each_for_itself(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=2)
    write(helper, at, topic, 2, 10)
    members = [Member(client, at, f"{topic}-{name}", topic) for name in ("a", "b")]

    for member in members:
        until("all is read", member.places, places(2, 0, 10), member)
        assert 20 == len(member.read)
        member.leave()


@each_client("many members")
def test_many_groups_that_rebalance_at_once_end_stable(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    groups = [f"{topic}-{number}" for number in range(20)]
    helper.create(at, topic, partitions=6)
    write(helper, at, topic, 6, 3)

    with ThreadPoolExecutor(60) as threads:
        joined = [(group, threads.submit(Member, client, at, group, topic)) for group in groups * 3]
    members = [(group, future.result()) for group, future in joined]

    for group in groups:
        three = [member for of, member in members if of == group]
        settled(helper, at, group, 6, three, limit_s=120)
        until("all is read", partial(_read_by, three), places(6, 0, 3), *three)
    with ThreadPoolExecutor(60) as threads:
        for _ in threads.map(lambda pair: pair[1].leave(), members):
            pass


def _read_by(members: list[Member]) -> set[Place]:
    return {place for member in members for place in member.look()}


@each_client("group admin")
def test_an_admin_client_sees_groups_their_members_and_their_lag(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=2)
    write(helper, at, topic, 2, 4)
    instance = "static" if "static members" in client.can else None
    member = Member(client, at, topic, topic, instance_id=instance, auto_commit=False)
    until("all is read", member.places, places(2, 0, 4), member)
    member.commit()
    write(helper, at, topic, 2, 3)

    assert topic in client.call("groups", at)["groups"]
    told = describe(client, at, topic)
    [(name, _, partitions)] = told["members"]
    assert ("stable", member.name, [0, 1]) == (told["state"], name, sorted(partitions))
    assert [4, 4] == offsets(client, at, topic, topic, 2)
    assert 3 == (client.offset(at, topic, "latest", partition=1) or 0) - 4
    assert None is client.call("group_offset", at, group=f"{topic}-none", topic=topic, partition=0)["offset"]
    member.leave()


@each_client("delete groups")
def test_a_group_is_deleted_when_it_is_empty(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    write(helper, at, topic, 1, 2)
    member = Member(helper, at, topic, topic)
    until("all is read", member.places, places(1, 0, 2), member)

    with pytest.raises(ClientFailed) as refused:
        client.call("delete_group", at, group=topic)
    member.leave()
    until("nobody is left", lambda: describe(helper, at, topic)["state"], "empty")
    client.call("delete_group", at, group=topic)

    assert topic not in client.call("groups", at)["groups"]
    assert [None] == offsets(client, at, topic, topic, 1)
    with pytest.raises(ClientFailed) as unknown:
        client.call("delete_group", at, group=topic)
    assert [NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND] == [refused.value.code, unknown.value.code]


@each_client("alter offsets")
def test_offsets_of_an_empty_group_are_altered(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    write(helper, at, topic, 1, 9)
    client.call("alter_offset", at, group=topic, topic=topic, partition=0, offset=4)
    assert [4] == offsets(client, at, topic, topic, 1)

    member = Member(helper, at, topic, topic)
    until("the rest is read", member.places, places(1, 4, 9), member)
    with pytest.raises(ClientFailed) as refused:
        client.call("alter_offset", at, group=topic, topic=topic, partition=0, offset=0)
    if client.name != "kafkajs":  # it looks for members by itself
        assert refused.value.code == UNKNOWN_MEMBER_ID
    member.leave()


@each_client("delete offsets")
def test_offsets_are_deleted_unless_subscribed(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    write(helper, at, topic, 1, 2)
    member = Member(helper, at, topic, topic)
    until("all is read", member.places, places(1, 0, 2), member)
    until("it is committed", lambda: offsets(helper, at, topic, topic, 1), [2])

    with pytest.raises(ClientFailed) as refused:
        client.call("delete_offset", at, group=topic, topic=topic, partition=0)
    assert refused.value.code == GROUP_SUBSCRIBED_TO_TOPIC
    member.leave()
    until("nobody is left", lambda: describe(helper, at, topic)["state"], "empty")
    client.call("delete_offset", at, group=topic, topic=topic, partition=0)

    assert [None] == offsets(client, at, topic, topic, 1)
