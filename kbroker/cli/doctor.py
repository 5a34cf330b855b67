"""`kbroker doctor`: goes the way a client goes, and says where it ends and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kbroker.cli.common import Session, complete_topics, remote
from kbroker.cli.output import on_terminal, printable, styled

if TYPE_CHECKING:
    from kbroker.cli.diagnosis.findings import Finding

SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}
CHECK_WIDTH = 24


@click.command()
@click.option(
    "-t",
    "--topic",
    metavar="TOPIC",
    shell_complete=complete_topics,
    help="Send the test record to this topic, instead of a temporary one.",
)
@remote
async def doctor(session: Session, topic: str | None) -> None:
    """Walk to a cluster as a client does, and say what fails and what helps.

    Names, connections, TLS, versions, every advertised address, then a record there and back, in a topic that is deleted
    afterwards. The exit code is 1 if anything failed.
    """
    import secrets

    from kbroker.cli.diagnosis.walk import examine

    found: list[Finding] = []
    async for finding in examine(session.reach, topic, secrets.token_hex(6)):
        found.append(finding)
        if not session.json:
            show(finding)
    well = all(finding.status != "failed" for finding in found)
    if session.json:
        session.document({"ok": well, "checks": [finding._asdict() for finding in found]})
    if not well:
        raise click.exceptions.Exit(1)


def show(finding: Finding) -> None:
    """A line for a script, or for a person with the cure below it."""
    if not on_terminal():
        click.echo(
            "\t".join([finding.status, finding.check, printable(finding.detail), finding.cure or ""]).rstrip(
                "\t"
            )
        )
        return
    sign, colour = SIGNS[finding.status]
    if "utf" not in (sys.stdout.encoding or "").lower():
        sign = finding.status
    click.echo(f"{styled(sign, fg=colour)} {finding.check:{CHECK_WIDTH}} {printable(finding.detail)}")
    if finding.cure:
        click.echo(styled(f"  {'':{CHECK_WIDTH}} -> {printable(finding.cure)}", fg=colour))
