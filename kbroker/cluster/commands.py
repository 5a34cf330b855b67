"""What can happen to the cluster's state: commands, as data. Time, ids and random choices are IN the command.

Encoded as MessagePack arrays, tag first (`encode`, `decode`); the same bytes go into the journal of one broker and into
the log of a cluster. A new field goes to the end with a default: older bytes then still decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from kbroker.config.alter import ConfigOp
from kbroker.model import Endpoint


class FormCluster(msgspec.Struct, frozen=True, array_like=True, tag="form"):
    """The first command of a cluster: gives it its id. Later ones change nothing."""

    cluster_id: str


class EpochFloor(NamedTuple):
    """A partition's leader epoch is at least `epoch`: its log holds batches of the one before."""

    topic_id: UUID
    partition: int
    epoch: int


class RegisterBroker(msgspec.Struct, frozen=True, array_like=True, tag="register"):
    """A broker has started: its addresses and its log directory. Raises the leader epoch of what it leads (nobody
    leads one epoch in two lives), to the floors found in its logs at least. Result: its broker epoch."""

    broker: int
    directory: UUID
    incarnation: UUID  # a new one for each start of a process
    endpoints: Sequence[Endpoint]
    rack: str | None = None
    floors: Sequence[EpochFloor] = ()


class NewTopic(msgspec.Struct, frozen=True, array_like=True):
    """A topic to create: replicas per partition, the preferred leader first."""

    name: str
    id: UUID
    replicas: Sequence[tuple[int, ...]]
    configs: dict[str, str] = {}


class CreateTopics(msgspec.Struct, frozen=True, array_like=True, tag="create"):
    """Result: per topic, in order, the Topic or a KafkaError (TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION)."""

    topics: Sequence[NewTopic]


class DeleteTopics(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """By id, so that a topic made again meanwhile stays. Result: per id the Topic or KafkaError UNKNOWN_TOPIC_ID."""

    topics: Sequence[UUID]


class MorePartitions(msgspec.Struct, frozen=True, array_like=True):
    """Partitions to add behind the `first` ones that the topic had when this was decided."""

    topic: UUID
    first: int
    replicas: Sequence[tuple[int, ...]]


class CreatePartitions(msgspec.Struct, frozen=True, array_like=True, tag="partitions"):
    """Result: per topic the Topic or a KafkaError (UNKNOWN_TOPIC_ID, INVALID_PARTITIONS when it has grown meanwhile)."""

    topics: Sequence[MorePartitions]


# Whose quota it is: (type, name) by type, None is the default of its kind. (("client-id", None), ("user", "anne")): each
# client id of anne that has no quota of its own.
QuotaEntity = tuple[tuple[str, str | None], ...]


class ConfigChange(msgspec.Struct, frozen=True, array_like=True):
    """Changes to one resource's configuration; `replace` forgets all it had before."""

    type: int
    name: str
    ops: Sequence[ConfigOp]
    replace: bool = False


class AlterConfigs(msgspec.Struct, frozen=True, array_like=True, tag="configs"):
    """Result: per change None or a KafkaError (UNKNOWN_TOPIC_OR_PARTITION)."""

    changes: Sequence[ConfigChange]


class QuotaChange(msgspec.Struct, frozen=True, array_like=True):
    """Quotas of one entity to set (a number) or to remove (None), by key."""

    entity: QuotaEntity
    values: dict[str, float | None]


class AlterQuotas(msgspec.Struct, frozen=True, array_like=True, tag="quotas"):
    """Result: None; removing what is not there changes nothing."""

    changes: Sequence[QuotaChange]


class AllocateProducerIds(msgspec.Struct, frozen=True, array_like=True, tag="producer-ids"):
    """A block of producer ids for a broker. Result: the first of `count`."""

    broker: int
    count: int


class RaiseEpochs(msgspec.Struct, frozen=True, array_like=True, tag="epochs"):
    """Leader epochs rise to the floors named, never fall. Result: None."""

    floors: Sequence[EpochFloor]


class AdoptedTopic(msgspec.Struct, frozen=True, array_like=True):
    """A topic found on a disk: the leader epoch with which each of its partitions goes on."""

    name: str
    id: UUID
    epochs: list[int]
    configs: dict[str, str] = {}


class AdoptTopics(msgspec.Struct, frozen=True, array_like=True, tag="adopt"):
    """Topics of a log directory that came without this state, all led by `broker`. Result: as CreateTopics."""

    broker: int
    topics: Sequence[AdoptedTopic]


Command = (
    FormCluster
    | RegisterBroker
    | CreateTopics
    | DeleteTopics
    | CreatePartitions
    | AlterConfigs
    | AlterQuotas
    | AllocateProducerIds
    | RaiseEpochs
    | AdoptTopics
)

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode(command: Command) -> bytes:
    """A command's bytes."""
    return _encoder.encode(command)


def decode(data: bytes | memoryview) -> Command:
    """The command of `encode`; msgspec.ValidationError or DecodeError on other bytes."""
    return _decoder.decode(data)
