"""Which versions each client speaks with us: found by its own negotiation, seen by the recording proxy."""

from __future__ import annotations

from tests.compat import registry
from tests.compat.driver import Client
from tests.compat.group import Member, offsets, places, until, write
from tests.compat.scenario import each_client, sample
from tests.support.peers import Peer
from tests.support.recording_proxy import Request

KEYS = {"Produce": 0, "Fetch": 1, "Metadata": 3}
GROUP_KEYS = {
    "OffsetCommit": 8,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "LeaveGroup": 13,
    "SyncGroup": 14,
}


def asked(peer: Peer, mark: int, client_id: str) -> list[Request]:
    """What a client asked since the mark; another may still be about its end."""
    return [request for request in peer.proxy.since(mark) if request.client_id == client_id]


@each_client("recorded")
def test_a_client_negotiates_its_newest_versions(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    mark = peer.proxy.mark()

    if "produce" in client.can:
        client.produce(peer.recorded, topic, sample(client, 3), client_id=topic)
    else:
        helper.produce(peer.plain, topic, sample(helper, 3))
    if "consume" in client.can:
        client.consume(peer.recorded, topic, "earliest", 3, client_id=topic)

    expected = registry.CLIENTS[client.name].versions
    used = {
        name: {request.version for request in asked(peer, mark, topic) if request.api_key == KEYS[name]}
        for name in expected
    }
    assert expected == used


@each_client("groups")
def test_a_member_negotiates_its_newest_versions(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    write(helper, peer.plain, topic, 1, 3)
    mark = peer.proxy.mark()

    member = Member(client, peer.recorded, topic, topic)
    until("all is read", member.places, places(1, 0, 3), member)
    until("it is committed", lambda: offsets(helper, peer.plain, topic, topic, 1), [3], member)
    peer.proxy.wait_for(
        lambda request: (request.api_key, request.client_id) == (GROUP_KEYS["Heartbeat"], member.name),
        mark=mark,
        limit=60,
    )
    member.leave()

    used = {
        name: {request.version for request in asked(peer, mark, member.name) if request.api_key == key}
        for name, key in GROUP_KEYS.items()
    }
    assert registry.CLIENTS[client.name].group_versions == used
