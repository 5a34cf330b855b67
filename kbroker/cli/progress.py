"""How far long work is, on stderr, for whoever sits there; nothing at all when stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

# A terminal is written to this often at most, and not before work has taken this long.
EVERY_SECONDS = 0.2
AFTER_SECONDS = 1.0


class Progress:
    """`with Progress("sending", total_bytes=...) as progress: progress.show(bytes, records)`."""

    def __init__(self, what: str, *, total_bytes: int | None = None, wanted: bool = True) -> None:
        self._what = what
        self._total = total_bytes
        self._next = time.monotonic() + AFTER_SECONDS if wanted and sys.stderr.isatty() else float("inf")
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done_bytes: int, records: int) -> None:
        """It has come this far."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        if self._bar is None:
            self._bar = self._start()
        rate = done_bytes / 1e6 / max(now - self._began, 0.001)
        self._bar.update(
            self._task,
            completed=done_bytes,
            words=f"{records:,} records, {done_bytes / 1e6:,.0f} MB, {rate:,.0f} MB/s",
        )
        self._bar.refresh()

    def _start(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        columns: list[Any] = [TextColumn(self._what)]
        columns.append(BarColumn() if self._total else SpinnerColumn())
        bar = Bar(
            *columns,
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        bar.start()
        self._task = bar.add_task(self._what, total=self._total, words="")
        return bar
