"""`kbroker completion SHELL`, and the completion of verbs and names. A shell waits: what is slow gives nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from kbroker.cli.common import CONNECTION_OPTIONS, reach_of, stdout_written

if TYPE_CHECKING:
    from kbroker.cli.client.cluster import Cluster
    from kbroker.cli.client.properties import Reach

VARIABLE = "_KBROKER_COMPLETE"
# Somebody has pressed Tab and waits.
ANSWER_SECONDS_MAX = 1.0

INSTALL = {
    "bash": 'eval "$(kbroker completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(kbroker completion zsh)"     # in ~/.zshrc',
    "fish": "kbroker completion fish > ~/.config/fish/completions/kbroker.fish",
}


@click.command(
    epilog="\b\nTo have it in every shell:\n" + "\n".join(f"  {line}" for line in INSTALL.values()),
)
@click.argument("shell", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print what makes a shell complete verbs, options and topics."""
    from kbroker.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    with stdout_written():
        click.echo(kind(main, {}, "kbroker", VARIABLE).source())


def topics_of(params: Mapping[str, Any], incomplete: str) -> list[str]:
    """Topics that begin so; none when the cluster does not answer at once."""
    return _names(params, incomplete, _topics)


def groups_of(params: Mapping[str, Any], incomplete: str) -> list[str]:
    """Groups that begin so; none when the cluster does not answer at once."""
    return _names(params, incomplete, _groups)


def _names(params: Mapping[str, Any], incomplete: str, ask: Any) -> list[str]:
    from kbroker.cli.client.errors import ClientError
    from kbroker.errors import KafkaError

    connection = {name: params.get(name) for name in CONNECTION_OPTIONS}
    try:
        names = asyncio.run(_asked(reach_of(connection), ask))
    except (ClientError, KafkaError, TimeoutError):
        return []  # a half-typed line is no place for a sentence
    return sorted(name for name in names if name.startswith(incomplete))


async def _asked(reach: Reach, ask: Any) -> list[str]:
    from kbroker.cli.client.cluster import Cluster

    async with (
        asyncio.timeout(ANSWER_SECONDS_MAX),
        Cluster(reach.bootstrap, reach.context(), retry_seconds=0) as cluster,
    ):
        names: list[str] = await ask(cluster)
        return names


async def _topics(cluster: Cluster) -> list[str]:
    answer = await cluster.metadata(None)
    return [topic.name or "" for topic in answer.topics if not topic.is_internal]


async def _groups(cluster: Cluster) -> list[str]:
    from kbroker.cli.client.groups import list_groups

    return [group.group_id for group in await list_groups(cluster)]
