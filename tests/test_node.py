"""A node: the order of a start, what it finds on the disk, what it does when it cannot, what a stop leaves behind."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from kbroker.cluster.commands import (
    AdoptTopics,
    AllocateProducerIds,
    AlterConfigs,
    ConfigChange,
    CreateTopics,
    DeleteTopics,
    NewTopic,
    RegisterBroker,
)
from kbroker.config import ResourceType, Settings
from kbroker.config.alter import SET, ConfigOp
from kbroker.errors import ErrorCode, StartError
from kbroker.groups.coordinator import GroupCoordinator
from kbroker.model import TopicPartition
from kbroker.net.buffers import OWN_LIMIT_MIN
from kbroker.net.loop import LoopClock
from kbroker.node import Node
from kbroker.replication.partition import COMMITTED
from kbroker.server.endpoints import Endpoints
from kbroker.storage.checkpoints import partition_metadata
from kbroker.turn import Turn
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import Broker, batch, config, region_bytes

TOPIC_ID = UUID(int=0x77)
MARKER = "/data/.kafka_cleanshutdown"


class NoNet:
    """Sockets are bound, and nobody comes."""

    def __init__(self) -> None:
        self.listening: list[Any] = []
        self.steps: list[str] = []

    def accept(self, sock: Any, on_socket: Callable[[Any, Any], None]) -> None:
        self.steps.append("accept")
        self.listening.append(sock)

    def forget(self, sock: Any) -> None:
        self.listening.remove(sock)


class SoonThreads:
    """Work is done in the loop, one piece a turn of it."""

    def __init__(self) -> None:
        self.hang = False  # what is asked for from now on never ends

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        if not self.hang:
            asyncio.get_running_loop().call_soon(self._do, work, done)

    def _do(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        try:
            result = work()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)


class Life:
    """A node on a disk in memory, from start to stop, abandon or crash."""

    def __init__(self, disk: MemoryDisk, **values: str) -> None:
        self.net, self.turn, self.threads = NoNet(), Turn(), SoonThreads()
        loop = asyncio.get_running_loop()
        self.turn.wake = lambda: loop.call_soon(self.turn.run)
        options = {"listeners": "PLAINTEXT://127.0.0.1:0", "node.id": "1", "log.dirs": "/data"}
        named = {name.replace("_", "."): value for name, value in values.items()}
        self.node = Node(
            Settings.load(options | named),
            net=self.net,
            turn=self.turn,
            clock=LoopClock(loop),
            threads=self.threads,
            disk=disk,
            random=random.Random(disk.operations),
        )

    async def start(self) -> Node:
        await asyncio.wait_for(self.node.start(), 60)
        return self.node

    async def stop(self) -> None:
        await asyncio.wait_for(self.node.stop(), 60)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
async def lives(disk: MemoryDisk):
    """Start nodes on the disk; what still runs is abandoned at the end."""
    made: list[Life] = []

    def life(**values: str) -> Life:
        made.append(Life(disk, **values))
        return made[-1]

    yield life
    for each in made:
        if each.net.listening:
            each.node.abandon()


async def create(node: Node, name: str, *, topic_id: UUID = TOPIC_ID, partitions: int = 1) -> None:
    await node.propose(CreateTopics([NewTopic(name, topic_id, [(1,)] * partitions)]))


def send(node: Node, name: str, value: bytes, answers: list[ErrorCode] | None = None, index: int = 0) -> None:
    partition = node.partitions.get(name, index)
    assert partition is not None
    appended = partition.append(memoryview(bytearray(batch(value).view)), COMMITTED)
    partition.when(appended, COMMITTED, 10_000, (answers if answers is not None else []).append)


async def produce(node: Node, name: str, value: bytes, index: int = 0) -> None:
    """Send and wait until it is durable."""
    answers: list[ErrorCode] = []
    send(node, name, value, answers, index)
    for _ in range(1000):
        if answers:
            break
        await asyncio.sleep(0)
    assert [ErrorCode.NONE] == answers


def data(node: Node, name: str, index: int = 0) -> bytes:
    partition = node.partitions.get(name, index)
    assert partition is not None
    region = partition.read(partition.log.start, 1 << 20, at_least_one=True)
    return b"" if region is None else region_bytes(region)


def foreign(disk: MemoryDisk, *folders: tuple[str, int, UUID], epoch: int = 4) -> None:
    """A log directory that came without our cluster state, stopped cleanly."""
    broker = Broker(disk)
    broker.directory.open(1, "MkU3OEVBNTcwNTJENDM2Qg")
    for name, index, topic_id in folders:
        log = broker.directory.log(TopicPartition(name, index), topic_id, config())
        log.append(batch(f"{name} {index}".encode()), epoch)
    broker.settle()
    broker.directory.close()


def port_is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def noting(steps: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, noting that it was called."""

    def call(*args: Any) -> Any:
        steps.append(name)
        return real(*args)

    return call


# -- starting


async def test_a_start_opens_adopts_recovers_and_registers_before_it_serves(lives, disk, monkeypatch):
    foreign(disk, ("orders", 0, TOPIC_ID))
    life = lives()
    steps = life.net.steps
    propose = Node.propose

    async def noted(self: Node, command: Any) -> Any:
        steps.append(type(command).__name__)
        return await propose(self, command)

    monkeypatch.setattr(Node, "propose", noted)
    for owner, name in ((Endpoints, "bind"), (Node, "_open_disk"), (Node, "_open_partitions")):
        monkeypatch.setattr(owner, name, noting(steps, name, getattr(owner, name)))
    await life.start()

    assert [
        "bind", "_open_disk", AdoptTopics.__name__, "_open_partitions", RegisterBroker.__name__, "accept",
    ] == [step for step in steps if step != AllocateProducerIds.__name__]  # fmt: skip


async def test_the_first_start_makes_its_folders_and_a_cluster(lives, disk):
    node = await lives(log_dirs="/some/where/deep").start()

    assert 22 == len(node.cluster.state.cluster_id)
    assert {"cluster", "meta.properties", ".lock"} <= set(disk.list("/some/where/deep"))


async def test_the_port_it_got_is_the_one_it_tells_where_the_configured_one_is_0(lives):
    node = await lives().start()
    [endpoint] = node.endpoints

    assert endpoint.port > 0
    assert [("PLAINTEXT", "127.0.0.1", endpoint.port)] == [
        (at.listener, at.host, at.port) for at in node.cluster.state.brokers[1].endpoints
    ]


async def test_connections_have_the_socket_buffers_that_were_asked_for(lives):
    life = lives(socket_send_buffer_bytes="65536", socket_receive_buffer_bytes="32768")
    await life.start()
    [listening] = life.net.listening

    with socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            sizes = [
                accepted.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)
            ]

    # Linux doubles what it is asked for, and tells that
    assert sizes in ([65536, 32768], [2 * 65536, 2 * 32768])


async def test_an_advertised_port_is_told_as_it_is_configured(lives):
    node = await lives(advertised_listeners="PLAINTEXT://broker.example:19092").start()

    [told] = node.cluster.state.brokers[1].endpoints
    assert ("broker.example", 19092) == (told.host, told.port)


async def test_topics_records_and_identity_survive_a_stop_and_a_start(lives):
    first = lives()
    node = await first.start()
    await create(node, "orders", partitions=2)
    await produce(node, "orders", b"kept", 1)
    cluster_id, directory_id = node.cluster.state.cluster_id, node.cluster.state.brokers[1].directory
    await first.stop()

    node = await lives().start()
    assert b"kept" in data(node, "orders", 1)
    assert (cluster_id, directory_id) == (
        node.cluster.state.cluster_id,
        node.cluster.state.brokers[1].directory,
    )


@pytest.mark.parametrize("end", ["stop", "abandon"])
async def test_every_start_raises_the_leader_epochs_above_anything_in_the_logs(lives, end):
    epochs = []
    for number in range(3):
        life = lives()
        node = await life.start()
        if not number:
            await create(node, "orders")
        partition = node.partitions.get("orders", 0)
        assert partition.leader_epoch > partition.log.epochs.last
        epochs.append(partition.leader_epoch)
        await produce(node, "orders", b"%d" % number)
        if end == "stop":
            await life.stop()
        else:
            node.abandon()

    assert epochs == sorted(set(epochs))


async def test_an_epoch_that_a_log_knows_and_the_cluster_state_does_not_is_passed_too(lives):
    """The state may be older than the logs: a folder put back from a copy, a state that was lost and adopted anew."""
    first = lives()
    node = await first.start()
    await create(node, "orders")
    node.partitions.get("orders", 0).lead(1, 40, (1,), 1)
    await produce(node, "orders", b"a")
    await first.stop()

    node = await lives().start()
    assert 41 == node.partitions.get("orders", 0).leader_epoch
    await produce(node, "orders", b"b")


@pytest.mark.parametrize("value, limit", [("-1", OWN_LIMIT_MIN), ("0", OWN_LIMIT_MIN), ("5000", 5000)])
async def test_memory_for_requests_always_has_a_limit(disk, value, limit):
    node = Life(disk, queued_max_request_bytes=value).node

    assert limit == node.connections._buffers.budget.limit


async def test_dynamic_configurations_hold_from_the_start_on(lives):
    first = lives()
    node = await first.start()
    change = ConfigChange(ResourceType.BROKER, "1", [ConfigOp("max.connections", SET, "7")])
    await node.propose(AlterConfigs([change]))
    assert 7 == node.connections.limits.connections_max
    await first.stop()

    assert 7 == (await lives().start()).connections.limits.connections_max


# -- what lies in the log directory


async def test_a_log_directory_that_comes_without_cluster_state_is_adopted(lives, disk):
    other = UUID(int=0x78)
    foreign(disk, ("orders", 0, TOPIC_ID), ("orders", 2, TOPIC_ID), ("other", 0, other))
    node = await lives().start()

    state = node.cluster.state
    assert "MkU3OEVBNTcwNTJENDM2Qg" == state.cluster_id
    assert {"orders": (TOPIC_ID, 3), "other": (other, 1)} == {
        name: (topic.id, len(topic.partitions)) for name, topic in state.topics.items()
    }
    assert b"orders 2" in data(node, "orders", 2)
    assert 5 <= node.partitions.get("orders", 0).leader_epoch  # 4 is in its log
    await produce(node, "orders", b"new")


async def test_an_adoption_that_a_crash_cut_short_is_done_at_the_next_start(disk, lives):
    """Whatever was durable by then, no folder is taken for a deleted topic's."""
    foreign(disk, ("orders", 0, TOPIC_ID))
    first = lives()

    async def cut(command: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    first.node.propose = cut
    with pytest.raises(OSError, match="no space"):
        await first.start()

    node = await lives().start()
    assert b"orders 0" in data(node, "orders")


async def test_an_adoption_without_its_registration_is_not_made_twice(disk, lives):
    foreign(disk, ("orders", 0, TOPIC_ID))
    first = lives()

    async def cut() -> None:
        raise OSError("cut")

    first.node._register = cut
    with pytest.raises(OSError, match="cut"):
        await first.start()

    node = await lives().start()
    assert (["orders"], TOPIC_ID) == (list(node.cluster.state.topics), node.cluster.state.topics["orders"].id)
    assert b"orders 0" in data(node, "orders")


@pytest.mark.parametrize("moved", [0, 1])
@pytest.mark.parametrize(
    "folders",
    [
        (("orders", 0, TOPIC_ID), ("orders", 1, UUID(int=0x79))),
        (("orders", 0, TOPIC_ID), ("orders-copy", 0, TOPIC_ID)),
    ],
)
async def test_folders_whose_names_and_ids_do_not_go_together_stay_until_one_is_moved(
    disk, lives, folders, moved
):
    foreign(disk, *folders)
    names = [f"{name}-{index}" for name, index, _ in folders]
    for _ in range(2):
        with pytest.raises(StartError, match=f"{names[0]} and {names[1]}"):
            await lives().start()
    assert set(names) <= set(disk.list("/data"))

    disk.rename(f"/data/{names[moved]}", f"/{names[moved]}")
    node = await lives().start()
    name, index, topic_id = folders[1 - moved]
    assert topic_id == node.cluster.state.topics[name].id
    assert f"{name} {index}".encode() in data(node, name, index)


async def test_the_folder_of_a_deleted_topic_is_removed_at_the_start(lives, disk):
    first = lives()
    node = await first.start()
    await create(node, "orders")
    await produce(node, "orders", b"old")
    node.directory.delete = lambda tp: None  # the power goes before the folder does
    await node.propose(DeleteTopics([TOPIC_ID]))
    node.abandon()
    assert "orders-0" in disk.list("/data")

    node = await lives().start()
    assert "orders-0" not in disk.list("/data")
    await create(node, "orders", topic_id=UUID(int=0x80))
    await produce(node, "orders", b"new")
    assert b"old" not in data(node, "orders")


async def test_a_folder_that_somebody_copied_under_a_topics_name_is_put_aside_at_the_start(lives, disk):
    first = lives()
    node = await first.start()
    await create(node, "orders")
    await produce(node, "orders", b"kept")
    await first.stop()
    disk.rename("/data/orders-0", "/data/copy-0")
    foreign_id = UUID(int=0x99)
    disk.open("/data/copy-0/partition.metadata").truncate(0)
    disk.open("/data/copy-0/partition.metadata").append([partition_metadata(foreign_id)])

    second = lives()
    await second.start()
    await second.stop()
    assert "copy-0" not in disk.list("/data")
    [name] = [name for name in disk.list("/data") if name.startswith("copy-0.") and name.endswith("-stray")]
    assert b"kept" in disk.read(f"/data/{name}/00000000000000000000.log")


# -- starts that fail


async def test_a_log_directory_in_use_ends_the_start_and_frees_its_port(lives):
    await lives().start()
    second = lives()
    with pytest.raises(StartError, match="is in use by another process"):
        await second.start()

    assert port_is_free(second.node.endpoints[0].port)


async def test_the_directory_of_another_node_ends_the_start_and_is_let_go(lives, disk):
    first = lives()
    await first.start()
    await first.stop()
    with pytest.raises(StartError, match="belongs to node 1"):
        await lives(node_id="2").start()

    assert {} == disk.locks
    await lives().start()


async def test_a_port_in_use_ends_the_start_before_the_disk_is_touched(lives, disk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listeners = f"A://127.0.0.1:0,B://127.0.0.1:{port}"
        life = lives(
            listeners=listeners,
            advertised_listeners=listeners.replace(":0", ":1234"),
            listener_security_protocol_map="A:PLAINTEXT,B:PLAINTEXT",
            inter_broker_listener_name="A",
        )
        with pytest.raises(StartError, match=str(port)):
            await life.start()

    assert 0 == disk.operations


@pytest.mark.parametrize(
    "step", ["_adopt", "_take_dynamic_configs", "_open_partitions", "_register", "_groups_read"]
)
async def test_a_start_that_fails_half_way_closes_what_it_opened(lives, disk, step):
    life = lives()

    def fail(*args: Any) -> None:
        raise RuntimeError("half-way")

    setattr(life.node, step, fail)
    with pytest.raises(RuntimeError, match="half-way"):
        await life.start()

    assert port_is_free(life.node.endpoints[0].port)
    assert {} == disk.locks
    assert [] == life.net.listening
    await lives().start()


async def test_what_was_recovered_is_on_the_disk_before_anybody_registers(lives, disk, monkeypatch):
    first = lives()
    node = await first.start()
    await create(node, "orders")
    send(node, "orders", b"written")
    first.turn.run()
    node.abandon()
    disk.crash("all")
    second, seen = lives(), []

    async def register() -> None:
        partition = second.node.partitions.get("orders", 0)
        seen.append((partition.log.flushed, partition.log.end))

    second.node._register = register
    await second.start()
    assert [(1, 1)] == seen


# -- starts that take long


async def unclean(lives, disk, partitions: int) -> None:
    """What a crash leaves of that many partitions with three records each."""
    first = lives()
    node = await first.start()
    await create(node, "orders", partitions=partitions)
    for index in range(partitions):
        for number in range(3):
            await produce(node, "orders", b"record %d" % number, index)
    node.abandon()
    disk.crash("all")


async def ended_ever_later(lives, disk, holds):
    """Starts that are ended, each one round of the loop later than the one before, until one has come to its end: how
    many were, and that one's node. Each has let go of everything, and `holds(node, how many before)`."""
    ended, life = 0, lives()
    while True:
        start = asyncio.ensure_future(life.node.start())
        for _ in range(ended):
            await asyncio.sleep(0)
        if start.done():
            return ended, life.node
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert holds(life.node, ended)
        assert ({}, []) == (disk.locks, life.net.listening)
        ended, life = ended + 1, lives()


async def test_a_start_may_be_ended_at_any_slice_of_a_recovery(lives, disk, monkeypatch):
    await unclean(lives, disk, 3)
    monkeypatch.setattr("kbroker.server.progress.SLICE_SECONDS", 0)
    monkeypatch.setattr("kbroker.storage.recovery.SLICE_BYTES", 1)
    monkeypatch.setattr("kbroker.storage.scan.SLICE_BYTES", 1)

    ended, node = await ended_ever_later(
        lives, disk, lambda node, before: not before or port_is_free(node.endpoints[0].port)
    )

    assert ended > 3 * 3 + 3, ended  # a record, a partition: the loop was let go on after each
    assert 3 == sum(b"record 2" in data(node, "orders", index) for index in range(3))


async def test_a_long_start_says_now_and_then_how_far_it_is(lives, disk, monkeypatch, caplog):
    await unclean(lives, disk, 2)
    caplog.set_level("INFO")
    monkeypatch.setattr("kbroker.server.progress.LINE_SECONDS", 0)

    await lives().start()

    lines = [line for line in caplog.messages if line.startswith("opening partitions")]
    assert "opening partitions path=/data done=0 of=2 mib=0" == lines[0]
    assert "opening partitions path=/data done=1 of=2 mib=0" == lines[-1]


async def test_a_start_after_a_clean_stop_that_is_ended_stays_clean(lives, disk, monkeypatch):
    first = lives()
    node = await first.start()
    await create(node, "orders", partitions=2)
    await produce(node, "orders", b"1", 1)
    await first.stop()
    monkeypatch.setattr("kbroker.server.progress.SLICE_SECONDS", 0)
    monkeypatch.setattr("kbroker.storage.directory.FOLDERS_PER_SLICE", 1)

    ended, node = await ended_ever_later(lives, disk, lambda *_: disk.exists(MARKER))

    assert ended > 2 + 2, ended  # the loop was let go on at each folder, and at each log
    assert b"1" in data(node, "orders", 1)


async def test_what_a_folder_says_of_its_topic_is_read_once(lives, disk, monkeypatch):
    first = lives()
    node = await first.start()
    await create(node, "orders", partitions=3)
    for index in range(3):
        await produce(node, "orders", b"1", index)
    await first.stop()
    read = []
    real = disk.read
    monkeypatch.setattr(disk, "read", lambda path: read.append(path.rpartition("/")[2]) or real(path))

    await lives().start()

    assert 3 == read.count("partition.metadata")
    assert [] == [
        name for name in read if name.endswith("index")
    ]  # of segments that have none: they are small


async def test_a_start_waits_for_groups_that_are_read_and_no_longer_than_it_should(lives, monkeypatch):
    asked = []

    def loading(_: GroupCoordinator) -> bool:
        asked.append(True)
        return len(asked) < 3 or endless

    monkeypatch.setattr(GroupCoordinator, "loading", property(loading))
    endless = False
    await lives(log_dirs="/one").start()
    assert 3 == len(asked)

    endless = True
    monkeypatch.setattr("kbroker.node.GROUPS_READ_SECONDS", 0.05)
    await lives(log_dirs="/other").start()


# -- ending


async def test_a_stop_answers_what_was_appended_frees_everything_and_leaves_the_mark(lives, disk):
    life = lives()
    node = await life.start()
    await create(node, "orders")
    answers: list[ErrorCode] = []
    send(node, "orders", b"last", answers)
    await life.stop()

    assert [ErrorCode.NONE] == answers
    assert disk.exists(MARKER)
    assert ({}, []) == (disk.locks, life.net.listening)
    assert port_is_free(node.endpoints[0].port)
    disk.crash("none")
    assert b"last" in data(await lives().start(), "orders")


async def test_a_stop_waits_for_the_checkpoint_that_is_being_written(lives, disk):
    life = lives()
    node = await life.start()
    await create(node, "orders")
    await produce(node, "orders", b"a")
    epoch = node.partitions.get("orders", 0).leader_epoch
    node.directory.checkpoint()
    await life.stop()

    assert disk.exists(MARKER)
    assert f"0\n1\n{epoch} 0\n".encode() == disk.read("/data/orders-0/leader-epoch-checkpoint")


async def test_a_running_node_has_no_clean_mark_and_an_abandoned_one_leaves_none(lives, disk):
    first = lives()
    await first.start()
    await first.stop()
    second = lives()
    node = await second.start()
    assert not disk.exists(MARKER)

    node.abandon()
    assert not disk.exists(MARKER)
    assert ({}, []) == (disk.locks, second.net.listening)


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
async def test_after_the_power_went_what_was_answered_is_served(lives, disk, keep):
    life = lives()
    node = await life.start()
    await create(node, "orders")
    await produce(node, "orders", b"answered")
    send(node, "orders", b"open")
    life.turn.run()  # written, not flushed
    node.abandon()
    disk.crash(keep)

    node = await lives().start()
    partition = node.partitions.get("orders", 0)
    assert b"answered" in data(node, "orders")
    assert partition.high_watermark == partition.log.flushed == partition.log.end


async def test_a_disk_that_hangs_at_the_stop_does_not_keep_it(lives, disk, monkeypatch):
    monkeypatch.setattr("kbroker.node.STOP_FLUSH_SECONDS", 0.05)
    life = lives()
    node = await life.start()
    await create(node, "orders")
    answers: list[ErrorCode] = []
    life.threads.hang = True
    send(node, "orders", b"a", answers)
    await life.stop()

    assert ErrorCode.NONE not in answers
    assert not disk.exists(MARKER)
    assert ({}, []) == (disk.locks, life.net.listening)


async def test_a_disk_that_fails_at_the_stop_leaves_no_clean_mark(lives, disk):
    life = lives()
    node = await life.start()
    await create(node, "orders")
    answers: list[ErrorCode] = []
    send(node, "orders", b"a", answers)
    disk.fail = lambda what, path: errno.EIO if what == "sync" and path.endswith(".log") else None
    await life.stop()

    assert [ErrorCode.KAFKA_STORAGE_ERROR] == answers
    assert not disk.exists(MARKER)
    assert {} == disk.locks
