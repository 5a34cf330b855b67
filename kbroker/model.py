"""The nouns everybody uses: topics, partitions, brokers, offsets, epochs. Values only; knows no other room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType
from uuid import UUID

BrokerId = NewType("BrokerId", int)
Offset = NewType("Offset", int)  # position of a record in its partition; ends are exclusive
LeaderEpoch = NewType("LeaderEpoch", int)  # per partition, from 0, grows at every election; it is not the Raft term

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
