"""`kbroker consume TOPIC`: records to stdout, of partitions or as a member of a group."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kbroker.cli import places
from kbroker.cli.common import Session, complete_groups, remote, topic_argument
from kbroker.cli.places import Where

if TYPE_CHECKING:
    from kbroker.cli.client.admin import Place
    from kbroker.cli.client.cluster import Cluster
    from kbroker.cli.reading import Reader
    from kbroker.cli.sinks import Sink


@click.command()
@topic_argument
@places.where_option(
    "--from", help=f"Where to begin: {places.HELP} [default: beginning; a group: where it was]."
)
@click.option(
    "-p", "--partition", "partitions", type=click.IntRange(0), multiple=True, help="Only these. Repeatable."
)
@click.option("-n", "--max-records", type=click.IntRange(1), metavar="N", help="Stop after N records.")
@click.option("-e", "--stop-at-end", is_flag=True, help="Stop at what is there now, instead of following.")
@click.option(
    "-g",
    "--group",
    metavar="GROUP",
    shell_complete=complete_groups,
    help="As a member of this group, which remembers how far it came.",
)
@click.option(
    "-K", "--key-separator", metavar="TEXT", help="Print keys too, with this between key and value."
)
@click.option("--raw", is_flag=True, help="Bytes as they are on a terminal too, control characters and all.")
@remote
async def consume(
    session: Session,
    topic: str,
    where: Where | None,
    partitions: tuple[int, ...],
    max_records: int | None,
    stop_at_end: bool,
    group: str | None,
    key_separator: str | None,
    raw: bool,
) -> None:
    """Print the records of a topic, and those that come.

    \b
    kbroker consume greetings -e
    kbroker consume orders --from 15m -o json
    kbroker consume orders -p 0 --from -10 -e -K :
    """
    from kbroker.cli.reading import Reader

    if group == "":
        raise click.UsageError("--group is empty: give the group's name")
    if group is not None and partitions:
        raise click.UsageError("--group divides the partitions itself: leave --partition out")
    if key_separator is not None and session.json:
        raise click.UsageError("--key-separator is for lines; JSON has the keys")
    async with session.cluster() as cluster:
        there = await cluster.persist(lambda: cluster.topic(topic))
        known = sorted(part.partition_index for part in there.partitions)
        for partition in partitions:
            if partition not in known:
                raise click.UsageError(f"topic {topic} has no partition {partition}: it has {len(known)}")
        reader = Reader(cluster, sink(session, key_separator, raw), max_records=max_records)
        if group is not None:
            from kbroker.cli.reading import read_as_member

            await read_as_member(reader, group, topic, where, stop_at_end=stop_at_end)
        else:
            chosen = [(topic, partition) for partition in partitions or known]
            await assigned(cluster, reader, chosen, where or places.BEGINNING, stop_at_end)


async def assigned(
    cluster: Cluster, reader: Reader, chosen: list[Place], where: Where, stop_at_end: bool
) -> None:
    """Read these partitions."""
    positions = await places.offsets(cluster, chosen, where)
    ends = await places.offsets(cluster, chosen, places.END) if stop_at_end else None
    await reader.read(positions, ends)


def sink(session: Session, key_separator: str | None, raw: bool) -> Sink:
    """How records are written."""
    from kbroker.cli import sinks
    from kbroker.cli.produce import unescape

    out = sys.stdout.buffer
    safe = sys.stdout.isatty() and not raw
    if session.json:
        return sinks.Json(out, safe=safe)
    if key_separator is not None:
        return sinks.Pairs(out, unescape(key_separator), safe=safe)
    return sinks.Values(out, safe=safe)
