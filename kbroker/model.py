"""The nouns everybody uses: topics, partitions, brokers, offsets, epochs. Values only; knows no other room."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import NamedTuple, NewType
from uuid import UUID

from kbroker.seams import Random

BrokerId = NewType("BrokerId", int)
Offset = NewType("Offset", int)  # position of a record in its partition; ends are exclusive
LeaderEpoch = NewType(
    "LeaderEpoch", int
)  # per partition, from 0, grows at every election; it is not the Raft term

NO_BROKER = BrokerId(-1)
NO_EPOCH = LeaderEpoch(-1)
ZERO_UUID = UUID(int=0)  # "no topic id" on the wire


class TopicPartition(NamedTuple):
    """One partition of a topic, by name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a listener is reached: its name (PLAINTEXT, SSL, INTERNAL...), host, port and security protocol."""

    listener: str
    host: str
    port: int
    protocol: str  # PLAINTEXT | SSL | SASL_PLAINTEXT | SASL_SSL


def new_uuid(random: Random) -> UUID:
    """A random id (version 4) whose text does not begin with a dash: command lines would take it for an option."""
    while True:
        value = UUID(int=random.getrandbits(128), version=4)
        if not uuid_text(value).startswith("-"):
            return value


def uuid_text(value: UUID) -> str:
    """Kafka's way to write an id: base64url without padding, 22 characters."""
    return base64.urlsafe_b64encode(value.bytes)[:22].decode()


def uuid_of(text: str) -> UUID:
    """The id written by `uuid_text`; ValueError on anything else."""
    try:
        raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r} is no base64 uuid") from error
    if len(raw) != 16:
        raise ValueError(f"{text!r} is no base64 uuid")
    return UUID(bytes=raw)
