"""`python -m kbroker` and the `kbroker` command. Hands over to the command line; knows nothing else."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from kbroker.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
