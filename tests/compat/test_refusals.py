"""What is not here yet: clients that ask for it are told so by name, soon, and do not ask for ever."""

from __future__ import annotations

import pytest

from tests.compat.driver import Client, ClientFailed
from tests.compat.group import Member, until
from tests.compat.scenario import each_client
from tests.support.peers import Peer

UNSUPPORTED_VERSION, TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 35, 53
FIND_COORDINATOR, INIT_PRODUCER_ID, CONSUMER_GROUP_HEARTBEAT = 10, 22, 68
PATIENCE_MS = 600_000  # far beyond what a test waits for: who fails was told to, and did not run out of time
FEW = 8  # requests: one for each try of the most patient client


@each_client("new groups")
def test_a_member_by_the_new_protocol_fails_at_once(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    mark = peer.proxy.mark()

    member = Member(client, peer.recorded, topic, topic, protocol="consumer")
    until("it fails", member.failed, True)

    assert UNSUPPORTED_VERSION == (member.error and member.error.code)
    asked = [request for request in peer.proxy.since(mark) if request.api_key == CONSUMER_GROUP_HEARTBEAT]
    assert 1 == len(asked)


@each_client("transactions")
def test_a_transactional_producer_fails_at_once(
    client: Client, peer: Peer, peer_kind: str, topic: str
) -> None:
    mark = peer.proxy.mark()

    def begin() -> None:
        client.call(
            "begin_transaction",
            peer.recorded,
            client_id=topic,
            transactional_id=topic,
            give_up_ms=PATIENCE_MS,
        )

    if peer_kind == "kafka":  # it has transactions
        begin()
        return
    with pytest.raises(ClientFailed) as refused:
        begin()

    assert TRANSACTIONAL_ID_AUTHORIZATION_FAILED == refused.value.code, str(refused.value)
    asked = [
        request
        for request in peer.proxy.since(mark)
        if request.client_id == topic and request.api_key in (FIND_COORDINATOR, INIT_PRODUCER_ID)
    ]
    assert 1 <= len(asked) <= FEW
