"""The table of APIs: what is advertised, what is served, who answers. A handler is imported when it is first asked for.

Knows names of handlers only, so that a start costs what is used. ApiVersions, the tests of each version and the docs
derive from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from kbroker.net.slots import Slot
    from kbroker.protocol.wire import Message
    from kbroker.server.lanes import Lane
    from kbroker.server.rooms import Call, NoResponse, Rooms

    Response = Message | Slot | NoResponse
    Handler = Callable[[Rooms, Call, Any], Response | Coroutine[Any, Any, Response]]
    LaneOf = Callable[[Rooms, int, Any, memoryview, int, int], Lane | None]

T = TypeVar("T")
Versions = tuple[int, int]  # first and last

API_VERSIONS = 18


class Api(NamedTuple):
    """A row of the table. Functions may stand as "module.function" below this package, until somebody asks."""

    handler: Handler | str
    advertised: Versions
    served: Versions
    lane_of: LaneOf | str | None = None  # opens a straight path for requests like this one

    def load(self) -> tuple[Handler, LaneOf | None]:
        """What `handler` and `lane_of` name."""
        return _function(self.handler), None if self.lane_of is None else _function(self.lane_of)


def _function(named: T | str) -> T:
    if not isinstance(named, str):
        return named
    module, _, name = named.rpartition(".")
    return cast(T, getattr(importlib.import_module(f"kbroker.server.{module}"), name))


def _api(handler: str, first: int, last: int) -> Api:
    return Api(handler, (first, last), (first, last))


# Kafka 4.3's ranges, known without importing the messages (a test holds them against the declarations).
APIS: dict[int, Api] = {
    # Kafka 4 advertises Produce from 0 and closes on 0-2: librdkafka before 2.11.1 turns compression off otherwise
    # (KAFKA-18659)
    0: Api("handlers.produce.handle_produce", advertised=(0, 13), served=(3, 13), lane_of="lanes.lane_of"),
    1: _api("handlers.fetch.handle_fetch", 4, 18),
    2: _api("handlers.list_offsets.handle_list_offsets", 1, 11),
    3: _api("handlers.metadata.handle_metadata", 0, 13),
    8: _api("handlers.offsets.handle_offset_commit", 2, 10),
    9: _api("handlers.offset_fetch.handle_offset_fetch", 1, 10),
    10: _api("handlers.coordinators.handle_find_coordinator", 0, 6),
    11: _api("handlers.groups.handle_join_group", 0, 9),
    12: _api("handlers.groups.handle_heartbeat", 0, 4),
    13: _api("handlers.groups.handle_leave_group", 0, 5),
    14: _api("handlers.groups.handle_sync_group", 0, 5),
    15: _api("handlers.group_views.handle_describe_groups", 0, 6),
    16: _api("handlers.group_views.handle_list_groups", 0, 5),
    API_VERSIONS: _api("handlers.api_versions.handle_api_versions", 0, 4),
    19: _api("handlers.topics.handle_create_topics", 2, 7),
    20: _api("handlers.topics.handle_delete_topics", 1, 6),
    21: _api("handlers.delete_records.handle_delete_records", 0, 2),
    22: _api(
        "handlers.producers.handle_init_producer_id", 0, 5
    ),  # 6 is two-phase commit, unstable in Kafka too
    23: _api("handlers.leader_epochs.handle_offset_for_leader_epoch", 2, 4),
    29: _api("handlers.acls.handle_describe_acls", 1, 3),
    30: _api("handlers.acls.handle_create_acls", 1, 3),
    31: _api("handlers.acls.handle_delete_acls", 1, 3),
    32: _api("handlers.configs.handle_describe_configs", 1, 4),
    33: _api("handlers.configs.handle_alter_configs", 0, 2),
    35: _api("handlers.cluster.handle_describe_log_dirs", 1, 5),
    37: _api("handlers.topics.handle_create_partitions", 0, 3),
    42: _api("handlers.group_views.handle_delete_groups", 0, 2),
    43: _api("handlers.elections.handle_elect_leaders", 0, 2),
    44: _api("handlers.configs.handle_incremental_alter_configs", 0, 1),
    46: _api("handlers.elections.handle_list_partition_reassignments", 0, 0),
    47: _api("handlers.offsets.handle_offset_delete", 0, 0),
    48: _api("handlers.quotas.handle_describe_client_quotas", 0, 1),
    49: _api("handlers.quotas.handle_alter_client_quotas", 0, 1),
    50: _api("handlers.security.handle_describe_user_scram_credentials", 0, 0),
    55: _api("handlers.elections.handle_describe_quorum", 0, 2),
    57: _api("handlers.features.handle_update_features", 0, 2),
    60: _api("handlers.metadata.handle_describe_cluster", 0, 2),
    68: _api("handlers.consumer_groups.handle_consumer_group_heartbeat", 0, 1),
    69: _api("handlers.consumer_groups.handle_consumer_group_describe", 0, 1),
    74: _api("handlers.configs.handle_list_config_resources", 0, 1),
    75: _api("handlers.topic_partitions.handle_describe_topic_partitions", 0, 0),
}


def advertised(apis: Mapping[int, Api]) -> dict[int, Versions]:
    """What ApiVersions answers: ranges by key."""
    return {key: api.advertised for key, api in apis.items()}
