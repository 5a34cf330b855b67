"""`kbroker produce TOPIC`: records from the lines of stdin."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kbroker.cli.common import Failure, Session, remote, topic_argument
from kbroker.cli.output import printable

if TYPE_CHECKING:
    from kbroker.cli.client.producer import Producer

ACKS = {"0": 0, "1": 1, "all": -1}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def header_pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, bytes | None], ...]:
    """NAME=VALUE options as headers."""
    found = []
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", ctx, param)
        found.append((name, rest.encode()))
    return tuple(found)


@click.command()
@topic_argument
@click.option(
    "-i",
    "--input",
    "form",
    type=click.Choice(["lines", "json"]),
    default="lines",
    help="lines: each line is a value; json: each is an object with value, key, headers, partition, timestamp.",
)
@click.option(
    "-K", "--key-separator", metavar="TEXT", help="What stands between key and value in a line: \\t is a tab."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=header_pairs,
    help="For each record.",
)
@click.option(
    "-p", "--partition", type=click.IntRange(0), help="To this partition [default: by key, else in turn]."
)
@click.option(
    "--acks", type=click.Choice(list(ACKS)), default="all", show_default=True, help="Whose word counts."
)
@click.option("-z", "--compression", type=click.Choice(CODECS), default="none", show_default=True)
@remote
async def produce(
    session: Session,
    topic: str,
    form: str,
    key_separator: str | None,
    headers: tuple[tuple[str, bytes | None], ...],
    partition: int | None,
    acks: str,
    compression: str,
) -> None:
    """Send each line of stdin as a record.

    \b
    echo hello | kbroker produce greetings
    kbroker produce orders -K : < key-and-value.txt
    kbroker consume orders -e -o json | kbroker produce copy -i json
    """
    from kbroker.cli.client.batches import encode_headers
    from kbroker.cli.client.producer import Producer
    from kbroker.cli.lines import LineTooLong, read_lines
    from kbroker.cli.progress import Progress
    from kbroker.cli.sources import BadLine, JsonSource, PairSource, Source, ValueSource
    from kbroker.protocol.compression import CODECS as CODES

    if form == "json" and key_separator is not None:
        raise click.UsageError("--key-separator is for lines; with --input json the key is in the object")
    separator = None if key_separator is None else unescape(key_separator)
    began = time.monotonic()
    async with (
        session.cluster() as cluster,
        Producer(cluster, topic, acks=ACKS[acks], codec=CODES[compression]) as producer,
    ):
        source: Source
        if form == "json":
            source = JsonSource(producer, headers, partition)
        elif separator is not None:
            source = PairSource(producer, encode_headers(headers), partition, separator)
        else:
            source = ValueSource(producer, encode_headers(headers), partition)
        with Progress("sending", total_bytes=bytes_of_stdin()) as progress:
            read = 0
            try:
                async for lines, _ in read_lines(stdin_fd()):
                    await source.send(lines)
                    read += sum(map(len, lines)) + len(lines)
                    progress.show(read, producer.sent)
                await producer.flush()
            except BadLine as error:
                await producer.flush()
                raise Failure(printable(f"{error}; {producer.sent} records before it were sent")) from None
            except LineTooLong:
                raise Failure("a line is longer than any request may be") from None
            except OSError as error:
                raise Failure(f"stdin cannot be read: {error.strerror}") from None
    summary(session, producer, read, time.monotonic() - began)


def summary(session: Session, producer: Producer, read: int, seconds: float) -> None:
    """What was sent: a document, or a line for whoever sits there."""
    value: dict[str, Any] = {
        "topic": producer.topic,
        "records": producer.sent,
        "bytes": read,
        "seconds": round(seconds, 3),
    }
    if session.json:
        session.document(value)
    elif sys.stderr.isatty():
        click.echo(f"{producer.sent:,} records, {read / 1e6:,.1f} MB in {seconds:.1f} s", err=True)


def stdin_fd() -> int:
    """Where lines come from."""
    return sys.stdin.fileno()


def bytes_of_stdin() -> int | None:
    """How much will come, when stdin is a file."""
    import os
    import stat

    status = os.fstat(stdin_fd())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def unescape(text: str) -> bytes:
    """A separator as it is typed: \\t, \\n, \\0, \\x1f and \\\\ mean what they do in C."""
    import re

    names = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "\\": "\\"}

    def one(match: re.Match[str]) -> str:
        word = match[1]
        return chr(int(word[1:], 16)) if len(word) == 3 else names.get(word, match[0])

    separator = re.sub(r"\\(x[0-9a-fA-F]{2}|.)", one, text).encode()
    if not separator:
        raise click.UsageError("--key-separator is empty")
    return separator
