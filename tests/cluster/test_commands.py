"""Commands as bytes: what is written stays readable."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from kbroker.cluster import commands as c
from kbroker.config import ConfigOp
from kbroker.model import Endpoint

ID = UUID(int=7)
EXAMPLES = [
    c.FormCluster("MkU3OEVBNTcwNTJENDM2Qg"),
    c.RegisterBroker(
        1, ID, UUID(int=8), [Endpoint("SSL", "h", 9093, "SSL")], "rack", [c.EpochFloor(ID, 0, 4)]
    ),
    c.CreateTopics([c.NewTopic("t", ID, [(1, 2), (2, 1)], {"retention.ms": "5"})]),
    c.DeleteTopics([ID]),
    c.CreatePartitions([c.MorePartitions(ID, 1, [(1,)])]),
    c.AlterConfigs([c.ConfigChange(2, "t", [ConfigOp("cleanup.policy", 2, "compact", "delete")], True)]),
    c.AlterQuotas(
        [
            c.QuotaChange(
                (("client-id", None), ("user", "anne")),
                {"producer_byte_rate": 1000.0, "request_percentage": None},
            )
        ]
    ),
    c.AllocateProducerIds(1, 1000),
    c.RaiseEpochs([c.EpochFloor(ID, 3, 9)]),
    c.AdoptTopics(1, [c.AdoptedTopic("t", ID, [0, 5], {})]),
]


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_as_it_was(command):
    assert command == c.decode(c.encode(command))


def test_every_command_has_an_example():
    assert set(c.Command.__args__) == {type(command) for command in EXAMPLES}


def test_the_bytes_of_a_command_are_these():
    """Journals hold them: another form needs another version of the journal."""
    assert bytes.fromhex("93 ac 70726f64756365722d696473 01 cd03e8") == c.encode(
        c.AllocateProducerIds(1, 1000)
    )
    assert b"\x92\xa6delete\x91\xc4\x10" + ID.bytes == c.encode(c.DeleteTopics([ID]))


def test_fields_that_older_bytes_do_not_have_get_their_defaults():
    older = msgspec.msgpack.encode(["register", 1, ID.bytes, ID.bytes, []])

    assert c.RegisterBroker(1, ID, ID, []) == c.decode(older)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", msgspec.msgpack.encode(["unheard-of", 1]), b"\x92\xa6delete\x01"]
)
def test_other_bytes_are_refused(data):
    with pytest.raises(msgspec.MsgspecError):
        c.decode(data)
