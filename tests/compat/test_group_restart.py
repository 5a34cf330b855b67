"""The broker ends beneath the groups of every client at once: they go on, with what they committed.

All clients together, because a broker's end and start is what takes the time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import methodcaller

import pytest

from tests.compat.conftest import _Clients
from tests.compat.driver import Client
from tests.compat.group import Member, Place, offsets, places, settled, until, write
from tests.support.peers import Peer

JOIN_GROUP = 11
PARTITIONS = 2
# These join anew when they lose a connection, or when they begin again with what they knew at first.
JOIN_AGAIN = {"sarama", "java", "console", "franz-go", "kafkajs", "kafka-go", "kafka-python"}
# It keeps the leader epoch that it knew first, and is fenced for ever (FENCED_LEADER_EPOCH) once that has changed, by
# Apache Kafka too: in its fetches there, here when it looks for a partition's first offset.
LOST = {"platformatic"}
LIMIT_S = 90.0  # Kafka takes its time to start, clients to come back, all of them at once


@pytest.fixture
def members(clients: _Clients, helper: Client, peer: Peer, topic: str) -> dict[str, Member]:
    """A member of a group of its own for each client, which has read and committed the ten records of its topic."""
    joined = {}
    for client in clients.installed("groups"):
        if client.name in LOST:
            continue
        name = f"{topic}-{client}"
        helper.create(peer.plain, name, partitions=PARTITIONS)
        write(helper, peer.plain, name, PARTITIONS, 5)
        joined[name] = Member(client, peer.recorded, name, name, session_ms=60_000)
    for name, member in joined.items():
        until("all is read", member.places, places(PARTITIONS, 0, 5), member)
        until("it is committed", partial(offsets, helper, peer.plain, name, name, PARTITIONS), [5, 5])
    return joined


@pytest.mark.timeout(360)
@pytest.mark.parametrize("end", [methodcaller("stop"), methodcaller("kill")], ids=["stop", "kill"])
def test_members_go_on_when_the_broker_comes_back(
    end: Callable[[Peer], None], members: dict[str, Member], helper: Client, peer: Peer
) -> None:
    mark = peer.proxy.mark()

    end(peer)
    peer.start()

    for name in members:
        write(helper, peer.plain, name, PARTITIONS, 5)
    for name, member in members.items():
        until("all is read", member.places, places(PARTITIONS, 0, 10), member, limit_s=LIMIT_S)
        until("it is committed", partial(offsets, helper, peer.plain, name, name, PARTITIONS), [10, 10])
        settled(helper, peer.plain, name, PARTITIONS, [member])
    joined = {request.client_id for request in peer.proxy.since(mark) if request.api_key == JOIN_GROUP}
    assert JOIN_AGAIN >= {member.client.name for member in members.values() if member.name in joined}
    for member in members.values():
        assert 20 == len(member.read), f"{member.client}: nothing is read twice"
        member.leave()


@pytest.mark.timeout(360)
def test_a_rebalance_that_the_broker_dies_in_ends_stable(
    members: dict[str, Member], helper: Client, peer: Peer
) -> None:
    mark = peer.proxy.mark()
    with ThreadPoolExecutor(len(members)) as threads:
        joining = {
            name: threads.submit(Member, one.client, peer.recorded, name, name, session_ms=10_000)
            for name, one in members.items()
        }
        peer.proxy.wait_for(lambda request: request.api_key == JOIN_GROUP, mark=mark, limit=60)
        peer.kill()
        peer.start()
        pairs = {name: (one, joining[name].result(2 * LIMIT_S)) for name, one in members.items()}

    for name, pair in pairs.items():
        settled(helper, peer.plain, name, PARTITIONS, pair, limit_s=LIMIT_S)
        write(helper, peer.plain, name, PARTITIONS, 5)
    for one, two in pairs.values():
        until("all is read", partial(_both, one, two), places(PARTITIONS, 0, 10), one, two)
        one.leave()
        two.leave()


def _both(one: Member, two: Member) -> set[Place]:
    return one.places() | two.places()
