"""`kbroker group ...`: list, describe with lag, move offsets, delete."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import click

from kbroker.cli import places
from kbroker.cli.common import (
    Failure,
    Session,
    asks_first,
    complete_groups,
    complete_topics,
    group_argument,
    remote,
)
from kbroker.cli.output import heading, table
from kbroker.cli.places import Where

if TYPE_CHECKING:
    from kbroker.cli.client.admin import Place
    from kbroker.cli.client.cluster import Cluster
    from kbroker.protocol.messages.groups import DescribedGroup


IDLE_STATES = ("Empty", "Dead")


class Progress(NamedTuple):
    """How far a group came in one partition, and who reads it."""

    topic: str
    partition: int
    committed: int | None
    end: int | None
    lag: int | None
    member: str | None
    client: str | None
    host: str | None


@click.group()
def group() -> None:
    """List and describe groups with their lag, move their offsets, delete them."""


@group.command("list")
@click.option("--state", help="Only groups in this state: Stable, Empty, ...")
@remote
async def list_(session: Session, state: str | None) -> None:
    """List groups."""
    from kbroker.cli.client.groups import list_groups

    async with session.cluster() as cluster:
        found = await list_groups(cluster)
    chosen = [each for each in found if state is None or each.group_state.lower() == state.lower()]
    names = ("group", "state", "type", "protocol_type")
    rows = [
        (each.group_id, each.group_state or None, each.group_type or None, each.protocol_type or None)
        for each in chosen
    ]
    if session.json:
        session.document([dict(zip(names, row, strict=True)) for row in rows])
    else:
        table(["group", "state", "type", "protocol"], rows)


@group.command()
@group_argument
@remote
async def describe(session: Session, group: str) -> None:
    """Show a group's members, offsets and lag."""
    from kbroker.cli.client.groups import describe_group

    async with session.cluster() as cluster:
        described = await describe_group(cluster, group)
        rows = await _progress(cluster, described)
    lags = [row.lag for row in rows if row.lag is not None]
    if session.json:
        session.document(
            {
                "group": group,
                "state": described.group_state,
                "protocol": described.protocol_data or None,
                "lag": sum(lags),
                "members": [
                    {
                        "member": member.member_id,
                        "instance": member.group_instance_id,
                        "client": member.client_id,
                        "host": member.client_host,
                    }
                    for member in described.members
                ],
                "partitions": [row._asdict() for row in rows],
            }
        )
        return
    count = len(described.members)
    heading(f"{group}  {described.group_state}, {count} member{'s' * (count != 1)}, lag {sum(lags)}")
    table(["topic", ">partition", ">committed", ">end", ">lag", "member", "client", "host"], rows)


async def _progress(cluster: Cluster, described: DescribedGroup) -> list[Progress]:
    from kbroker.cli.client.groups import committed

    owners = _owners(described)
    known = await committed(cluster, described.group_id)
    wanted = sorted({*known, *owners})
    ends = await _ends(cluster, wanted)
    rows = []
    for place in wanted:
        offset = known[place].offset if place in known else None
        end = ends.get(place)
        lag = max(end - offset, 0) if end is not None and offset is not None else None
        rows.append(Progress(*place, offset, end, lag, *owners.get(place, (None, None, None))))
    return rows


def _owners(described: DescribedGroup) -> dict[Place, tuple[str, str, str]]:
    """Who reads a partition."""
    from kbroker.cli.client.errors import ClientError
    from kbroker.cli.client.membership import PROTOCOL_TYPE, parse_assignment

    found: dict[Place, tuple[str, str, str]] = {}
    if described.protocol_type != PROTOCOL_TYPE:
        return found
    for member in described.members:
        try:
            assigned = parse_assignment(member.member_assignment)
        except ClientError:
            continue  # a client of its own kind: its members are shown without partitions
        found |= dict.fromkeys(assigned, (member.member_id, member.client_id, member.client_host))
    return found


async def _ends(cluster: Cluster, wanted: list[Place]) -> dict[Place, int]:
    """Where the partitions end: of those that are still there."""
    from kbroker.cli.client.admin import LATEST, offsets_at

    if not wanted:
        return {}
    answer = await cluster.metadata(sorted({topic for topic, _ in wanted}))
    led = {
        (topic.name, part.partition_index)
        for topic in answer.topics
        for part in topic.partitions
        if part.leader_id >= 0
    }
    found = await offsets_at(cluster, {place: LATEST for place in wanted if place in led})
    return {place: each.offset for place, each in found.items()}


@group.command("reset-offsets")
@group_argument
@click.option(
    "-t",
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC[:P,P]",
    shell_complete=complete_topics,
    help="Only of this topic, or of these partitions [default: all that the group committed]. Repeatable.",
)
@places.where_option("--to", help=f"Where to go: {places.HELP}.")
@click.option("--by", "shift", type=int, metavar="N", help="So many records on, or back where N is negative.")
@click.option("--execute", is_flag=True, help="Do it; without this the plan is shown alone.")
@remote
async def reset_offsets(
    session: Session,
    group: str,
    topics: tuple[str, ...],
    where: Where | None,
    shift: int | None,
    execute: bool,
) -> None:
    """Move a group's offsets. It must have no members."""
    from kbroker.cli.client import groups

    if (where is None) == (shift is None):
        raise click.UsageError("say where to go: either --to WHERE or --by N")
    async with session.cluster() as cluster:
        known = await groups.committed(cluster, group)
        wanted = await _chosen(cluster, topics) if topics else sorted(known)
        if not wanted:
            raise Failure(f"group {group} has committed nothing: name its topics with --topic")
        if where is not None:
            new = await places.offsets(cluster, wanted, where)
        else:
            new = await _shifted(cluster, wanted, {place: known[place].offset for place in known}, shift or 0)
        if execute:
            await _refuse_members(cluster, group)
            await groups.commit(cluster, group, new)
    names = ("topic", "partition", "from", "to")
    rows = [(*place, known[place].offset if place in known else None, new[place]) for place in sorted(new)]
    if session.json:
        moves = [dict(zip(names, row, strict=True)) for row in rows]
        session.document({"group": group, "executed": execute, "offsets": moves})
        return
    table(["topic", ">partition", ">from", ">to"], rows)
    if not execute:
        click.echo("nothing is changed yet: add --execute", err=True)


async def _chosen(cluster: Cluster, topics: tuple[str, ...]) -> list[Place]:
    found: set[Place] = set()
    for word in topics:
        name, colon, listed = word.partition(":")
        topic = await cluster.topic(name)
        known = {part.partition_index for part in topic.partitions}
        if not colon:
            found |= {(name, partition) for partition in known}
            continue
        for number in listed.split(","):
            if not number.isdigit() or int(number) not in known:
                raise click.UsageError(f"topic {name} has no partition {number!r}")
            found.add((name, int(number)))
    return sorted(found)


async def _shifted(
    cluster: Cluster, wanted: list[Place], known: dict[Place, int], shift: int
) -> dict[Place, int]:
    lost = [place for place in wanted if place not in known]
    if lost:
        raise Failure(f"the group has committed nothing in {lost[0][0]}-{lost[0][1]}: go there with --to")
    first = await places.offsets(cluster, wanted, places.BEGINNING)
    last = await places.offsets(cluster, wanted, places.END)
    return {place: min(max(known[place] + shift, first[place]), last[place]) for place in wanted}


async def _refuse_members(cluster: Cluster, group: str) -> None:
    """A commit from outside would be refused with a word that says little."""
    from kbroker.cli.client.groups import describe_group
    from kbroker.errors import ErrorCode, KafkaError

    try:
        described = await describe_group(cluster, group)
    except KafkaError as error:
        if error.code != ErrorCode.GROUP_ID_NOT_FOUND:
            raise
        return  # the commit makes it
    count = len(described.members)
    if count or described.group_state not in IDLE_STATES:
        who = "members" if count != 1 else "a member"
        raise Failure(f"group {group} has {who} ({described.group_state}): stop what reads with it first")


@group.command()
@click.argument("groups", nargs=-1, required=True, metavar="GROUP...", shell_complete=complete_groups)
@asks_first("delete {} and all offsets it committed?", "groups")
@remote
async def delete(session: Session, groups: tuple[str, ...]) -> None:
    """Delete groups and the offsets they committed."""
    from kbroker.cli.client.errors import say
    from kbroker.cli.client.groups import delete_group
    from kbroker.errors import KafkaError

    async with session.cluster() as cluster:
        results = await asyncio.gather(
            *(delete_group(cluster, each) for each in groups), return_exceptions=True
        )
    outcome: dict[bool, list[str]] = defaultdict(list)
    for name, result in zip(groups, results, strict=True):
        if isinstance(result, BaseException) and not isinstance(result, KafkaError):
            raise result
        outcome[result is None].append(name if result is None else f"{name}: {say(result)}")
    if outcome[True] or session.json:
        session.done(f"deleted {', '.join(outcome[True])}", {"deleted": outcome[True]})
    if outcome[False]:
        raise Failure("; ".join(outcome[False]))
