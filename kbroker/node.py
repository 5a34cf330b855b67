"""`Node`: one broker. Builds every object, says who hears of a change in what order, starts and stops them.

The only place that knows all rooms. It owns no loop and no process: `cli/process.py` and the embedded broker do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing
from math import inf
from typing import Any
from uuid import UUID

from kbroker.cluster.adoption import adopted_topics
from kbroker.cluster.commands import (
    AdoptTopics,
    AllocateProducerIds,
    Command,
    EpochFloor,
    RegisterBroker,
)
from kbroker.cluster.local import LocalLog
from kbroker.cluster.state import Change
from kbroker.config import ResourceType, Settings
from kbroker.config.addresses import per_ip
from kbroker.errors import StartError
from kbroker.groups.coordinator import GroupCoordinator
from kbroker.model import Endpoint, TopicPartition
from kbroker.net.buffers import OWN_LIMIT_MIN, Budget, Buffers
from kbroker.observe import logs
from kbroker.replication.cleaner import Cleaner
from kbroker.replication.replicas import Replicas
from kbroker.replication.upkeep import Upkeep
from kbroker.seams import Clock, Disk, Net, Random, Threads
from kbroker.server.apis import APIS
from kbroker.server.aside import Aside
from kbroker.server.dispatch import Dispatcher
from kbroker.server.endpoints import Endpoints
from kbroker.server.listener import Connections, Limits
from kbroker.server.producer_ids import ProducerIds
from kbroker.server.progress import Progress
from kbroker.server.quotas import Quotas, Windows
from kbroker.server.refusals import Refusals
from kbroker.server.rooms import Rooms, breathe
from kbroker.server.sessions import FetchSessions
from kbroker.server.topic_answers import TopicAnswers
from kbroker.storage.directory import LogDirectory, Opened
from kbroker.turn import Turn

log = logs.get_logger("node")

CLUSTER_FOLDER = "cluster"  # in the log directory: the cluster log's journal and snapshots
# Ids of producers left free above those seen in a log directory of Apache Kafka: others may have written elsewhere in
# its cluster, and an id given out twice makes records pass for repeated ones. There are 2^63.
PRODUCER_IDS_SKIPPED = 1_000_000
# Connections get this long to take the answers that are on their way when the broker stops.
GOODBYE_SECONDS = 0.2
# What has been appended gets this long to be flushed and answered; a disk that hangs must not keep us for ever.
STOP_FLUSH_SECONDS = 10.0
# The start waits so long for groups to be read; what takes longer is read while others are served.
GROUPS_READ_SECONDS = 1.0
LOOK_SECONDS = 0.002  # between two looks at what is being waited for


class Node:
    """A broker with its parts. `start`, then serve until `stop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        net: Net,
        turn: Turn,
        clock: Clock,
        threads: Threads,
        disk: Disk,
        random: Random,
        request_bytes_max: int = OWN_LIMIT_MIN,  # where `queued.max.request.bytes` leaves it to us
        sockets_max: int | None = None,  # connections that the process's descriptors allow
        compact_in_process: bool = False,  # logs are compacted by processes of their own, not by threads of this one
    ) -> None:
        self.settings = settings
        self._turn = turn
        self._clock = clock
        self._threads = threads
        self._disk = disk
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = Endpoints(settings, net=net, clock=clock)
        self.directory = LogDirectory(
            settings.log_dir,
            disk=disk,
            clock=clock,
            turn=turn,
            threads=threads,
            random=random,
            fsync=settings.kbroker_fsync_before_ack,
        )
        budget = settings.queued_max_request_bytes
        self.connections = Connections(
            Limits(
                connections_max=settings.max_connections,
                per_ip_max=settings.max_connections_per_ip,
                per_ip_overrides=per_ip(settings.max_connections_per_ip_overrides),
                frame_size_max=settings.socket_request_max_bytes,
                idle_seconds=settings.connections_max_idle_ms * 0.001,
                sockets_max=sockets_max,
            ),
            net=net,
            turn=turn,
            threads=threads,
            buffers=Buffers(Budget(request_bytes_max if budget <= 0 else budget)),
            clock=clock,
        )
        self.quotas = Quotas(
            clock,
            windows=Windows(settings.quota_window_num, settings.quota_window_size_seconds),
            mutation_windows=Windows(
                settings.controller_quota_window_num, settings.controller_quota_window_size_seconds
            ),
        )
        self._directory_id: UUID
        self.cluster: LocalLog
        self.partitions: Replicas
        self.groups: GroupCoordinator
        self.rooms: Rooms
        self._upkeep: Upkeep
        self._cleaner: Cleaner
        self._compact_in_process = compact_in_process

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens, with real ports; known after `start`."""
        return self._listening.bound

    async def start(self) -> None:
        """Bind, open the disk, recover, register, serve. StartError says what to do where that cannot be."""
        self._listening.bind()
        try:
            stored = await self._open_disk()
            await self._join(stored)
        except BaseException:
            self._listening.close()
            if hasattr(self, "groups"):
                self.groups.stop()
            if self.directory.unchecked:
                self._let_go_of_disk()
            else:
                self._close_disk()
            raise
        self._serve()

    # -- parts of a start

    async def _open_disk(self) -> dict[TopicPartition, UUID]:
        """Open the log directory and the cluster's log in it; the partitions that have a folder."""
        path = self.settings.log_dir
        try:
            opened = await self._take_directory()
            self._open_cluster_log(opened)
        except OSError as error:
            raise StartError(
                f"the data directory {path} cannot be used ({error.strerror or error}): make it and "
                "let this user write to it, or name another (--data-dir)"
            ) from error
        return opened.partitions

    async def _take_directory(self) -> Opened:
        """In slices: there may be ten thousands of folders to look into, and a signal must be heard."""
        self._make_parents(self.settings.log_dir)
        with closing(self.directory.open_in_slices(self.settings.node_id, None)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    opened: Opened = end.value
                    break
                await breathe()
        for tp in sorted(opened.lost):
            log.error(
                "partition lost: a checkpoint names it, its folder is gone",
                partition=str(tp),
                cure="stop, put the folder back and start again, or go on without its records",
            )
        return opened

    def _open_cluster_log(self, opened: Opened) -> None:
        settings = self.settings
        folder = f"{settings.log_dir}/{CLUSTER_FOLDER}"
        if not self._disk.exists(folder):
            self._disk.mkdir(folder)
            self._disk.sync_dir(settings.log_dir)
        self._directory_id = opened.identity.directory_id
        self.cluster = LocalLog(
            folder,
            node_id=settings.node_id,
            disk=self._disk,
            threads=self._threads,
            new_cluster_id=lambda: opened.identity.cluster_id,
            fsync=settings.kbroker_fsync_before_ack,
        )

    def _make_parents(self, path: str) -> None:
        missing = []
        while not self._disk.exists(path := path.rpartition("/")[0] or "/"):
            missing.append(path)
        for folder in reversed(missing):
            self._disk.mkdir(folder)
            self._disk.sync_dir(folder.rpartition("/")[0] or "/")

    async def _join(self, stored: dict[TopicPartition, UUID]) -> None:
        """With the disk open: recover what lies on it, join the cluster, lead what is led here."""
        settings = self.settings
        self.partitions = Replicas(
            settings.node_id,
            self.cluster.state,
            settings=settings,
            directory=self.directory,
            turn=self._turn,
            clock=self._clock,
        )
        self.groups = GroupCoordinator(
            settings=settings,
            state=self.cluster.state,
            partitions=self.partitions,
            turn=self._turn,
            clock=self._clock,
            threads=self._threads,
            random=self._random,
        )
        self.cluster.on_change(self._changed)
        adopted = await self._adopt(stored)
        self._take_dynamic_configs()
        await self._open_partitions(stored)
        if adopted:
            await self._skip_producer_ids()
        # What was recovered is on the disk before anybody reads it, so that no watermark goes back.
        await self._flushed(inf)
        await self._register()
        self.groups.start()
        await self._groups_read()

    async def _adopt(self, stored: dict[TopicPartition, UUID]) -> bool:
        """A log directory that comes without our cluster state (Apache Kafka wrote it): its topics become ours.

        Until a broker has registered no start has come to its end: one that was cut short is done again, or the next
        would take every folder for a deleted topic's.
        """
        if self.cluster.state.brokers or not stored:
            return False
        topics = adopted_topics(stored, self.directory.noted_epoch, path=self.settings.log_dir)
        await self.propose(AdoptTopics(self.settings.node_id, topics))
        log.warning(
            "log directory of Apache Kafka adopted without its topics' configs: nothing is deleted by age or size",
            directory=self.settings.log_dir,
            topics=len(topics),
            cure="set retention.ms, retention.bytes and what else the topics had anew (kafka-configs.sh --alter)",
        )
        return True

    async def _skip_producer_ids(self) -> None:
        """Give out no producer id that an adopted log knows."""
        seen = max((max(each.log.producers.producers, default=0) for each in self.partitions), default=0)
        await self.propose(AllocateProducerIds(self.settings.node_id, seen + PRODUCER_IDS_SKIPPED))

    def _take_dynamic_configs(self) -> None:
        for (kind, name), values in self.cluster.state.configs.items():
            if kind == ResourceType.BROKER:
                self.settings.apply_dynamic(name, values)
        self._follow_settings()
        self._follow_quotas()

    async def _open_partitions(self, stored: dict[TopicPartition, UUID]) -> None:
        """Recover what is stored; what a deletion left is removed, a folder of no topic that the cluster knew put aside.

        In slices, so that a start that takes long says how far it is, and can be ended.
        """
        topics = self.cluster.state.topics
        progress = Progress(self._clock, self.settings.log_dir, len(stored))
        for number, (tp, topic_id) in enumerate(stored.items()):
            topic = topics.get(tp.topic)
            if topic is not None and topic.id == topic_id and tp.partition < len(topic.partitions):
                await progress.at(number)
                for size in self.partitions.opening(tp.topic, tp.partition):
                    await progress.at(number, size)
                opened = self.partitions.get(tp.topic, tp.partition)
                if opened is not None:
                    _ = opened.log.epochs  # read now, in slices: the registration asks all of them
            elif topic_id in self.cluster.state.deleted:
                log.info("folder of a deleted topic removed", partition=str(tp))
                self.directory.delete(tp)
            else:
                self.directory.put_aside(tp, "no topic of the cluster has its id")

    async def _register(self) -> None:
        """Join the cluster: everything led here gets a new leader epoch, above any that its log holds."""
        settings = self.settings
        floors = [
            EpochFloor(partition.topic_id, partition.tp.partition, partition.log.epochs.last + 1)
            for partition in self.partitions
            if partition.log.epochs.last >= partition.leader_epoch
        ]
        told = {endpoint.listener: endpoint.port for endpoint in self.endpoints}
        await self.propose(
            RegisterBroker(
                settings.node_id,
                directory=self._directory_id,
                incarnation=UUID(int=self._random.getrandbits(128)),
                endpoints=[
                    Endpoint(at.listener, at.host, at.port or told[at.listener], at.protocol)
                    for at in settings.advertised_listeners
                ],
                rack=settings.broker_rack,
                floors=floors,
            )
        )

    async def _groups_read(self) -> None:
        """So that no member of a small group meets a coordinator that is still loading: not every client asks again."""
        await self._until(lambda: not self.groups.loading, GROUPS_READ_SECONDS)

    def _serve(self) -> None:
        """What looks after the logs begins, and clients come in."""
        settings = self.settings
        self.rooms = Rooms(
            node_id=settings.node_id,
            settings=settings,
            cluster=self.cluster,
            partitions=self.partitions,
            groups=self.groups,
            directory=self.directory,
            clock=self._clock,
            random=self._random,
            sessions=FetchSessions(
                settings.max_incremental_fetch_session_cache_slots, clock=self._clock, random=self._random
            ),
            producer_ids=ProducerIds(settings.node_id),
            quotas=self.quotas,
            topic_answers=TopicAnswers(),
            refusals=Refusals(self._clock),
            turn=self._turn,
            aside=Aside(self._threads),
            propose=self.propose,
        )
        self._upkeep = Upkeep(self.partitions, self.directory, settings=settings, clock=self._clock)
        self._upkeep.start()
        self._cleaner = Cleaner(
            self.partitions,
            self.directory,
            settings=settings,
            clock=self._clock,
            threads=self._threads,
            in_process=self._compact_in_process,
        )
        self._cleaner.start()
        dispatcher = Dispatcher(self.rooms, APIS, start_task=self._start_task)
        self._listening.serve(self.connections, dispatcher)

    # -- while it serves

    def _changed(self, change: Change) -> None:
        """Who hears of a change of the cluster state, in this order: settings first, they are what the others read."""
        for kind, name in change.configs_changed:
            if kind == ResourceType.BROKER:
                self.settings.apply_dynamic(name, self.cluster.state.config(kind, name))
                self._follow_settings()
        if change.quotas_changed:
            self._follow_quotas()
        self.partitions.apply(change)
        self.groups.apply(change)

    def _follow_quotas(self) -> None:
        self.quotas.load(self.cluster.state.quotas)
        self.connections.hold_of = self.quotas.connected if self.quotas.for_addresses else None
        self.connections.leave_lanes()

    def _follow_settings(self) -> None:
        """What was built with values of dynamic options gets those of now."""
        settings, limits = self.settings, self.connections.limits
        limits.connections_max = settings.max_connections
        limits.per_ip_max = settings.max_connections_per_ip
        limits.per_ip_overrides = per_ip(settings.max_connections_per_ip_overrides)
        self.directory.producer_expiration_ms = settings.producer_id_expiration_ms
        if hasattr(self, "_cleaner"):
            self._cleaner.follow_settings()
        self._listening.reload_tls()

    async def propose(self, command: Command) -> Any:
        """A command to the cluster's log: its result once it is durable and applied. KafkaError where it is refused."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.cluster.propose(command, done)
        return await future

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    # -- stop

    async def stop(self) -> None:
        """Serve no more; everything is flushed and marked clean. What is being answered may leave first."""
        self._listening.close()
        self._upkeep.stop()
        self._cleaner.stop()
        if len(self.connections) and any(True for _ in self._tasks):
            await asyncio.wait(set(self._tasks), timeout=GOODBYE_SECONDS)
        await self._answer_what_is_written()
        self.groups.stop()
        self._turn.run()
        self.connections.close_all()
        self.partitions.stop()
        for task in list(self._tasks):
            task.cancel()
        await self._saved()
        self._close_disk()

    async def _answer_what_is_written(self) -> None:
        """Let everything appended so far become durable and its answers leave.

        A producer that got no answer must send again; one that got an error for records that are in the log would take
        them for lost. What is still open after that ends without an answer.
        """
        self.connections.pause_all()
        await self._flushed(STOP_FLUSH_SECONDS)

    async def _flushed(self, seconds_max: float) -> None:
        """Everything appended so far is on the disk, or the directory has failed, or the time is over."""

        def flushed() -> bool:
            self._turn.run()  # what was appended is with the flusher after it, and what was flushed is told
            return self.directory.flusher.idle

        await self._until(flushed, seconds_max)

    async def _saved(self) -> None:
        """What a clean stop leaves on the disk is there, but for the marks of one."""
        directory = self.directory
        # a checkpoint may be being written; a flush that is not over by now will not be
        await self._until(lambda: directory.idle or not directory.flusher.idle, inf)
        saved = asyncio.Event()
        directory.save(saved.set)
        await saved.wait()

    async def _until(self, there: Callable[[], bool], seconds_max: float) -> None:
        """Wait until `there()`, or the time is over. It looks now and then, as that is wanted at a start and at a stop
        only: whoever would have to call back ends in many ways, and one that was forgotten would stop us for ever."""
        deadline = self._clock.monotonic() + seconds_max
        while not there() and self._clock.monotonic() < deadline:
            paused = asyncio.Event()
            self._clock.call_at(self._clock.monotonic() + LOOK_SECONDS, paused.set)
            await paused.wait()

    def abandon(self) -> None:
        """As if the process were killed: sockets close, nothing is flushed or marked. For tests of what survives."""
        self._listening.close()
        self._upkeep.stop()
        self._cleaner.stop()
        self.connections.close_all()
        self.groups.stop()
        for task in list(self._tasks):
            task.cancel()
        self._let_go_of_disk()

    def _let_go_of_disk(self) -> None:
        """As if the process were killed now."""
        if hasattr(self, "cluster"):
            self.cluster.close()  # its file only: what was proposed and not written is refused
        self.directory.abandon()

    def _close_disk(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.close()
        self.directory.close()
