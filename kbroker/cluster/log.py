"""`ReplicatedLog`: the interface behind which the cluster's state changes. Knows no journal, no network, no Raft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kbroker.cluster.commands import Command
from kbroker.cluster.state import Change, ClusterState
from kbroker.model import BrokerId

Done = Callable[[Any, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Where the log stands, for metrics and DescribeQuorum."""

    index: int  # last entry applied
    term: int
    pending: int  # commands proposed and not applied yet
    journal_bytes: int
    snapshot_index: int
    failed: str | None  # why nothing is taken any more


class ReplicatedLog(Protocol):
    """Commands in, one order for all brokers, `ClusterState` out."""

    @property
    def state(self) -> ClusterState: ...

    @property
    def leader(self) -> BrokerId:
        """The broker that puts commands in order; NO_BROKER while there is none."""

    @property
    def status(self) -> LogStatus: ...

    def propose(self, command: Command, done: Done) -> None:
        """`done(result, None)` on the loop once the command is durable and applied; else `done(None, error)`,
        a KafkaError (what became of the command is then unknown if the error is REQUEST_TIMED_OUT)."""

    def barrier(self, done: Done) -> None:
        """`done(None, None)` once everything proposed before, by anybody, is applied here."""

    def on_change(self, call: Callable[[Change], None]) -> None:
        """Call `call` after each command that moved something, before that command's `done`; in order of asking."""
