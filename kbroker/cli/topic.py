"""`kbroker topic ...`: create, list, describe, delete and alter topics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from kbroker.cli.common import Failure, Session, asks_first, complete_topics, remote, topic_argument
from kbroker.cli.output import heading, on_terminal, table

if TYPE_CHECKING:
    from kbroker.cli.client.cluster import Cluster
    from kbroker.protocol.messages.metadata import MetadataResponseTopic

OF_THE_TOPIC = 1  # a config's source: it was set for this topic


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as a dict."""
    found = {}
    for value in values:
        name, equals, rest = value.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is given twice: leave one of them out", ctx, param)
        found[name] = rest
    return found


def must_not_meet(configs: Iterable[str], unset: Iterable[str]) -> None:
    """A config cannot get a value and its default at once."""
    both = sorted({*configs} & {*unset})
    if both:
        raise click.UsageError(f"{both[0]} is set and unset: leave one of them out")


config_option = click.option(
    "-c",
    "--config",
    "configs",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="Set a config. Repeatable.",
)


@click.group()
def topic() -> None:
    """Create, list, describe, delete and alter topics."""


@topic.command()
@topic_argument
@click.option(
    "-p", "--partitions", type=click.IntRange(1), help="How many [default: the broker's num.partitions]."
)
@click.option(
    "-r", "--replication-factor", "replicas", type=click.IntRange(1), help="[default: the broker's]."
)
@config_option
@click.option("--if-not-exists", is_flag=True, help="It is no failure when the topic is there.")
@remote
async def create(
    session: Session,
    topic: str,
    partitions: int | None,
    replicas: int | None,
    configs: dict[str, str],
    if_not_exists: bool,
) -> None:
    """Create a topic."""
    from kbroker.cli.client import admin
    from kbroker.cli.cures import with_cure
    from kbroker.errors import ErrorCode, KafkaError

    async with session.cluster() as cluster:
        try:
            await admin.create_topic(
                cluster,
                topic,
                partitions=partitions or admin.DEFAULTS,
                replicas=replicas or admin.DEFAULTS,
                configs=configs,
            )
            created = True
        except KafkaError as error:
            if not if_not_exists or error.code != ErrorCode.TOPIC_ALREADY_EXISTS:
                raise with_cure(
                    error,
                    configs,
                    clearing="leave {} out, and it has the broker's default",
                ) from None
            created = False
        there = await cluster.topic(topic)
    count = len(there.partitions)
    words = (
        f"created {topic} with {count} partition{'s' * (count != 1)}"
        if created
        else f"{topic} exists already"
    )
    session.done(words, {"topic": topic, "created": created, "partitions": count, "id": id_of(there)})


@topic.command("list")
@click.option("-a", "--all", "internal", is_flag=True, help="Internal topics too.")
@remote
async def list_(session: Session, internal: bool) -> None:
    """List topics."""
    async with session.cluster() as cluster:
        answer = await cluster.metadata(None)
    topics = sorted(
        (topic for topic in answer.topics if internal or not topic.is_internal),
        key=lambda topic: topic.name or "",
    )
    rows = [
        (topic.name, len(topic.partitions), len(topic.partitions[0].replica_nodes) if topic.partitions else 0)
        for topic in topics
    ]
    if session.json:
        names = ("topic", "partitions", "replication_factor")
        session.document([dict(zip(names, row, strict=True)) for row in rows])
    else:
        table(["topic", ">partitions", ">replicas"], rows)


@topic.command()
@topic_argument
@click.option("--all-configs", is_flag=True, help="Also configs that nobody set.")
@remote
async def describe(session: Session, topic: str, all_configs: bool) -> None:
    """Show a topic's partitions, offsets and configs."""
    from kbroker.cli.client import admin

    async with session.cluster() as cluster:
        there = await cluster.persist(lambda: cluster.topic(topic))
        partitions = await _partitions(cluster, there)
        configs = await admin.describe_configs(cluster, admin.TOPIC, topic)
    shown = [config for config in configs if all_configs or config.config_source == OF_THE_TOPIC]
    if session.json:
        values = {config.name: config.value for config in shown}
        session.document(
            {
                "topic": topic,
                "id": id_of(there),
                "internal": there.is_internal,
                "partitions": partitions,
                "configs": values,
            }
        )
        return
    columns = [">partition", ">leader", "replicas", "in sync", ">earliest", ">latest"]
    rows = [tuple(part.values()) for part in partitions]
    if not on_terminal():  # one table, for scripts: the configs stand in each row
        words = " ".join(f"{config.name}={config.value}" for config in shown)
        return table([*columns, "configs"], [(*row, words or None) for row in rows])
    heading(f"{topic}  id {id_of(there)}")
    table(columns, rows)
    if shown:
        click.echo()
        table(["config", "value"], [(config.name, config.value) for config in shown], folding=("value",))
    return None


async def _partitions(cluster: Cluster, topic: MetadataResponseTopic) -> list[dict[str, Any]]:
    from kbroker.cli.client import admin

    name = topic.name or ""
    led = [part.partition_index for part in topic.partitions if part.leader_id >= 0]
    first = await admin.offsets_at(cluster, {(name, index): admin.EARLIEST for index in led})
    last = await admin.offsets_at(cluster, {(name, index): admin.LATEST for index in led})
    return [
        {
            "partition": part.partition_index,
            "leader": part.leader_id if part.leader_id >= 0 else None,
            "replicas": part.replica_nodes,
            "in_sync": part.isr_nodes,
            "earliest": first[place].offset if (place := (name, part.partition_index)) in first else None,
            "latest": last[place].offset if place in last else None,
        }
        for part in sorted(topic.partitions, key=lambda part: part.partition_index)
    ]


@topic.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC...", shell_complete=complete_topics)
@click.option("--if-exists", is_flag=True, help="It is no failure when a topic is not there.")
@asks_first("delete {} and all records in it?", "topics")
@remote
async def delete(session: Session, topics: tuple[str, ...], if_exists: bool) -> None:
    """Delete topics and their records."""
    from kbroker.cli.client import admin
    from kbroker.cli.client.errors import error_of, say
    from kbroker.errors import ErrorCode

    async with session.cluster() as cluster:
        results = await admin.delete_topics(cluster, list(topics))
    deleted, failed = [], []
    for result in results:
        error = error_of(result)
        if error is None:
            deleted.append(result.name or "")
        elif not (if_exists and error.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            failed.append(f"{result.name}: {say(error)}")
    if deleted or session.json:
        session.done(f"deleted {', '.join(deleted)}", {"deleted": deleted})
    if failed:
        raise Failure("; ".join(failed))


@topic.command()
@topic_argument
@click.option("-p", "--partitions", type=click.IntRange(1), help="Grow to this many partitions.")
@config_option
@click.option(
    "-u", "--unset", multiple=True, metavar="NAME", help="Take a config back to its default. Repeatable."
)
@remote
async def alter(
    session: Session, topic: str, partitions: int | None, configs: dict[str, str], unset: tuple[str, ...]
) -> None:
    """Add partitions, set and unset configs."""
    from kbroker.cli.client import admin
    from kbroker.cli.config import change, must_be_known

    if partitions is None and not configs and not unset:
        raise click.UsageError("nothing to alter: give --partitions, --config or --unset")
    must_not_meet(configs, unset)
    async with session.cluster() as cluster:
        await cluster.topic(topic)
        if configs or unset:
            await must_be_known(cluster, admin.TOPIC, topic, unset)
            await change(cluster, admin.TOPIC, topic, configs, unset)
        if partitions is not None:
            await admin.add_partitions(cluster, topic, partitions)
    session.done(
        f"altered {topic}", {"topic": topic, "partitions": partitions, "set": configs, "unset": list(unset)}
    )


def id_of(topic: MetadataResponseTopic) -> str:
    """The topic's id as Kafka prints it: base64 for URLs, without padding."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(topic.topic_id).decode().rstrip("=")
