"""`kbroker dump-log FILE...`: what is in a partition's files, and whether they are whole; exit code 1 if not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from kbroker.cli.dumps import indexes, segments, tables
from kbroker.cli.dumps.common import Damage, Depth, Dump, plain_name

DUMPERS: dict[str, Dump] = {
    ".log": segments.dump_segment,
    ".index": indexes.dump_offset_index,
    ".timeindex": indexes.dump_time_index,
    ".snapshot": tables.dump_snapshot,
    ".txnindex": tables.dump_aborted,
}


@click.command("dump-log")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--deep-iteration", is_flag=True, help="Show every record of a batch.")
@click.option("--print-data-log", is_flag=True, help="Show every record with its key, value and headers.")
@click.option(
    "--verify", is_flag=True, help="Check the records of every batch too, and print only what is damaged."
)
def dump_log(files: tuple[str, ...], deep_iteration: bool, print_data_log: bool, verify: bool) -> None:
    """Show what is in a segment file.

    FILES are a partition's segments (.log), indexes (.index, .timeindex, .txnindex), producer snapshots (.snapshot)
    or checkpoints. An index is compared with the segment beside it. What is damaged is said with its position, and the
    exit code is 1.
    """
    depth = Depth(records=deep_iteration or print_data_log, data=print_data_log, verify=verify)
    for path in files:
        dumper(path)  # all names first: no half of an answer
    damaged = sum([_print(path, dumper(path)(path, depth), quiet=verify) for path in files])
    if damaged:
        raise click.exceptions.Exit(1)


def dumper(path: str) -> Dump:
    """Who can read the file, by its name."""
    name = plain_name(path)
    dump = tables.dump_checkpoint if name in tables.CHECKPOINTS else DUMPERS.get(os.path.splitext(name)[1])
    if dump is None:
        raise click.UsageError(f"{path}: neither {', '.join(DUMPERS)} nor a checkpoint file")
    return dump


def _print(path: str, lines: Iterator[str], *, quiet: bool) -> int:
    """Print the lines, only the damage if `quiet`; how many of them are damage."""
    if not quiet:
        click.echo(path)
    damaged = 0
    try:
        for line in lines:
            if isinstance(line, Damage):
                damaged += 1
                click.echo(f"{path}: DAMAGED {line}")
            elif not quiet:
                click.echo(f"  {line}")
    except OSError as error:
        damaged += 1
        click.echo(f"{path}: DAMAGED cannot be read: {error.strerror or error}")
    if quiet and not damaged:
        click.echo(f"{path}: ok")
    return damaged
