"""Reading records of assigned partitions: one Fetch in flight per leader, the next asked before an answer is looked at.

What comes out is whole batches as they lie on the broker's disk; whoever reads them skips what is before its offset.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

from kbroker.cli.client.admin import EARLIEST, Place, offsets_at
from kbroker.cli.client.cluster import PAUSE_SECONDS_MAX, Cluster
from kbroker.cli.client.errors import ClientError, Disconnected, Unreachable, code_of, raise_error
from kbroker.cli.client.tasks import until_one_ends
from kbroker.errors import ErrorCode, KafkaError, ProtocolError
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, PartitionData
from kbroker.protocol.records import RecordBatch, split_batches

TOPIC_NAMES = 12  # the last version of Fetch that names topics
WAIT_MS = 500
ANSWER_BYTES = 16 << 20
PARTITION_BYTES = 4 << 20
# Answers of one leader that are not looked at yet; beyond it that leader is not asked.
ANSWERS_MAX = 2

_RETRY = frozenset(
    {ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH}
)


class Chunk(NamedTuple):
    """Batches of one partition. `start` is where reading stood: records before it, in the first batch, were read."""

    place: Place
    start: int
    batches: list[RecordBatch]
    high_watermark: int


class Gap(NamedTuple):
    """Records that are gone: the log begins later than where reading stood."""

    place: Place
    wanted: int
    found: int


class _Answer:
    """An answer whose chunks are given out one by one; room for the next one when all are."""

    __slots__ = ("chunks", "room")

    def __init__(self, room: asyncio.Semaphore) -> None:
        self.room = room
        self.chunks = 0


class Consumer:
    """Reads partitions from offsets on, until somebody stops asking."""

    def __init__(self, cluster: Cluster, positions: Mapping[Place, int]) -> None:
        self.positions = dict(positions)  # the next offset to be given out
        self._cluster = cluster
        self._asked = dict(positions)  # the next offset to be asked for
        self._ready: asyncio.Queue[tuple[Chunk | Gap | Exception, _Answer | None]] = asyncio.Queue()

    async def read(self) -> AsyncGenerator[Chunk | Gap, None]:
        """What comes, partition by partition. Ends by an error, or when it is closed."""
        running = asyncio.create_task(self._supervise(), name="fetching")
        try:
            while True:
                item, answer = await self._ready.get()
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, Chunk):
                    self.positions[item.place] = item.batches[-1].next_offset
                yield item
                if answer is not None:
                    answer.chunks -= 1
                    if not answer.chunks:
                        answer.room.release()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _supervise(self) -> None:
        """Ask each leader for its partitions; when one of them does not lead any more, find the leaders anew."""
        pause = 0.0
        try:
            while True:
                by_leader = await self._cluster.persist(self._by_leader)
                tasks = [
                    asyncio.create_task(self._follow(node, places), name=f"fetching from {node}")
                    for node, places in by_leader.items()
                ]
                done = await until_one_ends(tasks)
                pause = min(max(2 * pause, 0.05), PAUSE_SECONDS_MAX)
                try:
                    for task in done:
                        task.result()
                except KafkaError as error:
                    if error.code not in _RETRY and not error.code.retriable:
                        raise
                except (Disconnected, Unreachable):
                    pass  # it restarts, or another one leads: `persist` says when that has lasted too long
                self._cluster.forget()
                await asyncio.sleep(pause)
        except (KafkaError, ClientError) as error:
            self._ready.put_nowait((error, None))

    async def _by_leader(self) -> dict[int, list[Place]]:
        found: dict[int, list[Place]] = defaultdict(list)
        for place in self._asked:
            found[await self._cluster.leader_id(*place)].append(place)
        for node in found:
            await self._cluster.broker(node, patient=True)  # that it can be reached
        return found

    async def _follow(self, node: int, places: list[Place]) -> None:
        room = asyncio.Semaphore(ANSWERS_MAX)
        connection = await self._cluster.broker(node, patient=True)
        turn = 0
        while True:
            await room.acquire()
            turn += 1
            at = turn % len(places)
            # a full answer serves the partitions in front: each comes to the front in turn
            request = self._request(places[at:] + places[:at])
            answer = await connection.ask(request, newest=TOPIC_NAMES)
            raise_error(answer)
            taken = _Answer(room)
            for topic in answer.responses:
                for part in topic.partitions:
                    place = (topic.topic, part.partition_index)
                    if part.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
                        await self._find_again(place)
                    else:
                        self._take(place, part, taken)
            if not taken.chunks:
                room.release()

    def _request(self, places: list[Place]) -> FetchRequest:
        topics: dict[str, list[FetchPartition]] = defaultdict(list)
        for topic, partition in places:
            topics[topic].append(
                FetchPartition(
                    partition=partition,
                    fetch_offset=self._asked[topic, partition],
                    partition_max_bytes=PARTITION_BYTES,
                )
            )
        return FetchRequest(
            max_wait_ms=WAIT_MS,
            min_bytes=1,
            max_bytes=ANSWER_BYTES,
            topics=[FetchTopic(topic=name, partitions=parts) for name, parts in topics.items()],
        )

    async def _find_again(self, place: Place) -> None:
        """Nothing is where we are: what was there is gone, or never came."""
        first = (await offsets_at(self._cluster, {place: EARLIEST}))[place].offset
        wanted = self._asked[place]
        if wanted >= first:
            raise ClientError(f"{name_of(place)} has no offset {wanted} yet: its records end before")
        self._asked[place] = self.positions[place] = first
        self._ready.put_nowait((Gap(place, wanted, first), None))

    def _take(self, place: Place, part: PartitionData, answer: _Answer) -> None:
        """Put the batches of one partition out."""
        if part.error_code:
            raise KafkaError(code_of(part.error_code), name_of(place))
        if not part.records:
            return
        try:
            batches = split_batches(memoryview(part.records), cut_tail=True)  # type: ignore[arg-type]
        except ProtocolError as error:
            raise ClientError(f"{name_of(place)} holds what cannot be read here: {error}") from None
        start = self._asked[place]
        batches = [batch for batch in batches if batch.next_offset > start]
        if not batches:
            return
        self._asked[place] = batches[-1].next_offset
        answer.chunks += 1
        self._ready.put_nowait((Chunk(place, start, batches, part.high_watermark), answer))


def name_of(place: Place) -> str:
    """topic-partition, as Kafka writes it."""
    return f"{place[0]}-{place[1]}"
