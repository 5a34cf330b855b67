"""The embedded broker: a real kbroker in a thread of its own, for tests and notebooks.

    with Broker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)

Same code as `kbroker start`, set for tests: loopback, a free port, a temporary folder, no fsync, no rebalance delay.
Its thread and its loop are its own, so it works in sync and in async tests alike, and a stuck test does not stop it.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from kbroker.cluster.names import INTERNAL_TOPICS
from kbroker.config import Settings
from kbroker.net.loop import LoopClock, new_loop
from kbroker.net.threads import LoopThreads
from kbroker.node import Node
from kbroker.observe import logs
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from kbroker.protocol.records import Record, decode_records, split_batches
from kbroker.server.handlers.topics import create_topics, delete_topics
from kbroker.server.rooms import Call
from kbroker.storage.disk import RealDisk
from kbroker.testing.text import config_text, raise_if_refused
from kbroker.turn import Turn

T = TypeVar("T")

log = logs.get_logger("testing")

# Every call into the broker's thread ends within this time, or raises: a test must fail, not hang.
CALL_SECONDS_MAX = 30.0
READ_BYTES = 1 << 20

# What a test wants otherwise than a production broker. `config` may say otherwise again.
TEST_CONFIG = {
    "listeners": "PLAINTEXT://127.0.0.1:0",
    "kbroker.fsync.before.ack": "false",
    "group.initial.rebalance.delay.ms": "0",
    "log.segment.delete.delay.ms": "0",
}


class Broker:
    """A broker in this process. Use it with `with` or `async with`, or call `start` and `stop`.

    `config` holds options by Kafka's names, dots or underscores: Broker({"num.partitions": 3}) or
    Broker(num_partitions=3). `data_dir` keeps the data of one Broker for the next; without it they go with the broker.
    `port` is where it listens on 127.0.0.1; 0: any free one.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        data_dir: str | Path | None = None,
        port: int = 0,
        **options: Any,
    ) -> None:
        given = {**(config or {}), **options}
        named = {name.replace("_", "."): config_text(value) for name, value in given.items()}
        for name in ("log.dirs", "log.dir"):
            if name in named:
                raise ValueError(f"{name}: say where the data are with data_dir={named[name]!r}")
        if port:
            if "listeners" in named:
                raise ValueError(f"port={port} is for a broker without listeners: set the port there")
            named["listeners"] = f"PLAINTEXT://127.0.0.1:{port}"
        self._given = frozenset(named)
        self._config = {**TEST_CONFIG, **named}
        self._own_dir = data_dir is None
        self._dir = None if data_dir is None else Path(data_dir).absolute()
        self._forget_dir: weakref.finalize[..., Any] | None = None
        self._port = 0  # once known, a restart takes the same again
        self._running: _Running | None = None

    # -- life

    def start(self) -> Self:
        """Start and return when it serves. Raises StartError as `kbroker start` would say it."""
        if self._running is not None:
            return self
        if self._dir is None:
            self._dir = self._make_dir()
        try:
            settings = Settings.load({**self._config, **self._same_port(), "log.dirs": str(self._dir)})
            self._tell_ignored(settings)
            running = _Running(settings)
        except BaseException:
            self._remove_dir()
            raise
        self._running = running
        self._port = running.node.endpoints[0].port
        return self

    def stop(self) -> None:
        """Stop cleanly and remove the data, if they are the broker's own. Idempotent."""
        try:
            self._end(killed=False)
        finally:
            self._port = 0
            self._remove_dir()

    def restart(self) -> None:
        """Stop cleanly and start again: same port, same data. A broker that was killed comes back, as by `start`."""
        self._end(killed=False)
        self.start()

    def kill(self) -> None:
        """End as if the process were killed: connections drop, nothing is marked clean.

        What was written stays, as it does in the page cache of a machine that runs on. `start` (or `restart`) brings
        the broker back on the same port; it recovers its logs first.
        """
        self._end(killed=True)

    def _tell_ignored(self, settings: Settings) -> None:
        ignored = [words for words in settings.ignored if words.split()[0] in self._given]
        if ignored:
            log.warning("options without effect here", options=", ".join(ignored))

    def _end(self, *, killed: bool) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.end(killed=killed)

    def _make_dir(self) -> Path:
        # where $TMPDIR says, not /dev/shm: without fsync that saves a millisecond a start, and containers have 64 MB there
        made = tempfile.mkdtemp(prefix="kbroker-")
        # also when nobody calls `stop`; not in a forked child, whose copy of this object goes first
        self._forget_dir = weakref.finalize(self, _remove, made, os.getpid())
        return Path(made)

    def _remove_dir(self) -> None:
        if self._own_dir and self._forget_dir is not None:
            self._forget_dir()
            self._dir = self._forget_dir = None

    def _same_port(self) -> dict[str, str]:
        listeners = self._config["listeners"]
        if not self._port or "," in listeners or not listeners.endswith(":0"):
            return {}
        return {"listeners": f"{listeners[:-1]}{self._port}"}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Both take milliseconds and wait for a thread of ours alone, so they need nothing of the caller's loop: asyncio's,
    # trio's or another's.

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- use

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        at = self._serving().node.endpoints[0]
        return f"{at.host}:{at.port}"

    @property
    def data_dir(self) -> Path:
        """The folder with the data."""
        assert self._dir is not None, "the broker has not started"
        return self._dir

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, Any] | None = None) -> str:
        """Create a topic; its name. KafkaError where Kafka would refuse it."""
        request = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=name,
                    num_partitions=partitions,
                    replication_factor=1,
                    configs=[
                        CreatableTopicConfig(name=option, value=config_text(value))
                        for option, value in (config or {}).items()
                    ],
                )
            ],
            timeout_ms=int(CALL_SECONDS_MAX * 1000),
        )
        answer = self.call(lambda node: create_topics(node.rooms, _call(7), request))
        raise_if_refused(answer.topics[0])
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records."""
        self._delete([name])

    def topics(self) -> list[str]:
        """The names of all topics, without those that the broker made for its groups."""
        return [name for name in self._all_topics() if name not in INTERNAL_TOPICS]

    def _all_topics(self) -> list[str]:
        return self.call(lambda node: sorted(node.cluster.state.topics))

    def records(self, topic: str, partition: int | None = None) -> list[Record]:
        """Everything in a topic (or one of its partitions) that consumers may read, partition by partition."""
        return self.call(lambda node: _records(node, topic, partition))

    def reset(self) -> None:
        """Delete every topic, and with that of the groups what they have committed: between tests that share a broker."""
        self._delete(self._all_topics())

    def _delete(self, names: list[str]) -> None:
        if not names:
            return
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name) for name in names], timeout_ms=int(CALL_SECONDS_MAX * 1000)
        )
        answer = self.call(lambda node: delete_topics(node.rooms, _call(6), request))
        for result in answer.responses:
            raise_if_refused(result)

    @overload
    def call(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T: ...

    @overload
    def call(self, work: Callable[[Node], T]) -> T: ...

    def call(self, work: Callable[[Node], Any]) -> Any:
        """Run `work(node)` in the broker's thread and return what it returns (awaited, if it is a coroutine).

        For tests of what the wire does not show; the node and its parts are kbroker's inside and may change.
        """
        return self._serving().call(work)

    def _serving(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the broker is not running: start it, or use it in a with block")
        return self._running


class _Running:
    """One life of a broker: a thread, a loop, a node. Made when it serves, gone with `end`."""

    def __init__(self, settings: Settings) -> None:
        self.node: Node
        self._turn = Turn()
        self._loop, self._net = new_loop(self._turn)
        self._stopping = asyncio.Event()
        self._killed = False
        self._ready = threading.Event()  # it serves, or never will
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(settings,), name="kbroker", daemon=True)
        self._thread.start()
        served = self._ready.wait(CALL_SECONDS_MAX)
        if not served or self._failure is not None:
            self.end(killed=True)
            raise TimeoutError(f"the broker did not start within {CALL_SECONDS_MAX:.0f} s")

    def _run(self, settings: Settings) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(settings))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the start, or for the end
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, settings: Settings) -> None:
        threads = LoopThreads(self._net)
        try:
            self.node = Node(
                settings,
                net=self._net,
                turn=self._turn,
                clock=LoopClock(self._loop),
                threads=threads,
                disk=RealDisk(),
                random=random.SystemRandom(),
            )
            await self.node.start()
            self._ready.set()
            await self._stopping.wait()
            if self._killed:
                self.node.abandon()
            else:
                await self.node.stop()
        finally:
            threads.stop()

    def end(self, *, killed: bool) -> None:
        """Stop, and wait for the thread's end. Raises what ended it, if that was something else."""
        self._killed = killed
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            pass  # the loop has closed: it ended by itself, and the failure says why
        self._thread.join(CALL_SECONDS_MAX)
        if self._thread.is_alive():
            raise TimeoutError(f"the broker did not stop within {CALL_SECONDS_MAX:.0f} s")
        if self._failure is not None:
            raise self._failure

    def call(self, work: Callable[[Node], Any]) -> Any:
        """`work(node)` in the broker's thread."""

        async def inside() -> Any:
            result = work(self.node)
            return await result if isinstance(result, Coroutine) else result

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(CALL_SECONDS_MAX)


def _remove(folder: str, pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _records(node: Node, topic: str, only: int | None) -> list[Record]:
    there = node.cluster.state.topics.get(topic)
    if there is None:
        raise KeyError(f"there is no topic {topic!r}")
    found: list[Record] = []
    for index in range(len(there.partitions)) if only is None else (only,):
        partition = node.partitions.get(topic, index)
        if partition is None:
            raise KeyError(f"topic {topic!r} has no partition {index}")
        offset = partition.log.start
        while (region := partition.read(offset, READ_BYTES, at_least_one=True)) is not None:
            view = memoryview(bytearray(region.size))
            region.file.read_into(view, region.at)
            for batch in split_batches(view):
                if not batch.is_control:
                    found += [record for record in decode_records(batch) if record.offset >= offset]
                offset = batch.next_offset
    return found


def _call(version: int) -> Call:
    return Call(version, _EMBEDDED)


class _Embedded:
    """Who asks when the test does."""

    listener = "PLAINTEXT"
    principal = "User:ANONYMOUS"
    client_id: str | None = "kbroker.testing"
    ip = "127.0.0.1"


_EMBEDDED = _Embedded()
