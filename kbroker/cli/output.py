"""Tables: by rich on a terminal, else tab-separated rows without headings, whose columns scripts may rely on.

Text that comes from a cluster is made printable here: a record must not move the cursor of whoever looks at it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import JustifyMethod

# C0 and C1 controls, and what turns text around (bidirectional overrides and isolates).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
# JSON escapes C0 controls itself; those between its tokens are line ends.
_UNPRINTABLE_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
# What folds is at least so wide, and what stands between two columns.
FOLDED_MIN, PADDING = 20, 3
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """The text with control characters escaped."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    number = ord(char)
    return _NAMED.get(char) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def json_text(text: str) -> str:
    """JSON with escapes for what JSON itself would let through to a terminal."""
    return _UNPRINTABLE_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def did_you_mean(word: str, names: Iterable[str], *, otherwise: str | None = None) -> str:
    """The end of a sentence about a name that is not there: the one that is nearest, else all of them, if that helps."""
    import difflib

    near = difflib.get_close_matches(word, list(names), n=1)
    if near:
        return f": did you mean {near[0]}?"
    return f": choose among {otherwise}" if otherwise else ""


def text_of(value: Any) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "-"
    return printable(str(value))


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, folding: Sequence[str] = ()) -> None:
    """Print rows. Columns whose name begins with '>' stand right.

    Those named in `folding` may go on in the next line where a terminal is narrow. The others hold names, which somebody
    will copy: for them a table becomes wider than its terminal.
    """
    cells = [[text_of(value) for value in row] for row in rows]
    if not on_terminal():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    width = 0
    for index, column in enumerate(columns):
        name, right = column.lstrip(">"), column.startswith(">")
        least = max(map(cell_len, [name, *(row[index] for row in cells)]))
        if name in folding:
            least = min(least, FOLDED_MIN)
        justify: JustifyMethod = "right" if right else "left"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=name not in folding, min_width=least)
        width += least + PADDING
    for row in cells:
        shown.add_row(*map(Text, row))  # Text: no markup is read out of what others wrote
    console = Console()
    console.width = max(console.width, width)
    console.print(shown)


def heading(text: str) -> None:
    """A line above a table, for people alone."""
    if on_terminal():
        click.echo(styled(printable(text), bold=True))


def styled(text: str, **style: Any) -> str:
    """The text in a colour, or as it is for those who want none (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)
