"""A group's configuration: the options of the resource GROUP. The field is the row.

They are read by groups of the new kinds (KIP-848 consumers, share and streams groups), which are not here yet: they are
kept and checked, so that what is set is there when they come. Knows the options; does not know where values come from.
"""

from __future__ import annotations

import re
from typing import Any

from kbroker.config.options import BOOLEAN, INT, STRING, Option, option, options_of

_DURATION = re.compile(
    r"[-+]?P(?=.)(?:[-+]?\d+D)?(?:T(?=.)(?:[-+]?\d+H)?(?:[-+]?\d+M)?(?:[-+]?\d+(?:[.,]\d{0,9})?S)?)?",
    re.ASCII | re.IGNORECASE,
)
_BY_DURATION = "by_duration:"


def check_offset_reset(value: str) -> str | None:
    """Why a share group's way to find its first offset is refused."""
    if value in ("earliest", "latest"):
        return None
    if value.startswith(_BY_DURATION) and _DURATION.fullmatch(value[len(_BY_DURATION) :]):
        return None
    return "The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."


def _row(name: str, *, at_least: int, doc: str) -> Any:
    """A number whose default is the broker's option of the same name behind "group."."""
    words = f"{doc} Has no effect yet: groups of the kind are to come."
    return option(name, INT, None, at_least=at_least, falls_back_to=[(f"group.{name}", 1)], doc=words)


class GroupOptions:
    """The rows, by kind of group."""

    consumer_session_timeout_ms = _row(
        "consumer.session.timeout.ms", at_least=1, doc="A member that is silent for longer is taken for dead."
    )
    consumer_heartbeat_interval_ms = _row(
        "consumer.heartbeat.interval.ms", at_least=1, doc="How often members are told to be heard of."
    )
    consumer_assignment_interval_ms = _row(
        "consumer.assignment.interval.ms", at_least=0, doc="Least time between two assignments of partitions."
    )
    share_session_timeout_ms = _row(
        "share.session.timeout.ms", at_least=1, doc="A member that is silent for longer is taken for dead."
    )
    share_heartbeat_interval_ms = _row(
        "share.heartbeat.interval.ms", at_least=1, doc="How often members are told to be heard of."
    )
    share_assignment_interval_ms = _row(
        "share.assignment.interval.ms", at_least=0, doc="Least time between two assignments of partitions."
    )
    share_record_lock_duration_ms = _row(
        "share.record.lock.duration.ms",
        at_least=1000,
        doc="How long a record is kept for the one who fetched it.",
    )
    share_delivery_count_limit = _row(
        "share.delivery.count.limit", at_least=2, doc="How often a record is handed out at most."
    )
    share_partition_max_record_locks = _row(
        "share.partition.max.record.locks",
        at_least=100,
        doc="Records of a partition that may be out at once.",
    )
    share_auto_offset_reset = option(
        "share.auto.offset.reset", STRING, "latest", check=check_offset_reset,
        doc="Where a new share group begins. Has no effect yet: groups of the kind are to come.",
    )  # fmt: skip
    share_isolation_level = option(
        "share.isolation.level", STRING, "read_uncommitted", choices=("read_committed", "read_uncommitted"),
        doc="Whether records of open and aborted transactions are handed out. Has no effect yet: groups of the kind are "
        "to come.",
    )  # fmt: skip
    share_renew_acknowledge_enable = option(
        "share.renew.acknowledge.enable", BOOLEAN, True,
        doc="Whether a member may keep a record for longer. Has no effect yet: groups of the kind are to come.",
    )  # fmt: skip
    streams_session_timeout_ms = _row(
        "streams.session.timeout.ms", at_least=1, doc="A member that is silent for longer is taken for dead."
    )
    streams_heartbeat_interval_ms = _row(
        "streams.heartbeat.interval.ms", at_least=1, doc="How often members are told to be heard of."
    )
    streams_num_standby_replicas = _row(
        "streams.num.standby.replicas", at_least=0, doc="Copies of a task's state kept warm."
    )
    streams_initial_rebalance_delay_ms = _row(
        "streams.initial.rebalance.delay.ms", at_least=0, doc="How long a new group waits for more members."
    )
    streams_assignment_interval_ms = _row(
        "streams.assignment.interval.ms", at_least=0, doc="Least time between two assignments of tasks."
    )


GROUP_OPTIONS: dict[str, Option] = options_of(GroupOptions)


def bounds_of(name: str) -> tuple[str, str]:
    """The broker options that a group's option must lie between; either may not exist."""
    kind, _, rest = name.partition(".")
    if name == "streams.num.standby.replicas":
        return "", "group.streams.max.standby.replicas"
    if name == "share.partition.max.record.locks":
        return "group.share.min.partition.max.record.locks", "group.share.max.partition.max.record.locks"
    return f"group.{kind}.min.{rest}", f"group.{kind}.max.{rest}"
