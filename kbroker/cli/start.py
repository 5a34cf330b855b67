"""`kbroker start`: options become settings, log lines go to stderr, and the process runs one node until a signal."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from kbroker import __version__, is_compiled
from kbroker.cli import GivenPath

if TYPE_CHECKING:
    from kbroker.config import Settings


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Listen on this port of the loopback interface [default: 9092; 0: any free one].",
)
@click.option(
    "--data-dir",
    type=GivenPath(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the logs are kept [default: $XDG_DATA_HOME/kbroker].",
)
@click.option(
    "--config",
    type=GivenPath(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings in the syntax and with the names of Kafka's server.properties.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="One setting, above FILE. Repeatable."
)
@click.option(
    "--insecure", is_flag=True, help="Listen beyond loopback even without TLS and client authentication."
)
def start(
    *,
    port: int | None,
    data_dir: Path | None,
    config: Path | None,
    assignments: tuple[str, ...],
    insecure: bool,
) -> None:
    """Start a broker and serve until SIGTERM or Ctrl-C."""
    gc.disable()  # until it serves: imports and recovery make no garbage worth a collection
    from kbroker.errors import StartError

    try:
        log_lines(os.environ)
        overrides = [*assignments, *log_dir_of(data_dir, assignments)]
        serve(port=port, overrides=overrides, config=config, insecure=insecure)
    except StartError as error:
        stop_with(str(error))


def log_lines(environment: Mapping[str, str]) -> None:
    """Send this process's log lines to stderr, as KBROKER_LOG and KBROKER_LOG_LEVEL say."""
    from kbroker.errors import StartError
    from kbroker.observe import logs

    chosen = {}
    for name, choices in (("KBROKER_LOG", ("text", "json")), ("KBROKER_LOG_LEVEL", tuple(logs.LEVELS))):
        text = environment.get(name)
        if text and text.lower() not in choices:
            raise StartError(f"{name}={text}: choose one of {', '.join(choices)}")
        chosen[name] = text
    logs.to_stderr(style=chosen["KBROKER_LOG"] or "text", level=chosen["KBROKER_LOG_LEVEL"] or "info")


def log_dir_of(data_dir: Path | None, assignments: Sequence[str]) -> list[str]:
    """--data-dir as a setting. It stands above FILE; beside --set one of the two must be meant otherwise."""
    from kbroker.errors import StartError

    if data_dir is None:
        return []
    for assignment in assignments:
        name = assignment.partition("=")[0].strip()
        if name in ("log.dirs", "log.dir"):
            raise StartError(
                f"--data-dir {data_dir} and --set {assignment} both name the data's folder: give one"
            )
    return [f"log.dirs={data_dir.absolute()}"]


def serve(*, port: int | None, overrides: list[str], config: Path | None, insecure: bool) -> None:
    """Load the settings, check them, run the node."""
    from kbroker.cli.process import run

    settings = load(port=port, overrides=overrides, config=config)
    settings.check_exposure(insecure)
    warn(settings)
    run(settings, announce)


def load(*, port: int | None, overrides: list[str], config: Path | None) -> Settings:
    """The settings of FILE, with the overrides above it. `port` is for the default listener: it adds none, moves none."""
    from kbroker.config import Settings
    from kbroker.errors import StartError

    settings = Settings.load(config, overrides, environment=os.environ)
    if port is None:
        return settings
    if "listeners" not in settings.static:
        return Settings.load(
            config, [*overrides, f"listeners=PLAINTEXT://localhost:{port}"], environment=os.environ
        )
    if all(port != endpoint.port for endpoint in settings.listeners):
        raise StartError(
            f"--port {port} is none of listeners={settings.static['listeners']}; leave --port out, or set the port there"
        )
    return settings


def warn(settings: Settings) -> None:
    """Say what can start and will disappoint."""
    from kbroker.observe import logs

    factor = settings.default_replication_factor
    if factor > 1:
        logs.get_logger("start").warning(
            "there is one broker: topics that ask for the default replication factor are refused",
            factor=factor,
            cure="default.replication.factor=1",
        )


def announce(serving: str) -> None:
    """The broker serves: say so in one line on stdout."""
    from kbroker.cli.process import process_age

    build = " (compiled)" if is_compiled() else ""  # as in --version
    try:
        click.echo(f"kbroker {__version__}{build} serving on {serving}, ready in {process_age():.2f} s")
    except OSError:
        return  # nobody reads stdout; the broker serves all the same


def stop_with(sentence: str) -> NoReturn:
    """One sentence on stderr, exit status 1."""
    click.echo(f"kbroker cannot start: {sentence}", err=True)
    raise SystemExit(1)
