"""The embedded broker: a real kbroker in a thread of its own, for tests and notebooks.

    with Broker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)

Same code as `kbroker start`, set for tests: loopback, a free port, a temporary folder, no fsync, no rebalance delay.
Its thread and its loop are its own, so it works in sync and in async tests alike, and a stuck test does not stop it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kbroker.config import Settings
from kbroker.errors import KafkaError
from kbroker.net.loop import LoopClock, LoopThreads, new_loop
from kbroker.node import Node
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from kbroker.protocol.records import Record, decode_records, split_batches
from kbroker.server.handlers.topics import handle_create_topics, handle_delete_topics
from kbroker.server.rooms import Call
from kbroker.storage.disk import RealDisk
from kbroker.turn import Turn

T = TypeVar("T")

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
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        data_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        given = {**(config or {}), **{name.replace("_", "."): value for name, value in options.items()}}
        self._config = {**TEST_CONFIG, **{name: _text(value) for name, value in given.items()}}
        self._own_dir = data_dir is None
        self._dir = None if data_dir is None else Path(data_dir)
        self._port = 0  # once known, a restart takes the same again
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._killed = False
        self.node: Node  # the broker's parts; touch them by `call` only, they belong to its thread

    # -- life

    def start(self) -> Self:
        """Start and return when it serves. Raises StartError as `kbroker start` would say it."""
        if self._thread is not None:
            return self
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="kbroker-"))
        settings = Settings.load({**self._config, **self._same_port(), "log.dirs": str(self._dir)})
        ready = threading.Event()
        failure: list[BaseException] = []
        self._killed = False
        self._thread = threading.Thread(
            target=self._run, args=(settings, ready, failure), name="kbroker", daemon=True
        )
        self._thread.start()
        if not ready.wait(CALL_SECONDS_MAX):
            raise TimeoutError(f"the broker did not start within {CALL_SECONDS_MAX:.0f} s")
        if failure:
            self._thread.join()
            self._thread = None
            raise failure[0]
        self._port = self.node.endpoints[0].port
        return self

    def stop(self) -> None:
        """Stop cleanly and remove the data, if they are the broker's own. Idempotent."""
        self._end(killed=False)
        if self._own_dir and self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def restart(self) -> None:
        """Stop cleanly and start again: same port, same data."""
        self._end(killed=False)
        self.start()

    def kill(self) -> None:
        """End as if the process were killed: connections drop, nothing is flushed. `start` brings it back."""
        self._end(killed=True)

    def _end(self, *, killed: bool) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._killed = killed
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(CALL_SECONDS_MAX)
        if thread.is_alive():
            raise TimeoutError(f"the broker did not stop within {CALL_SECONDS_MAX:.0f} s")

    def _same_port(self) -> dict[str, str]:
        listeners = self._config["listeners"]
        if not self._port or "," in listeners or not listeners.endswith(":0"):
            return {}
        return {"listeners": f"{listeners[:-1]}{self._port}"}

    def _run(self, settings: Settings, ready: threading.Event, failure: list[BaseException]) -> None:
        turn = Turn()
        loop, net = new_loop(turn)
        self._loop = loop

        async def serve() -> None:
            threads = LoopThreads(loop)
            self.node = Node(
                settings,
                net=net,
                turn=turn,
                clock=LoopClock(loop),
                threads=threads,
                disk=RealDisk(),
                random=random.SystemRandom(),
            )
            self._stopping = asyncio.Event()
            await self.node.start()
            ready.set()
            await self._stopping.wait()
            if self._killed:
                self.node.abandon()
            else:
                await self.node.stop()
            threads.stop()

        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits in `start`
            failure.append(error)
        finally:
            ready.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.get_running_loop().run_in_executor(None, self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.stop)

    # -- use

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        at = self.node.endpoints[0]
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
                        CreatableTopicConfig(name=option, value=_text(value))
                        for option, value in (config or {}).items()
                    ],
                )
            ],
            timeout_ms=int(CALL_SECONDS_MAX * 1000),
        )
        answer = self.call(lambda node: handle_create_topics(node.rooms, _call(7), request))
        _raise_if_refused(answer.topics[0])
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records."""
        self._delete([name])

    def topics(self) -> list[str]:
        """The names of all topics."""
        return self.call(lambda node: sorted(node.cluster.state.topics))

    def records(self, topic: str, partition: int | None = None) -> list[Record]:
        """Everything in a topic (or one of its partitions) that consumers may read, partition by partition."""
        return self.call(lambda node: _records(node, topic, partition))

    def reset(self) -> None:
        """Delete every topic: between tests that share a broker."""
        self._delete(self.topics())

    def _delete(self, names: list[str]) -> None:
        if not names:
            return
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name) for name in names], timeout_ms=int(CALL_SECONDS_MAX * 1000)
        )
        answer = self.call(lambda node: handle_delete_topics(node.rooms, _call(6), request))
        for result in answer.responses:
            _raise_if_refused(result)

    def call(self, work: Callable[[Node], T | Awaitable[T]]) -> T:
        """Run `work(node)` in the broker's thread and return what it returns (awaited, if it is awaitable)."""

        async def inside() -> T:
            result = work(self.node)
            return await result if isinstance(result, Awaitable) else result

        if self._thread is None:
            raise RuntimeError("the broker is not running: start it, or use it in a with block")
        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(CALL_SECONDS_MAX)


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


_EMBEDDED = _Embedded()


def _raise_if_refused(result: Any) -> None:
    if result.error_code:
        from kbroker.errors import ErrorCode

        raise KafkaError(ErrorCode(result.error_code), result.error_message)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
