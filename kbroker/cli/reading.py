"""Reading until there is enough: ends, a number of records, Ctrl-C; alone, or as a member of a group."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping

import click

from kbroker.cli import places
from kbroker.cli.client import groups
from kbroker.cli.client.admin import Place
from kbroker.cli.client.batches import body_of, records_of
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.consumer import Chunk, Consumer, Gap, name_of
from kbroker.cli.client.membership import Member, Rebalance
from kbroker.cli.client.tasks import until_one_ends
from kbroker.cli.places import Where
from kbroker.cli.progress import Progress
from kbroker.cli.sinks import Sink
from kbroker.protocol.records import RecordBatch

# As Kafka's consumers: how often a group learns how far we came.
COMMIT_EVERY_SECONDS = 5.0


class Reader:
    """Writes records to a sink until there are enough."""

    def __init__(self, cluster: Cluster, sink: Sink, *, max_records: int | None) -> None:
        self.cluster = cluster
        self.left = max_records  # records still wanted; None: all
        self.written: dict[Place, int] = {}  # the offset after the last one written
        self._sink = sink
        self._records = self._bytes = 0
        # what is printed on the same terminal would go through the progress line
        self._progress = Progress("reading", wanted=not sys.stdout.isatty())

    async def read(self, positions: Mapping[Place, int], ends: Mapping[Place, int] | None) -> None:
        """Read from these offsets, to the ends or on and on."""
        open_places = {place for place in positions if ends is None or positions[place] < ends[place]}
        self.written = dict(positions)
        consumer = Consumer(self.cluster, {place: positions[place] for place in open_places})
        if not open_places:
            return
        with self._progress as progress:
            async with contextlib.aclosing(consumer.read()) as chunks:
                async for chunk in chunks:
                    end = None if ends is None else ends[chunk.place]
                    if isinstance(chunk, Gap):
                        say_gap(chunk)
                        self.written[chunk.place] = chunk.found
                    else:
                        self.write(chunk, end)
                        progress.show(self._bytes, self._records)
                    if end is not None and self.written[chunk.place] >= end:
                        open_places.discard(chunk.place)
                    if not open_places or self.left == 0:
                        return

    def write(self, chunk: Chunk, end: int | None) -> None:
        """Write what is wanted of a chunk, and let it be seen. What stdout did not take was not written."""
        before = self.written[chunk.place]
        try:
            self._write(chunk, end)
            sys.stdout.flush()
        except OSError:
            self.written[chunk.place] = before
            raise

    def _write(self, chunk: Chunk, end: int | None) -> None:
        for batch in chunk.batches:
            if self.left == 0 or (end is not None and batch.base_offset >= end):
                break
            if not batch.is_control:
                self._write_batch(chunk, batch, end)
            if self.left != 0:
                self.written[chunk.place] = batch.next_offset

    def _write_batch(self, chunk: Chunk, batch: RecordBatch, end: int | None) -> None:
        self._bytes += batch.size
        whole = batch.base_offset >= chunk.start and (end is None or batch.next_offset <= end)
        if whole and (self.left is None or self.left >= batch.count):
            self._sink.batch(chunk.place, batch)
            self._records += batch.count
            if self.left is not None:
                self.left -= batch.count
                self.written[chunk.place] = batch.next_offset
            return
        some = [
            record
            for record in records_of(batch, body_of(batch))
            if record.offset >= chunk.start and (end is None or record.offset < end)
        ]
        if self.left is not None:
            some = some[: self.left]
            self.left -= len(some)
        if some:
            self._sink.some(chunk.place, some)
            self._records += len(some)
            self.written[chunk.place] = some[-1].offset + 1


def say_gap(gap: Gap) -> None:
    """Records were missed: that is said, and reading goes on."""
    click.echo(
        f"{name_of(gap.place)}: offsets {gap.wanted} to {gap.found - 1} are gone, going on after them",
        err=True,
    )


async def read_as_member(
    reader: Reader, group: str, topic: str, where: Where | None, *, stop_at_end: bool
) -> None:
    """Read what the group gives us, from where it was, and tell it how far we came."""
    cluster = reader.cluster
    async with Member(cluster, group, [topic]) as member:
        while True:
            assignment = await member.join()
            known = await groups.committed(cluster, group, assignment) if assignment else {}
            committed = {place: each.offset for place, each in known.items()}
            positions = await _positions(cluster, assignment, committed, where)
            ends = None
            if stop_at_end:
                ends = await places.offsets(cluster, assignment, places.END)
            try:
                await _read_generation(reader, member, positions, ends, committed)
            except Rebalance:
                continue
            return


async def _positions(
    cluster: Cluster, assignment: list[Place], committed: Mapping[Place, int], where: Where | None
) -> dict[Place, int]:
    """Where the group was; where it was nowhere, what --from says."""
    new = [place for place in assignment if place not in committed]
    begin = await places.offsets(cluster, new, where or places.BEGINNING) if new else {}
    return {place: committed[place] if place in committed else begin[place] for place in assignment}


async def _read_generation(
    reader: Reader,
    member: Member,
    positions: dict[Place, int],
    ends: dict[Place, int] | None,
    committed: dict[Place, int],
) -> None:
    """Read until there is enough, or the group asks its members to come together again: Rebalance.

    As Kafka's consumers, it commits where it stands, even when that is where it began.
    """
    reader.written = dict(positions)

    async def commit() -> None:
        moved = {place: offset for place, offset in reader.written.items() if committed.get(place) != offset}
        if moved:
            await member.commit(moved)
            committed.update(moved)

    async def commit_now_and_then() -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_SECONDS)
            await commit()

    async def read() -> None:
        if positions:
            await reader.read(positions, ends)
        elif ends is None:
            await asyncio.Event().wait()  # the others have all partitions: until a rebalance

    reading = asyncio.create_task(read(), name="reading")
    tasks = [
        reading,
        asyncio.create_task(member.beat(), name="heartbeats"),
        asyncio.create_task(commit_now_and_then(), name="commits"),
    ]
    try:
        done = await until_one_ends(tasks)
    finally:
        with contextlib.suppress(Rebalance):
            await commit()
    # who has read enough need not come together again
    for task in [reading] if reading in done else done:
        task.result()
