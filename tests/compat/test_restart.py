"""The broker restarts under a working client."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller

import pytest

from tests.compat.application import Looker
from tests.compat.driver import Client, Record
from tests.compat.scenario import each_client, eventually
from tests.support.peers import Peer

GIVE_UP_MS = 150_000  # Kafka takes its time to stop and to start
PRODUCE = 0


@each_client("idempotent", "restart")
def test_a_producer_goes_on_after_a_restart_and_nothing_is_lost_or_doubled(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    records = [Record(value=f"{number}".encode()) for number in range(100)]

    producing = client.begin_produce(
        peer.plain, topic, records, idempotent=True, tiny=True, pause_ms=50, give_up_ms=GIVE_UP_MS
    )
    # not by the helper, which may take as long to look as the producer to write all of it
    eventually(lambda: bool(Looker(peer).values(topic)), True)
    assert not producing.done()
    peer.restart()

    producing.result(GIVE_UP_MS / 1000 + 10)
    read = helper.consume(peer.plain, topic, "earliest", 100)
    assert [record.value for record in records] == [record.value for record in read]
    assert 100 == helper.offset(peer.plain, topic, "latest")


@pytest.mark.parametrize("end", [methodcaller("stop"), methodcaller("kill")], ids=["stop", "kill"])
@each_client("idempotent", "restart")
def test_an_end_at_the_first_produce_is_no_fatal_error(
    client: Client, end: Callable[[Peer], None], helper: Client, peer: Peer, topic: str
) -> None:
    """Requests are in flight, some written and not answered: the retries must neither double nor be out of order."""
    helper.create(peer.plain, topic)
    records = [Record(value=f"{number}".encode()) for number in range(200)]
    mark = peer.proxy.mark()

    producing = client.begin_produce(
        peer.recorded, topic, records, idempotent=True, tiny=True, give_up_ms=GIVE_UP_MS
    )
    peer.proxy.wait_for(lambda request: request.api_key == PRODUCE, mark=mark, limit=60)
    end(peer)
    peer.start()

    producing.result(GIVE_UP_MS / 1000 + 10)
    read = helper.consume(peer.plain, topic, "earliest", 200)
    assert [record.value for record in records] == [record.value for record in read]
    assert 200 == helper.offset(peer.plain, topic, "latest")


@each_client("consume", "restart")
def test_what_was_written_before_a_restart_is_read_after_it(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic)
    helper.produce(peer.plain, topic, [Record(value=b"kept")] * 50)
    peer.restart()

    assert 50 == len(client.consume(peer.plain, topic, "earliest", 50))
