"""How far each log of a directory is compacted: Kafka's `cleaner-offset-checkpoint`. Read when first asked for.

What it says too little is compacted once more. It must not say too much: of what it calls clean no key is looked for, and
a record that a tombstone deleted would be there again once the tombstone has gone. Written in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.storage.checkpoints import encode_offsets, read_offsets, replace_file

if TYPE_CHECKING:
    from kbroker.storage.directory import LogDirectory

log = logs.get_logger("storage")

CLEANER_FILE = "cleaner-offset-checkpoint"


class CleanerPoints:
    """First dirty offset by partition: below it the last round has compacted everything."""

    __slots__ = ("_again", "_directory", "_offsets", "_writing")

    def __init__(self, directory: LogDirectory) -> None:
        self._directory = directory
        self._offsets: dict[TopicPartition, int] | None = None
        self._writing = False
        self._again = False  # something moved since the content that is being written

    @property
    def offsets(self) -> Mapping[TopicPartition, int]:
        """All of them."""
        return self._loaded()

    def move(self, tp: TopicPartition, offset: int) -> None:
        """A round has come to its end."""
        self._loaded()[tp] = offset
        self._write()

    def lower(self, tp: TopicPartition, offset: int) -> None:
        """The log ends at `offset`."""
        offsets = self._loaded()
        if not offset:
            self.forget(tp)
        elif offsets.get(tp, 0) > offset:
            offsets[tp] = offset
            self._write()

    def forget(self, tp: TopicPartition) -> None:
        """The partition was deleted."""
        if self._loaded().pop(tp, None) is not None:
            self._write()

    def _loaded(self) -> dict[TopicPartition, int]:
        if self._offsets is None:
            try:
                self._offsets = read_offsets(self._directory.disk, self._path)
            except (OSError, ValueError) as error:
                log.warning("checkpoint not used", file=CLEANER_FILE, why=str(error))
                self._offsets = {}
        return self._offsets

    @property
    def _path(self) -> str:
        return f"{self._directory.path}/{CLEANER_FILE}"

    def _write(self) -> None:
        if self._writing:
            self._again = True
            return
        directory = self._directory
        if directory.failed is not None:
            return
        self._writing, self._again = True, False
        content = encode_offsets(self._loaded())
        work = partial(replace_file, directory.disk, self._path, content, fsync=directory.fsync)
        directory.threads.run(work, self._written)

    def _written(self, _: None, error: BaseException | None) -> None:
        self._writing = False
        if error is not None:
            log.warning("checkpoint not written", file=CLEANER_FILE, error=str(error))
        elif self._again:
            self._write()
