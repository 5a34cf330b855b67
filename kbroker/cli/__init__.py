"""The command line: thin click verbs, loaded lazily; what is heavy is imported inside the verb that needs it.

`kbroker --help` imports no verb: the table below carries their names and first lines.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, NamedTuple

import click

from kbroker import __version__, is_compiled

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(NamedTuple):
    """A verb that is not imported before it is called."""

    module: str
    attribute: str
    help: str


VERBS = {
    "start": Verb("kbroker.cli.start", "start", "Start a broker and serve until SIGTERM or Ctrl-C."),
    "topic": Verb("kbroker.cli.topic", "topic", "Create, list, describe, delete and alter topics."),
    "produce": Verb("kbroker.cli.produce", "produce", "Send each line of stdin as a record."),
    "consume": Verb("kbroker.cli.consume", "consume", "Print the records of a topic, and those that come."),
    "group": Verb(
        "kbroker.cli.group",
        "group",
        "List and describe groups with their lag, move their offsets, delete them.",
    ),
    "config": Verb("kbroker.cli.config", "config", "Show and change configs of topics and brokers."),
    "doctor": Verb(
        "kbroker.cli.doctor",
        "doctor",
        "Walk to a cluster as a client does, and say what fails and what helps.",
    ),
    "completion": Verb(
        "kbroker.cli.completion",
        "completion",
        "Print what makes a shell complete verbs, options and topics.",
    ),
    "dump-log": Verb("kbroker.cli.dump_log", "dump_log", "Show what is in a segment file."),
}


class LazyVerbs(click.Group):
    """A group that knows its verbs by name and help alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb that was asked for."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command = getattr(importlib.import_module(verb.module), verb.attribute)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options before the verb: there are two, and whoever gives another means one of the verb."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            words = (
                f"{error.format_message()} Options of a verb stand behind it: kbroker VERB --help has them."
            )
            raise click.UsageError(words, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb, or the one that may have been meant: click looks for it among verbs that are imported."""
        word = args[0]
        if word not in VERBS and not word.startswith("-") and not ctx.resilient_parsing:
            from kbroker.cli.output import did_you_mean

            raise click.UsageError(
                f"No such command {word!r}{did_you_mean(word, VERBS, otherwise=', '.join(VERBS))}", ctx
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs from the table: importing each of them to complete one would be slow."""
        from click.shell_completion import CompletionItem

        options = super(click.Group, self).shell_complete(ctx, incomplete)
        verbs = [
            CompletionItem(name, help=verb.help)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]
        return [*verbs, *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


class GivenPath(click.Path):
    """A path that somebody names. An empty one is what a shell makes of "$UNSET": it must not stand for another place."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path; a usage error that names the option where there is none."""
        if not os.fspath(value):
            flag = param.opts[0] if param is not None else "the path"
            words = f"{flag} is empty: give a path, or leave {flag} out (is a shell's variable not set?)"
            raise click.UsageError(words, ctx)
        return super().convert(value, param, ctx)


def _tell_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"kbroker {__version__} ({'compiled' if is_compiled() else 'not compiled'})")
        context.exit()


@click.command(cls=LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_version,
    help="Show the version, and whether it is compiled.",
)
def main() -> None:
    """A log broker that existing Kafka clients use unchanged."""
