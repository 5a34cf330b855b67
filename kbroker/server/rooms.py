"""What a handler may reach: `Rooms`, the broker's parts, and `Call`, the facts of one request. No methods of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kbroker.cluster.log import ReplicatedLog
    from kbroker.config import Settings
    from kbroker.model import BrokerId
    from kbroker.replication.replicas import Replicas
    from kbroker.seams import Clock, Random
    from kbroker.storage.directory import LogDirectory


@dataclass(frozen=True, slots=True)
class Rooms:
    """The broker's parts, as handlers see them."""

    node_id: BrokerId
    settings: Settings
    cluster: ReplicatedLog
    partitions: Replicas
    directory: LogDirectory
    clock: Clock
    random: Random
    propose: Callable[[Any], Awaitable[Any]]  # a command to the cluster's log; its result once it is durable and applied


class Call:
    """One request's facts beside its body."""

    __slots__ = ("arrival", "client_id", "listener", "peer", "principal", "version")

    def __init__(
        self, *, version: int, client_id: str | None, listener: str, principal: str, peer: str, arrival: float
    ) -> None:
        self.version = version
        self.client_id = client_id
        self.listener = listener  # name of the listener it came in by: answers advertise addresses of the same
        self.principal = principal  # "User:ANONYMOUS" until the listener authenticates
        self.peer = peer  # address as text, for log lines
        self.arrival = arrival  # monotonic seconds
