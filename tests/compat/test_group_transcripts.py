"""Conversations about groups that clients do not lead but may: every answer is Apache Kafka's, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from kbroker.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequestProtocol,
    LeaveGroupRequest,
    ListGroupsRequest,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from tests.compat.transcript import NotingClient, Transcript
from tests.support.peers import Peer
from tests.support.raw_client import RawClient, address_of
from tests.support.raw_members import Group, subscription

LONG_STRING = "x" * 30_000


class Talk:
    """A topic of two partitions, a group of its own, and connections whose answers are noted."""

    def __init__(self, peer: Peer, topic: str, stack: ExitStack) -> None:
        self._peer = peer
        self._stack = stack
        # of the same length each time: it is in what members say of themselves
        self.topic = topic = f"talk-{hashlib.sha256(topic.encode()).hexdigest()[:12]}"
        plain = self._plain()
        self.topic_id = plain.create(topic, 2)
        self.transcript = Transcript({topic: "<topic>", repr(self.topic_id): "<topic id>"})
        self.group = Group(self._plain, topic)
        self.group.connect = self.connect
        self.ask = self.connect().ask
        self.say = self.transcript.say

    def _plain(self) -> RawClient:
        return self._stack.enter_context(RawClient(address_of(self._peer.plain.servers)))

    def connect(self) -> NotingClient:
        """One more connection."""
        return self._stack.enter_context(NotingClient(self._peer.plain, self.transcript))

    def commit(
        self, version: int = 9, partitions: Any = ((0, 1, ""),), topic: Any = None, **fields: Any
    ) -> None:
        """OffsetCommit."""
        said = [
            OffsetCommitRequestPartition(
                partition_index=index, committed_offset=offset, committed_metadata=words
            )
            for index, offset, words in partitions
        ]
        where = {"topic_id": topic or self.topic_id} if version >= 10 else {"name": topic or self.topic}
        topics = [OffsetCommitRequestTopic(**where, partitions=said)]
        self.ask(OffsetCommitRequest(**{"group_id": self.topic, "topics": topics, **fields}), version)

    def fetch(self, version: int = 9, topic: Any = None, partitions: Any = (0, 1), **fields: Any) -> None:
        """OffsetFetch of one group."""
        where = {"topic_id": topic or self.topic_id} if version >= 10 else {"name": topic or self.topic}
        more = {name: fields.pop(name) for name in ("require_stable",) if name in fields}
        if version < 8:
            topics = [OffsetFetchRequestTopic(**where, partition_indexes=list(partitions))]
            self.ask(
                OffsetFetchRequest(**{"group_id": self.topic, "topics": topics, **fields}, **more), version
            )
            return
        asked = [OffsetFetchRequestTopics(**where, partition_indexes=list(partitions))]
        group = OffsetFetchRequestGroup(**{"group_id": self.topic, "topics": asked, **fields})
        self.ask(OffsetFetchRequest(groups=[group], **more), version)

    def describe(self, version: int = 6, group: str | None = None, **fields: Any) -> None:
        """DescribeGroups."""
        self.ask(DescribeGroupsRequest(groups=[group or self.topic], **fields), version)

    def delete(self, *groups: str) -> None:
        """DeleteGroups."""
        self.ask(DeleteGroupsRequest(groups_names=list(groups)), 2)

    def forget(self, *where: tuple[str, int], group: str | None = None) -> None:
        """OffsetDelete."""
        topics = [
            OffsetDeleteRequestTopic(
                name=name,
                partitions=[
                    OffsetDeleteRequestPartition(partition_index=index) for of, index in where if of == name
                ],
            )
            for name in dict(where)
        ]
        self.ask(OffsetDeleteRequest(group_id=self.topic if group is None else group, topics=topics), 0)


@pytest.fixture
def talk(peer: Peer, topic: str, request: pytest.FixtureRequest, peer_kind: str) -> Iterator[Talk]:
    """A conversation; when it is over it is compared."""
    with ExitStack() as stack:
        talk = Talk(peer, topic, stack)
        yield talk
        name = request.node.name.removeprefix("test_").replace("[", "-").rstrip("]")
        talk.transcript.check(name, peer_kind)


def offered(*names: str, metadata: bytes = b"") -> list[JoinGroupRequestProtocol]:
    """What a member can do."""
    return [
        JoinGroupRequestProtocol(name=name, metadata=metadata or subscription("topics")) for name in names
    ]


@pytest.mark.parametrize("version", [3, 9])
def test_joins_that_are_refused(version: int, talk: Talk) -> None:
    say, member = talk.say, talk.group.member()
    join = partial(member.join, version=version)
    say("no group id")
    join(group_id="")
    say("sessions of 5 999 ms, 1 800 001 ms, -1 ms")
    for session in (5_999, 1_800_001, -1):
        join(session_timeout_ms=session)
    say("a member nobody knows")
    join(member_id="stranger")
    join(group_id=f"{talk.topic}-none", member_id="stranger")
    say("no protocol type, no protocols")
    member.member_id = ""
    join(protocol_type="")
    member.member_id = ""
    join(protocols=[])
    say("another type, other protocols than those there")
    member.member_id = ""
    join()
    member.sync({member.member_id: b"all"})
    other = talk.group.member()
    other.join(version=version, protocol_type="connect")
    other.member_id = ""
    other.join(version=version, protocols=offered("other"))
    say("the first is unharmed")
    member.beat()
    talk.describe()


def test_joins_of_any_content(talk: Talk) -> None:
    say, member = talk.say, talk.group.member()
    say("a connector: metadata of anything")
    worker = talk.group.member()
    of_connect = {"protocol_type": "connect", "protocols": offered("range", metadata=b"\xff" * 1_000)}
    worker.join(**of_connect)
    worker.send_sync()
    worker.synced()
    talk.describe()
    talk.forget((talk.topic, 0))
    worker.leave()
    say("a consumer: thousand protocols, one twice, a reason of 30 000")
    member.join(protocols=offered(*(f"protocol-{n}" for n in range(1_000))))
    member.join(protocols=offered("range", "range"))
    member.join(reason=LONG_STRING)
    member.sync({})
    talk.describe()
    say("no rebalance timeout; one of -5; an instance id of 249")
    member.leave()
    for timeout in (0, -1, -5):
        one = talk.group.member()
        one.join(rebalance_timeout_ms=timeout)
        one.leave()
    static = talk.group.member("i" * 249)
    static.join()
    static.leave()


def test_a_group_too_large_to_write(talk: Talk) -> None:
    say, member = talk.say, talk.group.member()
    say("a subscription of two megabytes, and an assignment too")
    member.join(protocols=offered("range", metadata=bytes(2_000_000)))
    member.sync({member.member_id: bytes(2_000_000)})
    member.beat()
    talk.describe()
    say("smaller it works")
    member.join()
    member.sync({member.member_id: b"all"})
    member.beat()
    talk.describe()


def test_syncs_that_are_refused(talk: Talk) -> None:
    say, ask = talk.say, talk.ask
    member, follower = talk.group.settled(2)

    def sync(version: int = 5, **fields: Any) -> None:
        request = {
            "group_id": talk.topic,
            "generation_id": member.generation,
            "member_id": member.member_id,
            "protocol_type": "consumer",
            "protocol_name": "range",
            **fields,
        }
        ask(SyncGroupRequest(**request), version)

    say("no group id; unknown group, member, generation")
    sync(group_id="")
    sync(group_id=f"{talk.topic}-none")
    sync(member_id="stranger")
    sync(generation_id=member.generation - 1)
    sync(generation_id=member.generation + 1)
    sync(generation_id=-1)
    say("other type, other protocol, neither")
    sync(protocol_type="connect")
    sync(protocol_name="roundrobin")
    sync(protocol_type=None, protocol_name=None)
    sync(version=0)
    say("an instance that nobody is")
    sync(group_instance_id="nobody")
    say("again, with other assignments: those of the first time count")
    sync(assignments=[SyncGroupRequestAssignment(member_id=member.member_id, assignment=b"other")])
    follower.sync()
    talk.describe()


def test_heartbeats_and_leaves(talk: Talk) -> None:
    say, ask = talk.say, talk.ask
    say("nobody")
    for version in range(5):
        ask(HeartbeatRequest(group_id=f"{talk.topic}-none", generation_id=1, member_id="stranger"), version)
    ask(HeartbeatRequest(group_id="", generation_id=1, member_id="stranger"), 4)
    for version in range(6):
        who = (
            {"member_id": "stranger"} if version < 3 else {"members": [MemberIdentity(member_id="stranger")]}
        )
        ask(LeaveGroupRequest(group_id=f"{talk.topic}-none", **who), version)
    member, other = talk.group.settled(2)
    say("other generations and members")
    member.beat(generation_id=member.generation - 1)
    member.beat(generation_id=member.generation + 1)
    member.beat(generation_id=-1)
    member.beat(member_id="stranger")
    member.beat(member_id="")
    member.beat(group_instance_id="nobody")
    member.beat()
    say("leaves: of strangers, of nobody, twice, of an instance that nobody is")
    for identities in (
        [MemberIdentity(member_id="stranger")],
        [],
        [MemberIdentity(member_id="", group_instance_id="nobody")],
        [MemberIdentity(member_id="stranger", group_instance_id="nobody")],
        [MemberIdentity(member_id="stranger"), MemberIdentity(member_id=other.member_id)],
        [MemberIdentity(member_id=other.member_id)],
    ):
        ask(LeaveGroupRequest(group_id=talk.topic, members=identities), 5)
    ask(LeaveGroupRequest(group_id="", members=[MemberIdentity(member_id="stranger")]), 5)
    say("the one that is left hears of it")
    member.beat()
    member.leave()
    member.beat()
    talk.describe()


def test_static_members(talk: Talk) -> None:
    say, ask = talk.say, talk.ask
    older = talk.group.member("one")
    older.join()
    older.sync({older.member_id: b"all"})
    say("the second of the name takes its place; the first is fenced")
    newer = talk.group.member("one")
    newer.join()
    newer.sync({})
    older.beat()
    older.sync({})
    older.commit(talk.topic, 1)
    older.join()
    older.leave()
    newer.beat()
    talk.describe()
    say("it leaves by its instance id, with a stranger's member id, and rightly")
    ask(
        LeaveGroupRequest(
            group_id=talk.topic, members=[MemberIdentity(member_id="stranger", group_instance_id="one")]
        ),
        5,
    )
    ask(
        LeaveGroupRequest(
            group_id=talk.topic, members=[MemberIdentity(member_id="", group_instance_id="one")]
        ),
        5,
    )
    newer.beat()
    say("a static member with a member id that nobody has")
    stranger = talk.group.member("two")
    stranger.join(member_id="stranger")
    talk.describe()


def test_commits(talk: Talk) -> None:
    say, commit = talk.say, talk.commit
    say("of nobody, for partitions that are and are not")
    commit(partitions=[(0, 5, "words"), (1, 6, None), (2, 7, ""), (-1, 8, "")])
    commit(topic=f"{talk.topic}-none")
    commit(topic="")
    say("by topic id: there, not there, none")
    commit(10)
    commit(10, topic=bytes(15) + b"\7")
    say("no group id, twice the same partition, offsets below zero, a generation without a member")
    commit(group_id="")
    talk.delete("")
    commit(partitions=[(0, 9, ""), (0, 10, "")])
    commit(partitions=[(0, -1, ""), (1, -5, "")])
    commit(generation_id_or_member_epoch=3)
    commit(member_id="stranger")
    commit(group_id=f"{talk.topic}-none", generation_id_or_member_epoch=3, member_id="stranger")
    say("metadata of 4 096 and 4 097, of bytes and of characters")
    commit(partitions=[(0, 11, "x" * 4_096), (1, 12, "x" * 4_097)])
    commit(partitions=[(0, 13, "ö" * 4_096), (1, 14, "ö" * 2_049)])
    commit(topics=[])
    for version in range(2, 10):
        commit(version, partitions=[(0, version, f"version {version}")])
    talk.fetch()
    say("in a group that has a member")
    member = talk.group.member()
    member.join()
    commit()
    member.commit(talk.topic, 20)
    member.sync({member.member_id: b"all"})
    commit()
    member.commit(talk.topic, 21)
    member.commit(talk.topic, 22, generation_id_or_member_epoch=member.generation + 1)
    member.commit(talk.topic, 23, generation_id_or_member_epoch=-1)
    member.commit(talk.topic, 24, member_id="stranger")
    member.commit(talk.topic, 25, group_instance_id="nobody")
    talk.fetch()


def test_fetches_of_offsets(talk: Talk) -> None:
    say, fetch = talk.say, talk.fetch
    say("of a group that nobody knows")
    for version in range(1, 11):
        fetch(version)
    talk.commit(partitions=[(0, 5, "words")])
    say("what was committed, what was not, what is not there")
    for version in range(1, 11):
        fetch(version, partitions=(0, 1, 2, -1))
    fetch(topic=f"{talk.topic}-none")
    fetch(10, topic=bytes(15) + b"\7")
    fetch(partitions=(0, 0))
    fetch(partitions=())
    fetch(topics=[])
    say("all of it")
    for version in (2, 7, 8, 9, 10):
        fetch(version, topics=None)
    say("no group id; a member's epoch, which this kind of group has not; stable")
    fetch(group_id="")
    fetch(5, group_id="")
    fetch(member_id="stranger", member_epoch=3)
    fetch(member_id="", member_epoch=0)
    fetch(require_stable=True)
    say("several groups, none")
    groups = [
        OffsetFetchRequestGroup(group_id=name, topics=None) for name in (talk.topic, f"{talk.topic}-none")
    ]
    talk.ask(OffsetFetchRequest(groups=groups), 9)
    talk.ask(OffsetFetchRequest(groups=[]), 9)


def test_groups_and_offsets_are_deleted(talk: Talk) -> None:
    say, delete, forget = talk.say, talk.delete, talk.forget
    say("nothing there")
    delete(talk.topic)
    delete("")
    delete()
    forget((talk.topic, 0))
    forget((talk.topic, 0), group="")
    say("offsets of an empty group")
    talk.commit(partitions=[(0, 5, ""), (1, 6, "")])
    forget((talk.topic, 0), (talk.topic, 7), (f"{talk.topic}-none", 0))
    forget((talk.topic, 0))
    forget()
    talk.fetch()
    say("of a group with members: what they subscribe to, and what not")
    member = talk.group.member()
    member.join(metadata=subscription(talk.topic))
    forget((talk.topic, 1))
    member.sync({member.member_id: b"all"})
    forget((talk.topic, 1), ("other", 0))
    delete(talk.topic, f"{talk.topic}-none", talk.topic)
    member.beat()
    say("of one that is no consumer's")
    member.leave()
    member.join(member_id="", protocol_type="connect")
    member.member_id = ""
    member.join(protocol_type="connect")
    forget((talk.topic, 1))
    member.leave()
    delete(talk.topic)
    delete(talk.topic)
    talk.describe()
    talk.fetch()


def test_groups_are_described_and_listed(talk: Talk) -> None:
    say, describe = talk.say, talk.describe
    say("nobody, no id")
    for version in range(7):
        describe(version)
    describe(group=" ")
    talk.ask(DescribeGroupsRequest(groups=[""]), 6)
    talk.ask(DescribeGroupsRequest(groups=[]), 6)
    say("a group that only committed")
    talk.commit()
    for version in (4, 6):
        describe(version)
    say("while it rebalances, completes, is stable")
    member = talk.group.member("static")
    member.join()
    for version in range(7):
        describe(version)
    member.sync({member.member_id: b"all"})
    for version in range(7):
        describe(version)
    describe(include_authorized_operations=True)

    def listed(version: int, **filters: Any) -> None:
        found = talk.group.client.ask(ListGroupsRequest(**filters), version)
        mine = [
            (group.protocol_type, group.group_state, group.group_type)
            for group in found.groups
            if group.group_id == talk.topic
        ]
        talk.transcript.note_text(f"ListGroups v{version} {filters} {found.error_code} {mine}")

    for version in range(6):
        listed(version)
    for states in (
        ["Stable"],
        ["stable"],
        ["sTaBlE", "Empty"],
        ["Empty"],
        ["Unknown"],
        [""],
        ["Completing Rebalance"],
    ):
        listed(5, states_filter=states)
    for types in (
        ["classic"],
        ["Classic"],
        ["consumer"],
        ["share"],
        ["streams"],
        ["unknown"],
        ["nonsense"],
        [""],
    ):
        listed(5, types_filter=types)


def test_coordinators(talk: Talk) -> None:
    ask, say = talk.ask, talk.say
    say("a group's")
    for version in range(4):
        ask(FindCoordinatorRequest(key="group"), version)
    for version in range(4, 7):
        ask(FindCoordinatorRequest(coordinator_keys=["a", "", "a"]), version)
    ask(FindCoordinatorRequest(key=""), 3)
    ask(FindCoordinatorRequest(coordinator_keys=[]), 6)


def test_members_that_vanish_while_a_group_rebalances(talk: Talk) -> None:
    say = talk.say
    a, b = (talk.group.member() for _ in range(2))
    # time enough to come back for those that should; the others are waited for
    timeouts = {"session_timeout_ms": 30_000, "rebalance_timeout_ms": 8_000}
    a.named()
    a.send_join(**timeouts)
    a.joined()
    a.sync({a.member_id: b"all"})
    b.named()
    say("a does not come back: after the rebalance timeout b is alone, and a is unknown")
    b.send_join(**timeouts)
    b.joined()
    a.beat()
    a.commit(talk.topic, 1)
    a.sync()
    say("b leads and never assigns: c, which waits for it, is freed, joins again and leads")
    c = talk.group.member()
    c.named()
    c.send_join(**timeouts)
    talk.group.until_rebalancing()
    b.send_join(**timeouts)
    b.joined()
    c.joined()
    c.send_sync()
    b.client.close()
    c.synced()
    c.send_join(**timeouts)
    c.joined()
    c.sync({c.member_id: b"all"})
    c.beat()
    talk.describe()


def test_frames_that_are_cut(talk: Talk) -> None:
    """The connection ends, and the group does not notice."""
    (member,) = talk.group.settled(1)
    for key, version in ((11, 9), (14, 5), (12, 4), (13, 5), (8, 9), (9, 9), (15, 6), (42, 2), (47, 0)):
        client = talk.connect()
        body = bytes((0, key, 0, version, 0, 0, 0, 7, 0, 3)) + b"raw" + b"\0" * (key != 47) + b"\x7f\xff"
        client.send_bytes(len(body).to_bytes(4) + body)
        talk.transcript.note_text(f"{key} v{version}: {'closed' if client.closed() else 'answered'}")
    member.beat()
    talk.describe()
