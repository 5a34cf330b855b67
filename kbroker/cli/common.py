"""What verbs that talk to a cluster share: their options, how they run and how they end. Imports no client at first.

A verb is a coroutine that gets a Session. Whatever fails is one sentence on stderr and exit code 1; Ctrl-C ends with 130,
a closed pipe with 141, as a shell counts signals, both without a word.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from kbroker.cli import GivenPath
from kbroker.cli.output import json_text, printable

if TYPE_CHECKING:
    from kbroker.cli.client.cluster import Cluster
    from kbroker.cli.client.properties import Reach

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130  # 128 + SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM

# What a write says when the disk behind stdout is full or failing. Files that a verb reads, and sockets, have sentences
# of their own.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Failure(click.ClickException):
    """What a verb could not do: one sentence."""

    exit_code = 1


class Session:
    """What a verb was given: the cluster's address, and how to say things."""

    def __init__(self, reach: Reach, output: str) -> None:
        self.reach = reach
        self.json = output == "json"

    def cluster(self) -> Cluster:
        """The cluster; use it with `async with`."""
        from kbroker.cli.client.cluster import Cluster

        return Cluster(self.reach.bootstrap, self.reach.context(), client_id=self.reach.client_id)

    def document(self, value: Any) -> None:
        """One JSON document on stdout."""
        click.echo(json_text(json.dumps(value, indent=2, ensure_ascii=False)))

    def done(self, sentence: str, value: Any) -> None:
        """Something was done: a sentence, or a document."""
        if self.json:
            self.document(value)
        else:
            click.echo(sentence)


def complete_topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Topic names that begin so, if a cluster answers at once."""
    from kbroker.cli.completion import topics_of

    return topics_of(ctx.params, incomplete)


def complete_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Groups that begin so, if a cluster answers at once."""
    from kbroker.cli.completion import groups_of

    return groups_of(ctx.params, incomplete)


def _file_option(flag: str, help: str) -> Callable[[Any], Any]:
    return click.option(
        flag, metavar="FILE", type=GivenPath(path_type=Path, dir_okay=False), is_eager=True, help=help
    )


_CONNECTION = (
    click.option(
        "-b",
        "--bootstrap-server",
        "bootstrap",
        metavar="HOST:PORT",
        envvar="KBROKER_BOOTSTRAP",
        is_eager=True,
        help="A broker to begin with, several with commas [default: localhost:9092; env: KBROKER_BOOTSTRAP].",
    ),
    _file_option(
        "--command-config",
        "A client.properties of Kafka's: bootstrap.servers, security.protocol, ssl.* with PEM files.",
    ),
    click.option("--tls", is_flag=True, is_eager=True, help="Speak TLS."),
    _file_option("--ca", "Trust the certificates in this PEM file [default: the system's]. Implies --tls."),
    _file_option("--cert", "Our own certificate chain, PEM. Implies --tls."),
    _file_option("--key", "Its private key, PEM [default: it is in --cert's file]."),
    click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="text: tables on a terminal, tab-separated lines elsewhere; json: one document, or a line for each record.",
    ),
)
CONNECTION_OPTIONS = ("bootstrap", "command_config", "tls", "ca", "cert", "key")

group_argument = click.argument("group", shell_complete=complete_groups)
topic_argument = click.argument("topic", shell_complete=complete_topics)


def remote(verb: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes of a coroutine `verb(session, ...)` a command's function with the options of a connection."""

    @functools.wraps(verb)
    def command(output: str, **given: Any) -> None:
        connection = {name: given.pop(name) for name in CONNECTION_OPTIONS}
        run(functools.partial(verb, **given), connection, output)

    for option in reversed(_CONNECTION):
        command = option(command)
    return command


def asks_first(question: str, names: str) -> Callable[[F], F]:
    """Around a command: on a terminal nothing is done before somebody said yes. `names` is the argument put into it.

    It asks before there is an event loop, which would take Ctrl-C for itself and leave the question standing.
    """

    def decorate(command: F) -> F:
        @click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")
        @functools.wraps(command)
        def asking(yes: bool, **given: Any) -> None:
            if not yes and sys.stdin.isatty() and sys.stdout.isatty():
                ask(question.format(", ".join(map(printable, given[names]))))
            command(**given)

        return cast(F, asking)

    return decorate


def ask(question: str) -> None:
    """Go on after a yes; anything else ends the verb."""
    try:
        click.echo(f"{question} [y/N]: ", nl=False, err=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        click.echo(err=True)
        leave(INTERRUPTED)
    if answer.strip().lower() not in ("y", "yes"):
        raise click.Abort


def run(
    verb: Callable[[Session], Coroutine[Any, Any, None]], connection: dict[str, Any], output: str
) -> None:
    """Run a verb to its end."""
    with stdout_written():
        _run(verb, connection, output)


@contextmanager
def stdout_written() -> Iterator[None]:
    """Ends a verb as it must end when stdout takes nothing more, or Ctrl-C comes."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    except BrokenPipeError:
        leave(PIPE_CLOSED)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        discard_stdout()
        raise Failure(f"stdout cannot be written: {error.strerror}") from None


def _run(
    verb: Callable[[Session], Coroutine[Any, Any, None]], connection: dict[str, Any], output: str
) -> None:
    import asyncio

    from kbroker.cli.client.errors import ClientError, say
    from kbroker.errors import KafkaError

    try:
        asyncio.run(_main(verb(Session(reach_of(connection), output))))
    except asyncio.CancelledError:
        leave(TERMINATED)
    except KafkaError as error:
        raise Failure(printable(say(error))) from None
    except ClientError as error:
        raise Failure(printable(str(error))) from None


async def _main(verb: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends a verb as Ctrl-C does: a group is left, a temporary topic deleted."""
    import asyncio
    import signal

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (RuntimeError, ValueError):
        pass  # not the main thread: an embedding program has signals of its own
    await verb


def reach_of(connection: dict[str, Any]) -> Reach:
    """Where to, by the options of a connection."""
    from kbroker.cli.client.properties import load_properties, reach

    given = dict(connection)
    properties = load_properties(given.pop("command_config"))
    return reach(properties=properties, **given)


def leave(code: int) -> NoReturn:
    """End without a word."""
    discard_stdout()
    raise click.exceptions.Exit(code)


def discard_stdout() -> None:
    """What stdout still holds has no reader: the interpreter must not try to write it."""
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # stdout is no file of the system's: a test's, say
