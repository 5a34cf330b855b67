"""A log directory's checkpoints: recovery points, log start offsets, high watermarks.

A recovery point says: below it everything (batches, indexes, epochs) is on the disk for good, recovery may trust it.
So it rises only after all that was synced, and is lowered, durably, before a log is cut below it.
Threads write and sync files; renames happen on the loop, so that none is put in the place of a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.seams import Disk, File, NotOpened
from kbroker.storage.checkpoints import encode_offsets, prepare_file, put_in_place, read_offsets

if TYPE_CHECKING:
    from kbroker.storage.directory import LogDirectory
    from kbroker.storage.log import PartitionLog

log = logs.get_logger("storage")

RECOVERY_FILE = "recovery-point-offset-checkpoint"
STARTS_FILE = "log-start-offset-checkpoint"
WATERMARKS_FILE = "replication-offset-checkpoint"

# Logs saved on the loop before their files are handed to a thread: 200 take about 10 ms when all have something new.
LOGS_PER_STEP = 200

Done = Callable[[BaseException | None], None]


class Stale:
    """Deleted partitions that one of the files still names, and that it stops naming once it is written anew."""

    __slots__ = ("_named", "_while_written")

    def __init__(self) -> None:
        self._named: set[TopicPartition] = set()
        self._while_written: set[TopicPartition] = set()  # in what lies there only

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._named or tp in self._while_written

    def __bool__(self) -> bool:
        return bool(self._named or self._while_written)

    def add(self, tp: TopicPartition) -> None:
        self._named.add(tp)

    def writing(self) -> None:
        """The content that is about to be written names none of them."""
        self._while_written |= self._named
        self._named = set()

    def wrote(self, *, durably: bool) -> None:
        """It is on the disk, or it is not."""
        if not durably:
            self._named |= self._while_written
        self._while_written = set()


class Checkpointer:
    """The three offset checkpoints of a directory, in memory and on disk."""

    __slots__ = (
        "_directory",
        "_folders",
        "_running",
        "_saved",
        "_stale",
        "_start_waiters",
        "_starts_running",
        "_starts_void",
        "_todo",
        "_void",
        "recovery",
        "starts",
        "watermarks",
    )

    def __init__(self, directory: LogDirectory) -> None:
        self._directory = directory
        self.recovery: dict[TopicPartition, int] = {}  # no file says more than this
        self.starts: dict[TopicPartition, int] = {}
        self.watermarks: dict[TopicPartition, int] = {}  # hints: min(this, log end)
        self._stale = {name: Stale() for name in (RECOVERY_FILE, STARTS_FILE, WATERMARKS_FILE)}
        self._running = False
        self._void = False  # what a thread is preparing is out of date
        self._todo: list[PartitionLog] = []
        self._saved: list[tuple[PartitionLog, int, int]] = []  # their points are not on the disk yet
        self._folders: set[str] = set()  # their names are to be synced before the points count
        self._starts_running = False
        self._starts_void = False
        self._start_waiters: list[Done] = []

    @property
    def idle(self) -> bool:
        """Nothing is being saved."""
        return not self._running and not self._starts_running

    def read(self) -> None:
        """Read the files. ValueError when the log starts are damaged: deleted records would come back."""
        disk, path = self._directory.disk, self._directory.path
        self.starts = read_offsets(disk, f"{path}/{STARTS_FILE}")
        self.recovery = self._read_or_none(RECOVERY_FILE)  # none: the logs are checked from their beginning
        self.watermarks = self._read_or_none(WATERMARKS_FILE)

    def _read_or_none(self, name: str) -> dict[TopicPartition, int]:
        try:
            return read_offsets(self._directory.disk, f"{self._directory.path}/{name}")
        except ValueError as error:
            log.warning("checkpoint not used", file=name, why=str(error))
            return {}

    # -- recovery points

    def begin(self, watermarks: Mapping[TopicPartition, int] | None) -> None:
        """Save what moved, sync it, then write the points. Does nothing while one is in progress."""
        if watermarks is not None:
            self.watermarks = dict(watermarks)
        if self._running or self._directory.failed is not None:
            return
        self._running = True
        self._todo = [each for each in self._directory.logs.values() if each.unsaved]
        self._step()

    def _step(self) -> None:
        """Some logs put their indexes and epochs into files; a thread syncs those."""
        group, self._todo = self._todo[:LOGS_PER_STEP], self._todo[LOGS_PER_STEP:]
        if not group:
            self._prepare()
            return
        files: list[File] = []
        points: list[tuple[PartitionLog, int, int]] = []
        for each in group:
            if each.deleted:
                continue
            try:
                point, written = each.save()
            except BaseException as error:
                self._give_up([each, *(saved for saved, _, _ in points)])
                if not isinstance(error, OSError):
                    raise
                self._directory.write_failed(each, error)
                return
            files += written
            points.append((each, point, each.truncations))
        self._directory.threads.run(partial(_sync_files, files), partial(self._step_done, points))

    def _step_done(
        self, points: list[tuple[PartitionLog, int, int]], _: None, error: BaseException | None
    ) -> None:
        if error is not None:
            self._give_up([each for each, _, _ in points])
            # a file that went in the middle, or there was no descriptor for it: the next time, then
            if not isinstance(error, FileNotFoundError | NotOpened):
                self._directory.fsync_failed(error)
            return
        for number, (each, point, truncations) in enumerate(points):
            if each.deleted:
                continue
            if each.truncations != truncations:
                each.not_saved()  # cut meanwhile: what was synced says nothing of what is there now
                continue
            try:
                if each.saved():
                    self._folders.add(each.folder)
            except BaseException as failed:
                self._give_up([later for later, _, _ in points[number:]])
                if not isinstance(failed, OSError):
                    raise
                self._directory.write_failed(each, failed)
                return
            self.recovery[each.tp] = point
            self._saved.append((each, point, truncations))
        self._step()

    def _give_up(self, logs: list[PartitionLog]) -> None:
        """These were to be saved; the next checkpoint tries again."""
        self._running = False
        self._saved = []
        for each in logs:
            each.not_saved()

    def _prepare(self) -> None:
        self._void = False
        path = self._directory.path
        self._stale[RECOVERY_FILE].writing()
        self._stale[WATERMARKS_FILE].writing()
        content = [
            (f"{path}/{RECOVERY_FILE}", encode_offsets(self.recovery)),
            (f"{path}/{WATERMARKS_FILE}", encode_offsets(self.watermarks)),
        ]
        folders = sorted(self._folders) if self._directory.fsync else []
        work = partial(_prepare_files, self._directory.disk, folders, content, self._directory.fsync)
        self._directory.threads.run(work, self._prepared)

    def _prepared(self, paths: list[str] | None, error: BaseException | None) -> None:
        if error is None:
            self._folders.clear()
            if self._void:
                self._prepare()
                return
            try:
                for path in paths or []:
                    put_in_place(self._directory.disk, path)
            except OSError as failed:
                error = failed
        if error is not None:
            log.warning("checkpoint not written", path=self._directory.path, error=str(error))
            self._written(durably=False)
        elif self._directory.fsync:
            sync = partial(self._directory.disk.sync_dir, self._directory.path)
            self._directory.threads.run(sync, self._finished)
        else:
            self._written(durably=True)

    def _finished(self, _: None, error: BaseException | None) -> None:
        self._written(durably=error is None)
        if error is not None and not isinstance(error, NotOpened):
            self._directory.fsync_failed(error)

    def _written(self, *, durably: bool) -> None:
        self._running = False
        saved, self._saved = self._saved, []
        for each, point, truncations in saved if durably else ():
            if each.truncations == truncations:
                each.saved_to = max(each.saved_to, point)
        self._stale[RECOVERY_FILE].wrote(durably=durably)
        self._stale[WATERMARKS_FILE].wrote(durably=durably)

    def lower(self, tp: TopicPartition, offset: int) -> None:
        """The log is about to be cut to `offset`: no point may lie beyond. Durable when this returns."""
        if self.recovery.get(tp, 0) > offset:
            self.recovery[tp] = offset
            self._write(RECOVERY_FILE, self.recovery)
            self._void = True

    def named(self) -> set[TopicPartition]:
        """Partitions that have had records, as far as the points tell."""
        return {
            tp for offsets in (self.recovery, self.starts) for tp, offset in offsets.items() if offset > 0
        }

    def reached(self, tp: TopicPartition) -> int:
        """An offset below which all were once given to records."""
        return max(offsets.get(tp, 0) for _, offsets in self._files())

    def correct_start(self, tp: TopicPartition, start: int) -> None:
        """The log begins at `start`, whatever was noted. Durable when this returns."""
        self.starts[tp] = start
        self._write(STARTS_FILE, self.starts)
        self._starts_void = True

    def forget(self, tp: TopicPartition) -> None:
        """The partition was deleted."""
        for name, offsets in self._files():
            if offsets.pop(tp, None) is not None:
                self._stale[name].add(tp)

    def made_anew(self, tp: TopicPartition) -> None:
        """A new log is about to be made: no file must say of it what was true of a deleted one. Durable when this
        returns."""
        if any(tp in stale for stale in self._stale.values()):
            self.name_no_deleted()
        self._directory.cleaned.made_anew(tp)

    def name_no_deleted(self) -> None:
        """Write the files that name deleted partitions. Durable when this returns."""
        for name, offsets in self._files():
            if self._stale[name]:
                self._write(name, offsets)
                self._void = True
                self._starts_void = True

    def _files(self) -> list[tuple[str, dict[TopicPartition, int]]]:
        return [
            (RECOVERY_FILE, self.recovery),
            (STARTS_FILE, self.starts),
            (WATERMARKS_FILE, self.watermarks),
        ]

    def write_all(self, watermarks: Mapping[TopicPartition, int] | None) -> None:
        """Write the three files now: the last act of a stop. Every log is saved and synced, but for stopped ones."""
        if watermarks is not None:
            self.watermarks = dict(watermarks)
        for each in self._directory.logs.values():
            if each.segments and each.broken is None:
                self.recovery[each.tp] = each.end
        self._write(RECOVERY_FILE, self.recovery)
        self._write(STARTS_FILE, self.starts)
        self._write(WATERMARKS_FILE, self.watermarks)

    # -- log starts

    def move_start(self, tp: TopicPartition, start: int, done: Done) -> None:
        """Remember a log's start; `done` once it is on the disk."""
        self.starts[tp] = start
        if not self._directory.fsync:
            try:
                self._write(STARTS_FILE, self.starts)
            except OSError as error:
                done(error)
                return
            done(None)
            return
        self._start_waiters.append(done)
        if not self._starts_running:
            self._prepare_starts()

    def _prepare_starts(self) -> None:
        self._starts_running, self._starts_void = True, False
        waiters, self._start_waiters = self._start_waiters, []
        self._stale[STARTS_FILE].writing()
        content = [(f"{self._directory.path}/{STARTS_FILE}", encode_offsets(self.starts))]
        work = partial(_prepare_files, self._directory.disk, [], content, True)
        self._directory.threads.run(work, partial(self._starts_prepared, waiters))

    def _starts_prepared(
        self, waiters: list[Done], paths: list[str] | None, error: BaseException | None
    ) -> None:
        if error is None and self._starts_void:
            self._start_waiters = waiters + self._start_waiters
            self._prepare_starts()
            return
        if error is None:
            try:
                for path in paths or []:
                    put_in_place(self._directory.disk, path)
            except OSError as failed:
                error = failed
        if error is not None:
            self._starts_done(waiters, None, error)
            return
        sync = partial(self._directory.disk.sync_dir, self._directory.path)
        self._directory.threads.run(sync, partial(self._starts_done, waiters))

    def _starts_done(self, waiters: list[Done], _: None, error: BaseException | None) -> None:
        self._starts_running = False
        self._stale[STARTS_FILE].wrote(durably=error is None)
        for done in waiters:
            done(error)
        if self._start_waiters and not self._starts_running:
            self._prepare_starts()

    def _write(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        disk, path = self._directory.disk, self._directory.path
        self._stale[name].writing()
        fresh = prepare_file(
            disk, f"{path}/{name}", encode_offsets(offsets), fsync=self._directory.fsync, suffix=".new"
        )
        disk.rename(fresh, f"{path}/{name}")
        if self._directory.fsync:
            disk.sync_dir(path)
        self._stale[name].wrote(durably=True)


def _sync_files(files: list[File]) -> None:
    for file in files:
        file.sync()


def _prepare_files(
    disk: Disk, folders: list[str], contents: list[tuple[str, bytes]], fsync: bool
) -> list[str]:
    for folder in folders:
        if disk.exists(folder):
            disk.sync_dir(folder)
    for path, content in contents:
        prepare_file(disk, path, content, fsync=fsync)
    return [path for path, _ in contents]
