"""Members that come back under their own name, members that die, and a broker that ends beneath them."""

from __future__ import annotations

from pathlib import Path

from tests.compat import registry
from tests.compat.conftest import _Clients
from tests.compat.driver import Client
from tests.compat.group import SHORT_SESSION_MS, Member, offsets, places, settled, until, write
from tests.compat.scenario import each_client
from tests.support.peers import Endpoint, Peer

JOIN_GROUP = 11
FENCED_INSTANCE_ID = 82


@each_client("static members")
def test_a_static_member_comes_back_without_a_rebalance(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    at = peer.recorded
    helper.create(at, topic, partitions=4)
    other = Member(client, at, topic, topic, instance_id="other")
    settled(helper, at, topic, 4, [other])
    first = Member(client, at, topic, topic, instance_id="comes-back")
    settled(helper, at, topic, 4, [other, first])
    write(helper, at, topic, 4, 5)
    until("all is read", lambda: first.places() | other.places(), places(4, 0, 5), first, other)
    until("it is committed", lambda: offsets(helper, peer.plain, topic, topic, 4), [5] * 4, first, other)
    mark = peer.proxy.mark()

    first.leave()
    again = Member(client, at, topic, topic, instance_id="comes-back")
    write(helper, at, topic, 4, 5)
    until(
        "all is read",
        lambda: again.places() | other.places(),
        places(4, 5, 10) | set(other.read),
        again,
        other,
    )

    joined = [request.client_id for request in peer.proxy.since(mark) if request.api_key == JOIN_GROUP]
    assert {again.name} == set(joined)
    # the group knows it by the client id that it joined with
    settled(helper, at, topic, 4, [other, first])
    again.leave()
    other.leave()


@each_client("fenced")
def test_of_two_static_members_with_one_name_the_older_is_fenced(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=2)
    older = Member(client, at, topic, topic, instance_id="same")
    settled(helper, at, topic, 2, [older])

    newer = Member(client, at, topic, topic, instance_id="same")
    until(
        "the older is fenced",
        lambda: (older.look() and None) or (older.error and older.error.code),
        FENCED_INSTANCE_ID,
    )
    write(helper, at, topic, 2, 5)
    until("all is read", newer.places, places(2, 0, 5), newer)
    newer.leave()


def test_what_a_dead_member_read_goes_to_those_left(
    clients: _Clients, helper: Client, at: Endpoint, topic: str, tmp_path: Path
) -> None:
    """Of every client at once: the session timeout is waited for only once."""
    stay, dying = {}, {}
    for client in clients.installed("groups"):
        name = f"{topic}-{client}"
        helper.create(at, name, partitions=4)
        stay[name] = Member(client, at, name, name)
        dying[name] = Member(
            registry.start(client.name, tmp_path), at, name, name, session_ms=SHORT_SESSION_MS
        )
    for name, member in stay.items():
        settled(helper, at, name, 4, [member, dying[name]])

    for member in dying.values():
        member.die()

    for name, member in stay.items():
        settled(helper, at, name, 4, [member])
        write(helper, at, name, 4, 5)
    for member in stay.values():
        until("all is read", member.places, places(4, 0, 5), member)
        member.leave()
    for member in dying.values():
        member.client.close()
