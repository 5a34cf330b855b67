"""Where a new topic's replicas go. Pure: brokers and a starting point in, lists of brokers out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from kbroker.cluster.state import Broker
from kbroker.errors import ErrorCode, KafkaError


def place(
    brokers: Iterable[Broker], *, partitions: int, replication_factor: int, start: int, first: int = 0
) -> list[tuple[int, ...]]:
    """Replicas of each of `partitions`, numbered from `first`: brokers in turn from the `start`-th on, neighbours in
    different racks as far as there are some. INVALID_REPLICATION_FACTOR where there are too few."""
    ring = _ring(brokers)
    if not 0 < replication_factor <= len(ring):
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {replication_factor} time(s): The target replication factor of "
            f"{replication_factor} cannot be reached because only {len(ring)} broker(s) are registered."
            if replication_factor > 0
            else "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    placed = []
    for number in range(first, first + partitions):
        # after each round over all brokers the followers shift by one, so that they are not always the same
        shift = number // len(ring)
        leader = (start + number) % len(ring)
        placed.append(
            tuple(
                ring[(leader + _step(at, shift, len(ring))) % len(ring)] for at in range(replication_factor)
            )
        )
    return placed


def check_assignment(replicas: Sequence[int], brokers: Iterable[int]) -> None:
    """Raise INVALID_REPLICA_ASSIGNMENT unless a client may place one partition on these replicas."""
    why = None
    unknown = [broker for broker in replicas if broker not in set(brokers)]
    if not replicas:
        why = "The manual partition assignment includes an empty replica list."
    elif len(set(replicas)) < len(replicas):
        twice = next(broker for broker in replicas if replicas.count(broker) > 1)
        why = f"The manual partition assignment includes the broker {twice} more than once."
    elif unknown:
        why = (
            f"The manual partition assignment includes broker {unknown[0]}, but no such broker is registered."
        )
    if why is not None:
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)


def _ring(brokers: Iterable[Broker]) -> list[int]:
    """Broker ids, racks taking turns."""
    racks: dict[str | None, list[int]] = defaultdict(list)
    for broker in sorted(brokers, key=lambda broker: broker.id):
        racks[broker.rack].append(broker.id)
    queues = [racks[rack] for rack in sorted(racks, key=lambda rack: rack or "")]
    longest = max(map(len, queues), default=0)
    return [queue[at] for at in range(longest) for queue in queues if at < len(queue)]


def _step(at: int, shift: int, count: int) -> int:
    """How far behind the leader the `at`-th replica stands in the ring: 0 for itself, never 0 for another."""
    return 0 if at == 0 else 1 + (at - 1 + shift) % (count - 1)
