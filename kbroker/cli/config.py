"""`kbroker config get|set`: configs of topics and brokers, with where they come from and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from kbroker.cli.common import Failure, Session, complete_topics, remote
from kbroker.cli.output import did_you_mean, on_terminal, table
from kbroker.cli.topic import must_not_meet, pairs

if TYPE_CHECKING:
    from kbroker.cli.client.cluster import Cluster
    from kbroker.protocol.messages.configs import DescribeConfigsResourceResult

SOURCES = {
    1: "topic",
    2: "broker",
    3: "all brokers",
    4: "start",  # from what it was started with: a file, --set, --port
    5: "default",
    6: "broker logger",
    7: "client metrics",
    8: "group",
}
DEFAULT = 5
OF_A_LISTENER = (
    "listener.name."  # such configs of a broker are known by their ends, and described where they are set
)
TYPES = ("unknown", "boolean", "string", "int", "short", "long", "double", "list", "class", "password")

KIND = click.Choice(["topic", "broker"])
name_argument = click.argument("name", shell_complete=complete_topics)


@click.group()
def config() -> None:
    """Show and change configs of topics and brokers."""


@config.command("get")
@click.argument("kind", type=KIND)
@name_argument
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-a", "--all", "everything", is_flag=True, help="Also what nobody set.")
@click.option("-d", "--docs", is_flag=True, help="With what each means.")
@remote
async def get(
    session: Session, kind: str, name: str, keys: tuple[str, ...], everything: bool, docs: bool
) -> None:
    """Show configs of a topic or a broker, and where they come from.

    NAME is a topic or a broker's id; an empty one ("") means the default of all brokers. With one KEY and no terminal the
    value alone is printed.
    """
    from kbroker.cli.client import admin

    async with session.cluster() as cluster:
        resource = await _resource(cluster, kind, name)
        found = await admin.describe_configs(cluster, resource, name, list(keys) or None)
        missing = [key for key in keys if key not in {each.name for each in found}]
        if missing:
            raise no_such(missing[0], kind, await admin.describe_configs(cluster, resource, name))
    shown = [each for each in found if keys or everything or each.config_source != DEFAULT]
    shown.sort(key=lambda each: each.name)
    if session.json:
        session.document({each.name: _document(each) for each in shown})
    elif len(keys) == 1 and not on_terminal():
        click.echo(shown[0].value if shown[0].value is not None else "")
    else:
        columns = ["config", "value", "source", *(["meaning"] if docs else [])]
        rows = [
            (each.name, _value(each), SOURCES.get(each.config_source), each.documentation) for each in shown
        ]
        table(columns, [row[: len(columns)] for row in rows], folding=("value", "meaning"))


@config.command("set")
@click.argument("kind", type=KIND)
@name_argument
@click.argument("assignments", nargs=-1, metavar="KEY=VALUE...", callback=pairs)
@click.option(
    "-u", "--unset", multiple=True, metavar="KEY", help="Take a config back to its default. Repeatable."
)
@remote
async def set_(
    session: Session, kind: str, name: str, assignments: dict[str, str], unset: tuple[str, ...]
) -> None:
    """Change configs of a topic or a broker, without a restart.

    NAME is a topic or a broker's id; an empty one ("") means all brokers.
    """
    if not assignments and not unset:
        raise click.UsageError("nothing to change: give KEY=VALUE or --unset KEY")
    must_not_meet(assignments, unset)
    async with session.cluster() as cluster:
        resource = await _resource(cluster, kind, name)
        await must_be_known(cluster, resource, name, unset)
        await change(cluster, resource, name, assignments, unset)
    # a value may be a secret: what was changed is named, not repeated
    changed = [*assignments, *unset]
    who = f"{kind} {name}" if name else "all brokers"
    value = {"kind": kind, "name": name, "set": list(assignments), "unset": list(unset)}
    session.done(f"changed {', '.join(changed)} of {who}", value)


async def change(
    cluster: Cluster, resource: int, name: str, setting: Mapping[str, str], unset: Iterable[str]
) -> None:
    """Set and unset them; a refusal names what helps."""
    from kbroker.cli.client import admin
    from kbroker.cli.cures import with_cure
    from kbroker.errors import KafkaError

    try:
        await admin.alter_configs(cluster, resource, name, setting=setting, deleting=unset)
    except KafkaError as error:
        raise with_cure(error, setting, clearing="to have its default say --unset {}") from None


async def must_be_known(cluster: Cluster, resource: int, name: str, keys: Iterable[str]) -> None:
    """Brokers take back to its default whatever they are told to, also a name that is a typing mistake."""
    from kbroker.cli.client import admin
    from kbroker.errors import ErrorCode, KafkaError

    if not keys:
        return
    if not name:  # the default of all brokers is described by what is set there; any of them knows the names
        await cluster.metadata([])
        name = str(next(iter(cluster.brokers)))
    try:
        known = await admin.describe_configs(cluster, resource, name)
    except KafkaError as error:
        if error.code not in (ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.CLUSTER_AUTHORIZATION_FAILED):
            raise
        return  # who may change configs need not be allowed to see them
    names = {each.name for each in known}
    for key in keys:
        if key not in names and not key.startswith(OF_A_LISTENER):
            raise no_such(key, "topic" if resource == admin.TOPIC else "broker", known)


def no_such(key: str, kind: str, known: Iterable[DescribeConfigsResourceResult]) -> Failure:
    """For a key that is none of those."""
    listed = f"; kbroker config get {kind} {'ID' if kind == 'broker' else 'NAME'} --all has them all"
    near = did_you_mean(key, [each.name for each in known]) or listed
    return Failure(f"there is no config {key!r} of a {kind}{near}")


async def _resource(cluster: Cluster, kind: str, name: str) -> int:
    from kbroker.cli.client import admin

    if kind == "topic":
        await cluster.topic(name)
        return admin.TOPIC
    if name and not name.isdigit():
        raise click.UsageError(f"a broker is named by its id, a number: {name!r} is none")
    return admin.BROKER


def _value(found: DescribeConfigsResourceResult) -> str | None:
    return "(hidden)" if found.is_sensitive else found.value


def _document(found: DescribeConfigsResourceResult) -> dict[str, object]:
    return {
        "value": None if found.is_sensitive else found.value,
        "source": SOURCES.get(found.config_source),
        "type": TYPES[found.config_type] if 0 <= found.config_type < len(TYPES) else None,
        "read_only": found.read_only,
        "sensitive": found.is_sensitive,
        "synonyms": [
            {"name": each.name, "value": each.value, "source": SOURCES.get(each.source)}
            for each in found.synonyms
        ],
        "documentation": found.documentation,
    }
