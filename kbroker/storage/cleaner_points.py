"""How far each log of a directory is compacted: Kafka's `cleaner-offset-checkpoint`. Read when first asked for.

What it says too little is compacted once more. It must not say too much: of what it calls clean no key is looked for, and
a record that a tombstone deleted would be there again once the tombstone has gone. Threads write and sync the file, one at
a time; it takes its name on the loop, so that none is put in the place of a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.seams import NotOpened
from kbroker.storage.checkpointer import Stale
from kbroker.storage.checkpoints import encode_offsets, prepare_file, put_in_place, read_offsets

if TYPE_CHECKING:
    from kbroker.storage.directory import LogDirectory

log = logs.get_logger("storage")

CLEANER_FILE = "cleaner-offset-checkpoint"

# A file that could not be written, on a full disk mostly, is written again after this.
AGAIN_SECONDS = 10.0


class CleanerPoints:
    """First dirty offset by partition: below it the last round has compacted everything."""

    __slots__ = ("_again", "_directory", "_later", "_offsets", "_stale", "_unread", "_writing")

    def __init__(self, directory: LogDirectory) -> None:
        self._directory = directory
        self._offsets: dict[TopicPartition, int] | None = None
        self._stale = Stale()
        self._unread = False  # the file could not be read: it may name any
        self._writing = False
        self._again = False  # something moved since the content that is being written
        self._later = False  # it failed, and is written again after a while

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
            self._stale.add(tp)
            self._write()

    def made_anew(self, tp: TopicPartition) -> None:
        """A new log is about to be made: the file must not say of it what was true of a deleted one. Durable when this
        returns; OSError."""
        if tp not in self._stale and not self._unread:
            return
        directory, written = self._directory, False
        self._stale.writing()
        try:
            content = encode_offsets(self._loaded())
            fresh = prepare_file(directory.disk, self._path, content, fsync=directory.fsync, suffix=".new")
            directory.disk.rename(fresh, self._path)
            if directory.fsync:
                directory.disk.sync_dir(directory.path)
            written, self._unread = True, False
        finally:
            self._stale.wrote(durably=written)

    def _loaded(self) -> dict[TopicPartition, int]:
        if self._offsets is None:
            try:
                self._offsets = read_offsets(self._directory.disk, self._path)
            except (OSError, ValueError) as error:
                log.warning("checkpoint not used", file=CLEANER_FILE, why=str(error))
                self._offsets, self._unread = {}, True
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
        self._stale.writing()
        content = encode_offsets(self._loaded())
        work = partial(prepare_file, directory.disk, self._path, content, fsync=directory.fsync)
        directory.threads.run(work, self._prepared)

    def _prepared(self, _: str | None, error: BaseException | None) -> None:
        directory = self._directory
        if error is None and self._again:
            self._writing = False
            self._write()
            return
        if error is None:
            try:
                put_in_place(directory.disk, self._path)
            except OSError as failed:
                error = failed
        if error is None and directory.fsync:
            directory.threads.run(partial(directory.disk.sync_dir, directory.path), self._synced)
        else:
            self._written(error)

    def _synced(self, _: None, error: BaseException | None) -> None:
        self._written(error)
        if error is not None and not isinstance(error, NotOpened):
            self._directory.fsync_failed(error)

    def _written(self, error: BaseException | None) -> None:
        self._writing = False
        self._stale.wrote(durably=error is None)
        if error is not None:
            log.warning("checkpoint not written", file=CLEANER_FILE, error=str(error))
            self._write_later()
        elif self._again:
            self._write()

    def _write_later(self) -> None:
        if not self._later:
            self._later = True
            clock = self._directory.clock
            clock.call_at(clock.monotonic() + AGAIN_SECONDS, self._write_again)

    def _write_again(self) -> None:
        self._later = False
        if self._directory.taken:
            self._write()
