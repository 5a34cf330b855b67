"""Every Kafka message that kbroker speaks, declared once; one file per family, same names as `server/handlers`.

`REQUESTS` and `RESPONSES` find a class by api key and import its family then: a broker starts without most of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from kbroker.protocol.wire import Message

# api key: (family, name of the API)
APIS: dict[int, tuple[str, str]] = {
    0: ("produce", "Produce"),
    1: ("fetch", "Fetch"),
    2: ("list_offsets", "ListOffsets"),
    3: ("metadata", "Metadata"),
    8: ("offsets", "OffsetCommit"),
    9: ("offsets", "OffsetFetch"),
    10: ("groups", "FindCoordinator"),
    11: ("groups", "JoinGroup"),
    12: ("groups", "Heartbeat"),
    13: ("groups", "LeaveGroup"),
    14: ("groups", "SyncGroup"),
    15: ("groups", "DescribeGroups"),
    16: ("groups", "ListGroups"),
    17: ("security", "SaslHandshake"),
    18: ("api_versions", "ApiVersions"),
    19: ("topics", "CreateTopics"),
    20: ("topics", "DeleteTopics"),
    21: ("topics", "DeleteRecords"),
    22: ("producers", "InitProducerId"),
    23: ("list_offsets", "OffsetForLeaderEpoch"),
    29: ("security", "DescribeAcls"),
    30: ("security", "CreateAcls"),
    31: ("security", "DeleteAcls"),
    32: ("configs", "DescribeConfigs"),
    33: ("configs", "AlterConfigs"),
    35: ("cluster", "DescribeLogDirs"),
    36: ("security", "SaslAuthenticate"),
    37: ("topics", "CreatePartitions"),
    42: ("groups", "DeleteGroups"),
    43: ("cluster", "ElectLeaders"),
    44: ("configs", "IncrementalAlterConfigs"),
    45: ("cluster", "AlterPartitionReassignments"),
    46: ("cluster", "ListPartitionReassignments"),
    47: ("offsets", "OffsetDelete"),
    48: ("quotas", "DescribeClientQuotas"),
    49: ("quotas", "AlterClientQuotas"),
    50: ("security", "DescribeUserScramCredentials"),
    51: ("security", "AlterUserScramCredentials"),
    55: ("cluster", "DescribeQuorum"),
    57: ("cluster", "UpdateFeatures"),
    60: ("cluster", "DescribeCluster"),
    64: ("cluster", "UnregisterBroker"),
    68: ("consumer_groups", "ConsumerGroupHeartbeat"),
    69: ("consumer_groups", "ConsumerGroupDescribe"),
    74: ("configs", "ListConfigResources"),
    75: ("metadata", "DescribeTopicPartitions"),
}


class _Classes(Mapping[int, type[Message]]):
    """Classes by api key, imported when first asked for."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._known: dict[int, type[Message]] = {}

    def __getitem__(self, key: int) -> type[Message]:
        known = self._known.get(key)
        if known is None:
            family, name = APIS[key]
            known = getattr(import_module(f"{__name__}.{family}"), name + self._suffix)
            self._known[key] = known
        return known

    def __contains__(self, key: object) -> bool:
        return key in APIS

    def __iter__(self) -> Iterator[int]:
        return iter(APIS)

    def __len__(self) -> int:
        return len(APIS)


REQUESTS: Mapping[int, type[Message]] = _Classes("Request")
RESPONSES: Mapping[int, type[Message]] = _Classes("Response")
