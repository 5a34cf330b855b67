"""What handlers remember between requests."""

import gc
import weakref

from kbroker.protocol.messages.metadata import MetadataRequest
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.server.handlers.metadata import handle_metadata
from kbroker.server.handlers.producers import handle_init_producer_id
from kbroker.server.remembered import remembered
from tests.support.rooms import House


async def test_each_broker_of_a_process_remembers_for_itself(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = House(tmp_path / "one"), House(tmp_path / "two")

    assert remembered(one.rooms) is remembered(one.rooms)
    assert remembered(one.rooms) is not remembered(two.rooms)


async def test_nothing_is_remembered_of_a_broker_that_is_gone(tmp_path):
    """A test run starts and stops hundreds of brokers in one process."""
    house = House(tmp_path)
    house.create("t")
    await house.ask(handle_metadata, MetadataRequest(topics=None), version=9)
    await house.ask(handle_init_producer_id, InitProducerIdRequest(transactional_id=None), version=4)
    gone = weakref.ref(house.log)

    del house
    gc.collect()

    assert gone() is None
