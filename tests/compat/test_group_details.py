"""What members of groups do that a raw client must look at, or must bring about: the epochs that they commit, and what
they read while a rebalance is held open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.compat.driver import Client
from tests.compat.group import Member, places, settled, until, write
from tests.compat.scenario import each_client
from tests.support.peers import Endpoint
from tests.support.raw_client import RawClient, address_of
from tests.support.raw_members import Group, JoinGroupRequestProtocol, subscription

STICKY = "cooperative-sticky"
REBALANCE_IN_PROGRESS = 27
LATE_MS = 300_000  # nobody is left out because a test takes long


@pytest.fixture
def connect(at: Endpoint) -> Iterator[Callable[[], RawClient]]:
    """Connections of raw clients, closed in the end."""
    made: list[RawClient] = []

    def one() -> RawClient:
        made.append(RawClient(address_of(at.servers)))
        return made[-1]

    yield one
    for each in made:
        each.close()


@each_client("commits epochs")
def test_a_commit_keeps_the_leader_epoch_that_was_read(
    client: Client, helper: Client, at: Endpoint, topic: str, connect: Callable[[], RawClient]
) -> None:
    helper.create(at, topic)
    write(helper, at, topic, 1, 3)
    member = Member(client, at, topic, topic, auto_commit=False)
    until("all is read", member.places, places(1, 0, 3), member)

    member.commit()
    member.leave()

    assert [(topic, 0, 3, 0)] == [one[:4] for one in Group(connect, topic).committed()]
    if "tells epochs" in client.can:
        assert 0 == client.call("group_offset", at, group=topic, topic=topic, partition=0)["epoch"]


def _owning_nothing(topic: str) -> bytes:
    """A subscription of version 1, as those who join cooperative groups send it."""
    return b"\0\1" + subscription(topic)[2:] + bytes(4)


@each_client("cooperative", "reads on")
def test_a_member_of_a_cooperative_group_reads_on_while_others_are_waited_for(
    client: Client, helper: Client, at: Endpoint, topic: str, connect: Callable[[], RawClient]
) -> None:
    """The second join of a member that gave up partitions waits for one that never comes to take them."""
    helper.create(at, topic, partitions=4)
    one = Member(client, at, topic, topic, cooperative=True)
    settled(helper, at, topic, 4, [one])
    group = Group(connect, topic)
    late = group.member()
    late.join(
        protocols=[JoinGroupRequestProtocol(name=STICKY, metadata=_owning_nothing(topic))],
        session_timeout_ms=LATE_MS,
        rebalance_timeout_ms=LATE_MS,
    )
    late.send_sync(protocol=STICKY)
    assert late.synced()[0] in (0, REBALANCE_IN_PROGRESS)  # it may join again before
    until("two are given up", lambda: (one.look(), len(one.revoked))[1], 2, one)
    until("it joins again", lambda: group.describe().group_state, "PreparingRebalance", one)

    write(helper, at, topic, 4, 5)

    kept = {place for place in places(4, 0, 5) if place[0] not in one.revoked}
    until("what it kept is read", one.places, kept, one)
    assert "PreparingRebalance" == group.describe().group_state
    assert 0 == late.leave()
    until("all is read", one.places, places(4, 0, 5), one)
    assert 20 == len(one.read), "nothing is read twice"
    one.leave()
