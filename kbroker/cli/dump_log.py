"""`kbroker dump-log FILE...`: what is in a partition's files, and whether they are whole; exit code 1 if not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from kbroker.cli.common import stdout_written
from kbroker.cli.dumps import indexes, segments, tables
from kbroker.cli.dumps.common import Damage, Depth, Dump, plain_name

DUMPERS: dict[str, Dump] = {
    ".log": segments.dump_segment,
    ".index": indexes.dump_offset_index,
    ".timeindex": indexes.dump_time_index,
    ".snapshot": tables.dump_snapshot,
    ".txnindex": tables.dump_aborted,
}

# Segments of a folder that are named when the folder is given instead.
SHOWN_MAX = 10


@click.command("dump-log")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--deep-iteration", is_flag=True, help="Show every record of a batch.")
@click.option("--print-data-log", is_flag=True, help="Show every record with its key, value and headers.")
@click.option(
    "--verify", is_flag=True, help="Check the records of every batch too, and print only what is damaged."
)
def dump_log(files: tuple[str, ...], deep_iteration: bool, print_data_log: bool, verify: bool) -> None:
    """Show what is in a segment file.

    FILES are a partition's segments (.log), indexes (.index, .timeindex, .txnindex), producer snapshots (.snapshot)
    or checkpoints. An index is compared with the segment beside it. What is damaged is said with its position, and the
    exit code is 1. With --verify, files of other kinds are named and left out.
    """
    depth = Depth(records=deep_iteration or print_data_log, data=print_data_log, verify=verify)
    known = {path: dump for path in files if (dump := dumper(path)) is not None}
    others = [path for path in files if path not in known]
    if others and not (verify and known):
        raise click.UsageError(_why_not(others[0]))  # before anything is shown: no half of an answer
    with stdout_written():
        for path in others:
            kind = "a folder" if os.path.isdir(path) else "a file of another kind"
            click.echo(f"{path}: not checked, {kind}")
        damaged = sum([_print(path, dump(path, depth), quiet=verify) for path, dump in known.items()])
    if damaged:
        raise click.exceptions.Exit(1)


def dumper(path: str) -> Dump | None:
    """Who can read the file, by its name."""
    if os.path.isdir(path):
        return None
    name = plain_name(path)
    return tables.dump_checkpoint if name in tables.CHECKPOINTS else DUMPERS.get(os.path.splitext(name)[1])


def _why_not(path: str) -> str:
    if not os.path.isdir(path):
        return f"{path}: neither {', '.join(DUMPERS)} nor a checkpoint file"
    logs = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".log"))
    if not logs:
        return f"{path} is a folder without segments (.log): name a partition's, for example {path}/TOPIC-0/*.log"
    more = f" and {len(logs) - SHOWN_MAX} more" if len(logs) > SHOWN_MAX else ""
    return f"{path} is a folder: name files in it ({', '.join(logs[:SHOWN_MAX])}{more})"


def _print(path: str, lines: Iterator[str], *, quiet: bool) -> int:
    """Print the lines, only the damage if `quiet`; how many of them are damage."""
    if not quiet:
        click.echo(path)
    damaged = 0
    for line in _until_unreadable(lines):
        if isinstance(line, Damage):
            damaged += 1
            click.echo(f"{path}: DAMAGED {line}")
        elif not quiet:
            click.echo(f"  {line}")
    if quiet and not damaged:
        click.echo(f"{path}: ok")
    return damaged


def _until_unreadable(lines: Iterator[str]) -> Iterator[str]:
    """The lines, and a last one where the file cannot be read; what goes wrong with printing them is another matter."""
    try:
        yield from lines
    except OSError as error:
        yield Damage(f"cannot be read: {error.strerror or error}")
