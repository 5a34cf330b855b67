"""Which versions each client speaks with us: found by its own negotiation, seen by the recording proxy."""

from __future__ import annotations

from tests.compat import registry
from tests.compat.driver import Client
from tests.compat.scenario import each_client, sample
from tests.support.peers import Peer

KEYS = {"Produce": 0, "Fetch": 1, "Metadata": 3}


@each_client("recorded")
def test_a_client_negotiates_its_newest_versions(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    mark = peer.proxy.mark()

    if "produce" in client.can:
        client.produce(peer.recorded, topic, sample(client, 3))
    else:
        helper.produce(peer.plain, topic, sample(helper, 3))
    if "consume" in client.can:
        client.consume(peer.recorded, topic, "earliest", 3)

    expected = registry.CLIENTS[client.name].versions
    used = {
        name: {request.version for request in peer.proxy.since(mark) if request.api_key == KEYS[name]}
        for name in expected
    }
    assert expected == used
