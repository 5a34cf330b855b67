"""A group coordinator on a disk in memory, driven by hand: commits, restarts, crashes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from kbroker.cluster.commands import (
    CreateTopics,
    DeleteTopics,
    EpochFloor,
    FormCluster,
    NewTopic,
    RegisterBroker,
)
from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.cluster.state import ClusterState
from kbroker.config import Settings
from kbroker.errors import ErrorCode
from kbroker.groups.coordinator import GroupCoordinator
from kbroker.groups.events import Commit, ForgetOffsets, Join, Joined, Listed, Offset, Protocol, Sync, Synced
from kbroker.model import BrokerId
from kbroker.protocol.records import Record, decode_records, split_batches
from kbroker.replication.replicas import Replicas
from kbroker.seams import Disk
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import Broker, ManualClock, region_bytes

NODE = BrokerId(0)
NO_ID = bytes(16)


class GroupHouse:
    """One life of a coordinator; `again` is the next on the same disk."""

    def __init__(
        self,
        disk: Disk | None = None,
        path: str = "/data",
        *,
        state: ClusterState | None = None,
        clock: ManualClock | None = None,
        partitions: int = 1,
        settings: Mapping[str, str] | None = None,
        topic: Mapping[str, str] | None = None,
        fsync: bool = True,
        start: bool = True,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.given = dict(settings or {})
        self.settings = Settings.load(
            {"log.dirs": path, "group.initial.rebalance.delay.ms": "0", **self.given}
        )
        self.fsync = fsync
        self.created = 0
        self.path = path
        self.broker = Broker(self.disk, path, fsync=fsync, clock=clock)
        self.clock = self.broker.clock
        self.state = state or ClusterState()
        lives = 0 if not self.state.brokers else self.state.brokers[NODE].epoch
        self.broker.directory.random = random.Random(lives)  # no start may make the names of another
        self.broker.directory.open(NODE, "cluster")
        self.partitions = Replicas(
            NODE,
            self.state,
            settings=self.settings,
            directory=self.broker.directory,
            turn=self.broker.turn,
            clock=self.clock,
        )
        self.groups = GroupCoordinator(
            settings=self.settings,
            state=self.state,
            partitions=self.partitions,
            turn=self.broker.turn,
            clock=self.clock,
            threads=self.broker.threads,
            random=random.Random(1),
        )
        if state is None:
            self.do(FormCluster("cluster"))
            self._register()
            self.create(GROUPS_TOPIC, partitions, **{"cleanup.policy": "compact", **(topic or {})})
        else:
            for name, known in self.state.topics.items():
                for index in range(len(known.partitions)):
                    self.partitions.get(name, index)
            self.settle()
            self._register()
        if start:
            self.groups.start()
            self.settle()

    def _register(self) -> None:
        floors = [
            EpochFloor(each.topic_id, each.tp.partition, each.log.epochs.last + 1) for each in self.partitions
        ]
        self.do(RegisterBroker(NODE, UUID(int=1), UUID(int=2), [], None, floors))

    def do(self, command: Any) -> Any:
        """Apply a command, and let everybody hear of it."""
        result, change = self.state.apply(command)
        self.partitions.apply(change)
        self.groups.apply(change)
        return result

    def create(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        """A topic; its id."""
        self.created += 1
        topic_id = UUID(int=random.Random(f"{name}{self.created}").getrandbits(128), version=4)
        self.do(CreateTopics([NewTopic(name, topic_id, [(NODE,)] * partitions, dict(configs))]))
        return topic_id.bytes

    def delete_topic(self, name: str) -> None:
        self.do(DeleteTopics([self.state.topics[name].id]))

    def settle(self) -> None:
        """Everything that can happen at once has happened, timers that are due included."""
        for _ in range(1000):
            self.broker.settle()
            if all(when > self.clock.monotonic() for when, _ in self.clock.timers):
                return
            self.clock.advance(0)
        raise AssertionError("it never settles")

    def again(self, *, crash: str | None = None, start: bool = True, **settings: str) -> GroupHouse:
        """The next life: after a clean stop, or after the power went (`crash`: what the disk keeps)."""
        if crash is None:
            self.groups.stop()
            self.settle()
            self.broker.directory.close()
        else:
            assert isinstance(self.disk, MemoryDisk)
            self.disk.crash(crash)
        self.clock.timers.clear()
        return GroupHouse(
            self.disk,
            self.path,
            state=ClusterState.restore(self.state.snapshot()),
            clock=self.clock,
            settings={**self.given, **settings},
            fsync=self.fsync,
            start=start,
        )

    # -- asking

    def offset(self, value: int, **fields: Any) -> Offset:
        """An offset as OffsetCommit makes it."""
        given = {
            "leader_epoch": -1,
            "metadata": "",
            "commit_ms": self.clock.now_ms,
            "expire_ms": -1,
            "topic_id": NO_ID,
        }
        return Offset(offset=value, **(given | fields))

    def commit(
        self,
        group: str,
        offsets: Mapping[tuple[str, int], int | Offset],
        *,
        generation: int = -1,
        member: str = "",
        settle: bool = True,
    ) -> list[ErrorCode]:
        """Commit; the list that the answer comes into."""
        answers: list[ErrorCode] = []
        self.groups.commit(
            group,
            Commit(
                lambda answer: answers.append(answer.error),
                generation,
                member,
                None,
                tuple(
                    (topic, partition, value if isinstance(value, Offset) else self.offset(value))
                    for (topic, partition), value in offsets.items()
                ),
            ),
        )
        if settle:
            self.settle()
        return answers

    def listed(self) -> tuple[ErrorCode, list[Listed]]:
        """All groups."""
        error, groups = self.groups.list()
        return error, list(groups)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """All offsets of a group."""
        found = self.groups.fetch(group, None)
        assert not found.error, found.error
        return {where: offset.offset for where, offset in found.offsets.items()}

    def forget(self, group: str, *where: tuple[str, int]) -> list[Any]:
        answers: list[Any] = []
        self.groups.forget(group, ForgetOffsets(answers.append, where))
        self.settle()
        return answers

    def delete(self, *groups: str) -> dict[str, ErrorCode]:
        answers: list[dict[str, ErrorCode]] = []
        self.groups.delete(list(groups), answers.append)
        self.settle()
        [answer] = answers
        return answer

    def join(self, group: str, member: str = "", **fields: Any) -> list[Joined]:
        """JoinGroup by a consumer that reads `topics`."""
        answers: list[Joined] = []
        topics: Iterable[str] = fields.pop("topics", ())
        given = {
            "instance_id": None,
            "client_id": "c",
            "client_host": "/127.0.0.1",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 60_000,
            "protocol_type": "consumer",
            "protocols": (Protocol("range", subscription(*topics)),),
            "needs_member_id": False,
            "may_skip_assignment": False,
        }
        self.groups.handle(group, Join(to=answers.append, member_id=member, **(given | fields)))
        self.settle()
        return answers

    def sync(self, group: str, joined: Joined, assignment: bytes = b"") -> list[Synced]:
        answers: list[Synced] = []
        self.groups.handle(
            group,
            Sync(
                answers.append,
                joined.generation,
                joined.member_id,
                None,
                None,
                None,
                ((joined.member_id, assignment),),
            ),
        )
        self.settle()
        return answers

    def stable(self, group: str, *topics: str, assignment: bytes = b"mine") -> Joined:
        """A group of one member, Stable."""
        [joined] = self.join(group, topics=topics)
        [synced] = self.sync(group, joined, assignment)
        assert not synced.error, synced
        return joined

    def log_of(self, group: str) -> list[Record]:
        """What the partition of a group holds."""
        partition = self.partitions.get(GROUPS_TOPIC, self.groups.partition_of(group))
        assert partition is not None
        found: list[Record] = []
        offset = partition.log.start
        while (region := partition.log.read(offset, up_to=partition.log.end, max_bytes=1 << 20)) is not None:
            for batch in split_batches(memoryview(region_bytes(region))):
                found += decode_records(batch)
                offset = batch.next_offset
        return found


def subscription(*topics: str) -> bytes:
    """ConsumerProtocolSubscription, version 0."""
    names = b"".join(len(name).to_bytes(2, "big") + name.encode() for name in topics)
    return b"\0\0" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff"
