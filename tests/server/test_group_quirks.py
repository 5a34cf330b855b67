"""What clients are known to trip over in groups, over real sockets; the rows of Q39-Q48 of test_quirks.

With KBROKER_TEST_BOOTSTRAP=host:port the same tests run against Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from kbroker.protocol.messages.groups import (
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from kbroker.testing import Broker
from tests.support.raw_client import RawClient, address_of
from tests.support.raw_members import LONG_MS, OTHERS, TOPICS, Group

ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, INVALID_SESSION_TIMEOUT, REBALANCE_IN_PROGRESS = 22, 25, 26, 27
MEMBER_ID_REQUIRED, FENCED_INSTANCE_ID = 79, 82


@pytest.fixture
def group(connect: Callable[[], RawClient], topic: str) -> Group:
    """A group of its own, with a topic of the same name."""
    return Group(connect, topic)


# -- joining


def test_q39_a_new_member_is_sent_back_with_an_id_and_only_the_leader_gets_the_members(group):
    a, b = group.settled(2)
    c = group.member()
    c.send_join()
    told = c.joined()
    assert (MEMBER_ID_REQUIRED, True) == (told.error_code, told.member_id.startswith("raw-"))

    c.send_join()
    group.until_rebalancing()
    a.send_join()
    b.send_join()

    answers = [member.joined() for member in (a, b, c)]
    assert [a.member_id] * 3 == [answer.leader for answer in answers]
    assert [sorted([a.member_id, b.member_id, c.member_id]), [], []] == [
        sorted(member.member_id for member in answer.members) for answer in answers
    ]


@pytest.mark.parametrize("version", [0, 3])
def test_q39_before_v4_a_new_member_joins_at_once(group, version):
    member = group.member()

    member.send_join(version=version, **({"rebalance_timeout_ms": -1} if version == 0 else {}))

    assert (0, 1) == (member.joined().error_code, member.generation)


def test_q39_a_static_member_joins_at_once(group):
    member = group.member("instance")

    member.send_join()

    assert 0 == member.joined().error_code


def test_q40_a_new_group_waits_for_more_members_as_long_as_it_is_told_to(topic):
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(group_initial_rebalance_delay_ms=LONG_MS))
        address = address_of(broker.bootstrap_servers)
        group = Group(lambda: stack.enter_context(RawClient(address)), topic)
        member = group.member().named()

        member.send_join()

        group.until_rebalancing()
        assert member.client.silent()


@pytest.mark.parametrize("milliseconds", [5_999, 1_800_001])
def test_q41_sessions_are_neither_too_short_nor_too_long(group, milliseconds):
    member = group.member()

    assert INVALID_SESSION_TIMEOUT == member.join(session_timeout_ms=milliseconds).error_code


# -- heartbeats


def test_q42_heartbeats_tell_what_the_group_is_at(group):
    a, b = group.settled(2)
    assert 0 == a.beat()
    assert [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID] == [
        a.beat(generation_id=a.generation + 1),
        a.beat(member_id="nobody"),
    ]

    b.send_join(metadata=OTHERS)
    group.until_rebalancing()
    assert REBALANCE_IN_PROGRESS == a.beat()

    a.send_join()
    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    assert ("CompletingRebalance", 0) == (group.describe().group_state, a.beat())

    assert [0, 0] == [a.leave(), b.leave()]
    assert ("Empty", UNKNOWN_MEMBER_ID) == (group.describe().group_state, a.beat())


def test_q42_who_has_lost_its_place_to_another_of_its_instance_is_fenced(group):
    [member] = group.settled(1, static=True)
    before = member.member_id
    again = group.member(member.instance_id)
    again.join()

    assert FENCED_INSTANCE_ID == again.beat(member_id=before)
    assert 0 == again.beat()


def test_q42_several_groups_rebalance_at_once(connect, topic):
    groups = [Group(connect, f"{topic}-{number}") for number in range(5)]
    settled = [group.settled(2) for group in groups]

    for a, _ in settled:
        a.send_join(metadata=OTHERS)
    for group, (_, b) in zip(groups, settled, strict=True):
        group.until_rebalancing()
        b.send_join()
    for members in settled:
        assert [(0, 3), (0, 3)] == [(each.joined().error_code, each.generation) for each in members]
        Group.sync_all(members)


# -- assignments


def test_q43_followers_wait_for_their_leader_and_nothing_is_an_empty_assignment(group):
    a, b = group.settled(2)
    for member in (b, a):
        member.send_join(metadata=OTHERS)
    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    b.send_sync()
    assert b.client.silent()

    assert (0, b"all") == a.sync({a.member_id: b"all"})

    assert (0, b"") == b.synced()


def test_q43_a_leader_that_leaves_frees_its_followers(group):
    a, b = group.settled(2)
    for member in (b, a):
        member.send_join(metadata=OTHERS)
    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    b.send_sync()

    assert 0 == a.leave()

    assert (REBALANCE_IN_PROGRESS, b"") == b.synced()


# -- connections


def test_q6_answers_come_behind_that_of_a_join_that_waits(group):
    a, b = group.settled(2)
    b.send_join(metadata=OTHERS)
    group.until_rebalancing()
    b.client.send(DescribeGroupsRequest(groups=[group.group_id]), 6)
    assert b.client.silent()

    a.send_join()

    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    assert group.group_id == b.client.receive().groups[0].group_id


def test_a_member_whose_connection_ends_while_it_waits_holds_nobody_up(connect, group):
    """It stays a member until its session ends, and may go on by another connection."""
    a, b = group.settled(2)
    b.send_join(metadata=OTHERS)
    group.until_rebalancing()
    b.client.close()

    a.send_join()
    assert 0 == a.joined().error_code

    b.client, b.generation = connect(), a.generation
    Group.sync_all([a, b])
    assert "Stable" == group.describe().group_state


# -- joining again


def test_q44_a_follower_that_says_nothing_new_gets_its_generation_again(group):
    _, b = group.settled(2)
    before = b.generation

    b.send_join()

    assert (0, before) == (b.joined().error_code, b.generation)
    assert "Stable" == group.describe().group_state


@pytest.mark.parametrize("who", ["leader", "follower with other topics"])
def test_q44_leaders_and_news_rebalance(group, who):
    a, b = group.settled(2)
    first, second = (a, b) if who == "leader" else (b, a)
    before = a.generation

    first.send_join(metadata=TOPICS if who == "leader" else OTHERS)
    group.until_rebalancing()
    second.send_join()

    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    assert [before + 1] * 2 == [a.generation, b.generation]


def test_q44_who_asks_again_before_the_assignment_gets_the_same_generation(group):
    a, b = group.settled(2)
    for member in (b, a):
        member.send_join(metadata=OTHERS)
    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    before = a.generation

    for member in (a, b):
        member.send_join(metadata=OTHERS)
        assert (0, before) == (member.joined().error_code, member.generation)


@pytest.mark.parametrize("version", [8, 9])
def test_q44_a_static_leader_that_comes_back_gets_a_new_id_and_no_rebalance(group, version):
    """From v9 on it is told not to assign again; before, that the leader is who it was."""
    a, _ = group.settled(2, static=True)
    before, generation = a.member_id, a.generation
    a.member_id = ""

    a.send_join(version=version)
    answer = a.joined()

    assert (0, generation, "Stable") == (
        answer.error_code,
        answer.generation_id,
        group.describe().group_state,
    )
    assert before != a.member_id
    assert (a.member_id if version == 9 else before, version == 9) == (
        answer.leader,
        answer.skip_assignment,
    )


@pytest.mark.parametrize(("version", "expected"), [(5, (0, "Dead")), (6, (69, "Dead"))])
def test_q44_a_group_that_nobody_knows_is_dead(group, version, expected):
    found = group.describe(version)

    assert expected == (found.error_code, found.group_state)


# -- offsets


def test_q45_members_commit_while_the_group_prepares_and_not_while_it_completes(group, topic):
    group.client.create(topic)
    a, b = group.settled(2)
    assert [0, ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID] == [
        a.commit(topic, 1),
        a.commit(topic, 2, generation_id_or_member_epoch=a.generation + 1),
        a.commit(topic, 3, generation_id_or_member_epoch=-1, member_id="", group_instance_id=None),
    ]

    b.send_join(metadata=OTHERS)
    group.until_rebalancing()
    assert 0 == a.commit(topic, 4)

    a.send_join()
    assert [0, 0] == [a.joined().error_code, b.joined().error_code]
    assert REBALANCE_IN_PROGRESS == a.commit(topic, 5)
    assert [(topic, 0, 4, -1, "")] == group.committed()


def test_q45_metadata_and_leader_epoch_are_kept_and_an_empty_group_takes_commits_of_nobody(group, topic):
    group.client.create(topic)

    assert 0 == group.member().commit(topic, 7, metadata="Grüße", epoch=3)

    assert [(topic, 0, 7, 3, "Grüße")] == group.committed()
    assert 12 == group.member().commit(topic, 8, metadata="x" * 4097)
    assert [(topic, 0, 7, 3, "Grüße")] == group.committed()


def test_q46_nothing_was_committed_yet(group):
    assert [] == group.committed()


# -- coordinators


def test_q47_a_coordinator_is_found_the_second_the_broker_is_up(topic):
    with Broker() as broker, RawClient(address_of(broker.bootstrap_servers)) as client:
        found = client.ask(FindCoordinatorRequest(key=topic), 3)
        asked = JoinGroupRequest(
            group_id=topic,
            session_timeout_ms=LONG_MS,
            rebalance_timeout_ms=LONG_MS,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
        )

        assert (0, MEMBER_ID_REQUIRED) == (found.error_code, client.ask(asked, 9).error_code)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_q48_a_restart_keeps_generations_members_and_offsets(tmp_path, topic, end):
    opened: list[RawClient] = []

    def connect(broker: Broker) -> RawClient:
        opened.append(RawClient(address_of(broker.bootstrap_servers)))
        return opened[-1]

    broker = Broker(data_dir=tmp_path, kbroker_fsync_before_ack=True).start()
    try:
        group = Group(partial(connect, broker), topic)
        group.client.create(topic)
        a, b = group.settled(2)
        assert 0 == a.commit(topic, 5)

        broker.stop() if end == "stopped" else broker.kill()
        broker.start()

        for member in (a, b):
            member.client = connect(broker)
        group.client = connect(broker)
        group.find()
        assert [0, 0] == [a.beat(), b.beat()]
        assert (0, b.member_id.encode()) == b.sync()
        assert [(topic, 0, 5, -1, "")] == group.committed()
        assert 0 == b.commit(topic, 6)
    finally:
        for client in opened:
            client.close()
        broker.stop()
