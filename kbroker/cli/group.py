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
from kbroker.cli.output import heading, on_terminal, table
from kbroker.cli.places import Where

if TYPE_CHECKING:
    from kbroker.cli.client.admin import Place
    from kbroker.cli.client.cluster import Cluster
    from kbroker.protocol.messages.groups import DescribedGroup


IDLE_STATES = ("Empty", "Dead")


class Progress(NamedTuple):
    """How far a group came in one partition, and who reads it; of a member without partitions the latter alone."""

    topic: str | None
    partition: int | None
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
    state = described.group_state
    if session.json:
        session.document(
            {
                "group": group,
                "state": state,
                "protocol": described.protocol_data or None,
                "lag": _lag_of(rows),
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
    heading(f"{group}  {state}, {count} member{_s(count)}, lag {lag_in_words(rows)}")
    rows += _without_partitions(described, rows)
    columns = ["topic", ">partition", ">committed", ">end", ">lag", "member", "client", "host"]
    if on_terminal():
        table(columns, rows)
    else:  # there is no heading: each row carries the state, and there is always one
        table([*columns, "state"], [(*row, state) for row in rows or [NOTHING]])


NOTHING = Progress(*[None] * len(Progress._fields))


def _lag_of(rows: list[Progress]) -> int | None:
    """The whole group's; None: nothing was committed, or not in all partitions."""
    lags = [row.lag for row in rows]
    return None if not lags or None in lags else sum(lag for lag in lags if lag is not None)


def lag_in_words(rows: list[Progress]) -> str:
    """The whole group's, and how much is not known of it."""
    lags = [row.lag for row in rows if row.lag is not None]
    unknown = len(rows) - len(lags)
    if not lags:
        return "unknown"
    return f"{sum(lags)}{f' + {unknown} partition{_s(unknown)} unknown' if unknown else ''}"


def _s(count: int) -> str:
    return "s" * (count != 1)


def _without_partitions(described: DescribedGroup, rows: list[Progress]) -> list[Progress]:
    """Members that have none: as many as there may be, while a group rebalances all of them."""
    seen = {row.member for row in rows}
    return [
        NOTHING._replace(member=member.member_id, client=member.client_id, host=member.client_host)
        for member in described.members
        if member.member_id not in seen
    ]


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
        asked: dict[Place, int] = {}
        if where is not None:
            new = await places.offsets(cluster, wanted, where)
            if where.offset is not None:
                asked = dict.fromkeys(wanted, where.offset)
        else:
            asked = _shifted(wanted, {place: known[place].offset for place in known}, shift or 0)
            new = await places.within(cluster, asked)
        obstacle = await _obstacle(cluster, group)
        if execute:
            if obstacle is not None:
                raise Failure(obstacle)
            await groups.commit(cluster, group, new)
    names = ("topic", "partition", "from", "to")
    rows = [(*place, known[place].offset if place in known else None, new[place]) for place in sorted(new)]
    if session.json:
        moves = [dict(zip(names, row, strict=True)) for row in rows]
        for move, place in zip(moves, sorted(new), strict=True):
            move["asked"] = asked.get(place)
        session.document({"group": group, "executed": execute, "obstacle": obstacle, "offsets": moves})
        return
    table(["topic", ">partition", ">from", ">to"], rows)
    for words in _cut(asked, new):
        click.echo(words, err=True)
    if obstacle is not None:
        click.echo(f"nothing is changed, and this cannot be executed now: {obstacle}", err=True)
    elif not execute:
        click.echo("nothing is changed yet: add --execute", err=True)


def _cut(asked: dict[Place, int], new: dict[Place, int]) -> list[str]:
    """Where there is no such offset: what becomes of it."""
    return [
        f"{topic}-{partition}: {offset} is {'after' if offset > (to := new[topic, partition]) else 'before'} "
        f"what is there, it becomes {to}"
        for (topic, partition), offset in sorted(asked.items())
        if offset != new[topic, partition]
    ]


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
                raise click.UsageError(f"topic {name} has no partition {number!r}: it has {len(known)}")
            found.add((name, int(number)))
    return sorted(found)


def _shifted(wanted: list[Place], known: dict[Place, int], shift: int) -> dict[Place, int]:
    lost = [place for place in wanted if place not in known]
    if lost:
        raise Failure(f"the group has committed nothing in {lost[0][0]}-{lost[0][1]}: go there with --to")
    return {place: known[place] + shift for place in wanted}


async def _obstacle(cluster: Cluster, group: str) -> str | None:
    """Why offsets cannot be moved now. The broker would refuse them with a word that says little."""
    from kbroker.cli.client.groups import describe_group
    from kbroker.errors import ErrorCode, KafkaError

    try:
        described = await describe_group(cluster, group)
    except KafkaError as error:
        if error.code != ErrorCode.GROUP_ID_NOT_FOUND:
            raise
        return None  # the commit makes it
    count = len(described.members)
    if count or described.group_state not in IDLE_STATES:
        who = "members" if count != 1 else "a member"
        return f"group {group} has {who} ({described.group_state}): stop what reads with it first"
    return None


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
