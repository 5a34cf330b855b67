"""One log directory: identity, lock, the logs in it, their deletion, the clean-shutdown marker, its failed state.

Knows folders and files by Kafka's names; knows nothing of leaders, replicas or topics beyond their ids.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from kbroker.errors import DiskFailed, ErrorCode, KafkaError, StartError
from kbroker.model import TopicPartition, new_uuid
from kbroker.observe import logs
from kbroker.seams import Clock, Disk, Lock, NotOpened, Random, Threads
from kbroker.storage import opening, recovery
from kbroker.storage.checkpointer import Checkpointer
from kbroker.storage.checkpoints import EPOCHS_FILE, read_epochs, read_partition_metadata, replace_file
from kbroker.storage.cleaner_points import CleanerPoints
from kbroker.storage.flusher import Flusher
from kbroker.storage.identity import Identity, claim
from kbroker.storage.indexes import Indexes
from kbroker.storage.log import PartitionLog
from kbroker.storage.saver import Saver
from kbroker.storage.slices import Slices, whole
from kbroker.turn import Turn

if TYPE_CHECKING:
    from kbroker.config import TopicConfig
    from kbroker.storage.segment import Segment

log = logs.get_logger("storage")

# Free bytes at which a directory that was full takes writes again: with less the next batch might fill it once more.
FREE_BYTES_AGAIN = 16 * 1024 * 1024
FREE_SHARE_AGAIN = 100  # or that fraction of a small disk
FREE_CHECK_S = 1.0  # how often a full directory is looked at

# Of the process or the system, not of the disk: it passes, and says nothing of what was written.
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

# A producer that sent nothing for this long is forgotten (producer.id.expiration.ms).
PRODUCER_EXPIRATION_MS = 24 * 3600 * 1000

LOCK_FILE = ".lock"
CLEAN_FILE = ".kafka_cleanshutdown"
FSYNC_FAILED_FILE = ".fsync_failed"  # written, if it can be, when an fsync failed; see `recovery.recover`

FOLDERS_PER_SLICE = 100  # looked at in one go when the directory is opened: some milliseconds

_NAME_MAX = 255  # bytes of a file's name
_STRAYS_NAMED_MAX = 10  # folders named in one log line
_FOLDER = re.compile(r"(.+)-(\d+)")
_DELETED = re.compile(r".+\.[0-9a-f]{32}-delete")
_NOT_OURS = frozenset({"__cluster_metadata"})  # Kafka's own Raft log: no topic


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found in a log directory."""

    identity: Identity
    clean: bool  # the last stop was: nothing has to be checked
    partitions: dict[TopicPartition, UUID]  # folders with data and their topic's id
    lost: frozenset[TopicPartition]  # once flushed, folder missing: this directory lost data


class LogDirectory:
    """The partitions' folders under one path."""

    def __init__(
        self,
        path: str,
        *,
        disk: Disk,
        clock: Clock,
        turn: Turn,
        threads: Threads,
        random: Random,
        fsync: bool,
    ) -> None:
        self.path = path
        self.disk = disk
        self.clock = clock
        self.turn = turn
        self.threads = threads
        self.random = random
        self.fsync = fsync
        self.producer_expiration_ms = PRODUCER_EXPIRATION_MS
        self.logs: dict[TopicPartition, PartitionLog] = {}
        self.indexes = Indexes()
        self.flusher = Flusher(turn, threads, self.fsync_failed, self._flush_later)
        self.points = Checkpointer(self)
        self.cleaned = CleanerPoints(self)
        self.failed: DiskFailed | None = None  # a write or fsync failed: no more writes until the next start
        self.refusing = False  # failed, or full
        self._full_checked = 0.0
        self._scarce: str | None = None  # refusing because something ran out that is not space
        self._lock: Lock | None = None
        self._clean = True
        self._rewrite = False
        self._unchecked = opening.Unchecked(path, clock)
        self._lost: set[TopicPartition] = set()  # they had records, their folders are gone
        self._doomed: set[TopicPartition] = set()  # deleted, and their folders could not be renamed
        # topic ids of the folders that were there when it was opened, until each is opened: not read again
        self._seen: dict[TopicPartition, UUID] = {}

    @property
    def taken(self) -> bool:
        """It is open: nobody else writes in it."""
        return self._lock is not None

    @property
    def unchecked(self) -> bool:
        """The stop before was not clean, and not all that it left has been checked yet."""
        return bool(self._unchecked)

    # -- opening and closing

    def open(self, node_id: int, cluster_id: str | None) -> Opened:
        """Take the directory: lock, identity, what lies in it. StartError when it cannot be used."""
        return whole(self.open_in_slices(node_id, cluster_id))

    def open_in_slices(self, node_id: int, cluster_id: str | None) -> Slices[Opened]:
        """The same. Let go of when it is ended before."""
        disk, path = self.disk, self.path
        if not disk.exists(path):
            disk.mkdir(path)
            if self.fsync:
                disk.sync_dir(path.rpartition("/")[0] or "/")
        try:
            self._lock = disk.lock(f"{path}/{LOCK_FILE}")
        except BlockingIOError as error:
            raise StartError(
                f"{path} is in use by another process, or by another broker of this one: stop it, or use another "
                "data directory (--data-dir)"
            ) from error
        try:
            return (yield from self._open(node_id, cluster_id))
        except BaseException:
            self.abandon()
            raise

    def _open(self, node_id: int, cluster_id: str | None) -> Slices[Opened]:
        disk, path = self.disk, self.path
        identity = claim(
            disk, path, node_id=node_id, cluster_id=cluster_id, random=self.random, fsync=self.fsync
        )
        self._clean = disk.exists(f"{path}/{CLEAN_FILE}")
        self._rewrite = disk.exists(f"{path}/{FSYNC_FAILED_FILE}")
        try:
            self.points.read()
        except ValueError as error:
            raise StartError(
                f"{error}: restore it, or remove it (records deleted before may then be seen again)"
            ) from error
        names = disk.list(path)
        partitions = yield from self._partitions(names)
        if self._clean:
            disk.remove(f"{path}/{CLEAN_FILE}")
            if self.fsync:
                disk.sync_dir(path)  # before anything is written that a clean stop did not see
        self._seen = dict(partitions)
        if not self._clean:
            self._unchecked.begin(partitions)
        gone = [name for name in names if _DELETED.fullmatch(name)]
        deleted = {name.rpartition(".")[0] for name in gone}
        for tp in self.points.named() - partitions.keys():
            if str(tp) in deleted:
                self.points.forget(tp)
            else:
                self._lost.add(tp)
        for name in gone:
            self._remove_folder(name)
        _tell_of_strays(path, [name for name in names if name.endswith("-stray")])
        return Opened(identity=identity, clean=self._clean, partitions=partitions, lost=frozenset(self._lost))

    def _partitions(self, names: list[str]) -> Slices[dict[TopicPartition, UUID]]:
        found = {}
        for number, name in enumerate(names):
            if number % FOLDERS_PER_SLICE == FOLDERS_PER_SLICE - 1:
                yield 0
            match = _FOLDER.fullmatch(name)
            if match is None or match[1] in _NOT_OURS:
                continue
            topic_id = read_partition_metadata(self.disk, f"{self.path}/{name}")
            if topic_id is not None:
                found[TopicPartition(match[1], int(match[2]))] = topic_id
        return found

    def noted_epoch(self, tp: TopicPartition) -> int:
        """The newest leader epoch in a partition's file of them, records or not: Kafka notes an epoch when it begins."""
        try:
            pairs = read_epochs(self.disk, f"{self.path}/{tp}/{EPOCHS_FILE}")
        except ValueError:
            return 0  # the log itself says which epochs its batches have
        return max((epoch for epoch, _ in pairs), default=0)

    def log(self, tp: TopicPartition, topic_id: UUID, config: TopicConfig) -> PartitionLog:
        """The log of a partition: opened, recovering what must be, or a new one whose folder follows its first write.

        A folder of another topic id is put aside, or removed if it should have been before; it is never served.
        """
        return whole(self.opening(tp, topic_id, config))

    def opening(self, tp: TopicPartition, topic_id: UUID, config: TopicConfig) -> Slices[PartitionLog]:
        """The same in slices. Nobody else opens it meanwhile."""
        known = self.logs.get(tp)
        if known is not None:
            assert known.topic_id == topic_id, f"{tp} is open with another topic id"
            return known
        disk, folder = self.disk, f"{self.path}/{tp}"
        opened = PartitionLog(self, tp, topic_id, config, folder)
        seen = self._seen.pop(tp, None)
        if seen is not None or disk.exists(folder):
            found_id = read_partition_metadata(disk, folder) if seen is None else seen
            if found_id == topic_id:
                yield from self._open_log(opened)
            else:
                self._clear(tp, found_id)
        if tp in self._lost:
            # Offsets are not given to other records: a consumer's position stays what it was.
            self._lost.discard(tp)
            opening.begin_at(opened, self.points.reached(tp))
        # what it says of more than there is, it says of a deleted log of this name, or of records that a power cut took
        self.cleaned.lower(tp, opened.end)
        self.logs[tp] = opened
        self._unchecked.done(tp)
        return opened

    def _open_log(self, opened: PartitionLog) -> Slices[None]:
        point = self.points.recovery.get(opened.tp, 0)
        start = self.points.starts.get(opened.tp, 0)
        if self._clean:
            found = recovery.open_clean(self.disk, opened.folder, opened.config)
            if found is not None:
                yield from self._found(opened, found, start, found.end)
                return
        found = yield from recovery.recover(
            self.disk,
            opened.folder,
            opened.config,
            point=point,
            start=start,
            fsync=self.fsync,
            rewrite=self._rewrite,
            gaps=opened.config.compacted or opened.tp in self.cleaned.offsets,
        )
        yield from self._found(opened, found, start, point)

    def _found(self, opened: PartitionLog, found: recovery.Found, start: int, trusted: int) -> Slices[None]:
        reached = self.points.reached(opened.tp)
        if found.segments or not reached:
            yield from opened.opened(found, start=start, trusted=trusted)
        else:  # a crash right after the folder was made anew
            opening.begin_at(opened, reached)

    def _clear(self, tp: TopicPartition, found_id: UUID | None) -> None:
        """Get a folder that is not this topic's out of the way."""
        if tp in self._doomed:
            log.warning("folder of a deleted topic removed", partition=str(tp), topic_id=str(found_id))
            self.points.forget(tp)
            self._delete_folder(tp)
        elif found_id is None and not self._has_bytes(tp):
            self._delete_folder(tp)  # a crash just after it was made: nobody misses it
        elif found_id is None:  # its metadata was lost, or nothing in it was ever flushed
            self._rename_aside(tp, "it has no partition.metadata")
        else:
            self.put_aside(tp, f"its topic id is {found_id}")

    def _has_bytes(self, tp: TopicPartition) -> bool:
        folder = f"{self.path}/{tp}"
        return any(
            self.disk.size(f"{folder}/{name}") for name in self.disk.list(folder) if name.endswith(".log")
        )

    def put_aside(self, tp: TopicPartition, why: str) -> None:
        """Rename a folder that is no partition's as Kafka does: data of unknown origin is kept, and not served."""
        self._rename_aside(tp, why)
        self.points.forget(tp)
        self.cleaned.forget(tp)
        self.points.name_no_deleted()  # who is named and has no folder is taken for lost
        self._unchecked.done(tp)

    def _rename_aside(self, tp: TopicPartition, why: str) -> None:
        self._seen.pop(tp, None)
        name = self._name_beside(tp, "-stray")
        log.warning("folder put aside", partition=str(tp), why=why, folder=name)
        self.disk.rename(f"{self.path}/{tp}", f"{self.path}/{name}")

    def checkpoint(self, watermarks: Mapping[TopicPartition, int] | None = None) -> None:
        """Save how far each log is flushed (and the high watermarks, as hints), in threads. Call it now and then."""
        self.points.begin(watermarks)

    @property
    def idle(self) -> bool:
        """Nothing is being flushed or saved."""
        return self.flusher.idle and self.points.idle

    def save(self, done: Callable[[], None]) -> None:
        """Do in threads what would make `close` wait for the disk; it follows `done`. Nobody appends any more."""
        if self.failed is None and self._lock is not None and self.idle and self.flusher.error is None:
            Saver(self, done).start()
        else:
            done()

    def close(self, watermarks: Mapping[TopicPartition, int] | None = None) -> None:
        """A clean stop: everything flushed, indexes, epochs, snapshots and checkpoints saved, then the marker.

        Not clean, and no more than a release, while a flush or a checkpoint is going on or a flush failed: an fsync of
        the same files beside it might hide that it fails. Not clean either when a log was stopped, or not checked yet.
        """
        try:
            if self.failed is not None or self._lock is None:
                return
            if not self.idle or self.flusher.error is not None:
                log.warning("log directory let go of in the middle of a flush", path=self.path)
                return
            self._save_all(watermarks)
        except OSError as error:
            self.fail(f"it could not be closed cleanly: {error}")
        finally:
            self.abandon()

    def _save_all(self, watermarks: Mapping[TopicPartition, int] | None) -> None:
        for each in self.logs.values():
            each.close()
        if self._unchecked:
            return
        self.points.write_all(watermarks)
        stopped = [str(each.tp) for each in self.logs.values() if each.broken is not None]
        if stopped:
            log.warning(
                "not a clean stop: partitions were stopped before", path=self.path, partitions=stopped
            )
            return
        content = b'{"version":0,"brokerEpoch":-1}'
        replace_file(self.disk, f"{self.path}/{CLEAN_FILE}", content, fsync=self.fsync)
        if self._rewrite and self.disk.exists(f"{self.path}/{FSYNC_FAILED_FILE}"):
            self.disk.remove(f"{self.path}/{FSYNC_FAILED_FILE}")

    def abandon(self) -> None:
        """Let go of it as it is, as a crash would."""
        for each in self.logs.values():
            each.release()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # -- deleting

    def delete(self, tp: TopicPartition) -> None:
        """Delete a partition: gone at once under its name, its files after `file.delete.delay.ms`."""
        gone = self.logs.pop(tp, None)
        delay_ms = 0
        if gone is not None:
            gone.deleted = True
            gone.broken = KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{tp} was deleted")
            delay_ms = gone.config.file_delete_delay_ms
        self.points.forget(tp)
        self.cleaned.forget(tp)
        self._unchecked.done(tp)
        self._lost.discard(tp)
        if self.disk.exists(f"{self.path}/{tp}"):
            self._doomed.add(tp)
            self._delete_folder(tp, delay_ms, gone)

    def _delete_folder(self, tp: TopicPartition, delay_ms: int = 0, gone: PartitionLog | None = None) -> None:
        self._seen.pop(tp, None)
        name = self._name_beside(tp, "-delete")
        self.disk.rename(f"{self.path}/{tp}", f"{self.path}/{name}")
        self._doomed.discard(tp)
        if gone is not None:
            gone.moved(f"{self.path}/{name}")
        self.clock.call_at(self.clock.monotonic() + delay_ms / 1000, partial(self._remove_folder, name, gone))

    def _name_beside(self, tp: TopicPartition, kind: str) -> str:
        suffix = f".{new_uuid(self.random).hex}{kind}"
        return f"{tp.topic[: _NAME_MAX - len(suffix) - len(str(tp.partition)) - 1]}-{tp.partition}{suffix}"

    def _remove_folder(self, name: str, gone: PartitionLog | None = None) -> None:
        if gone is not None:
            gone.release()
        try:
            # a partition that is named, and has no folder of any kind, is taken for lost
            self.points.name_no_deleted()
        except OSError as error:
            _removed(name, None, error)
            return
        self.threads.run(partial(_remove_tree, self.disk, f"{self.path}/{name}"), partial(_removed, name))

    def remove_later(self, paths: list[str], delay_ms: int, gone: Sequence[Segment] = ()) -> None:
        """Remove files, those of the segments `gone`, in a thread, after a while."""
        when = self.clock.monotonic() + delay_ms / 1000
        self.clock.call_at(when, partial(self._remove_files, paths, gone))

    def _remove_files(self, paths: list[str], gone: Sequence[Segment]) -> None:
        for segment in gone:
            segment.release()  # an open descriptor would keep a removed file's bytes on the disk
        self.threads.run(partial(_remove_files, self.disk, paths), partial(_removed, paths))

    # -- state

    def jitter_ms(self, config: TopicConfig) -> int:
        """By how much a new segment rolls earlier than `segment.ms`."""
        jitter = min(config.segment_jitter_ms, config.segment_ms)
        return self.random.randrange(0, jitter) if jitter > 0 else 0

    def check_writable(self) -> None:
        """KafkaError KAFKA_STORAGE_ERROR while the directory takes no writes."""
        if self.failed is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(self.failed))
        if self.refusing:
            now = self.clock.monotonic()
            if now - self._full_checked >= FREE_CHECK_S:
                self._full_checked = now
                if self._scarce is not None or self._has_space():
                    what = (
                        "log directory has space again"
                        if self._scarce is None
                        else "log directory is written again"
                    )
                    log.info(what, path=self.path)
                    self.refusing, self._scarce = False, None
                    return
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self._full_text())

    def _has_space(self) -> bool:
        again = min(FREE_BYTES_AGAIN, self.disk.total_bytes(self.path) // FREE_SHARE_AGAIN)
        return self.disk.free_bytes(self.path) >= again

    def write_failed(self, which: PartitionLog, error: Exception) -> KafkaError:
        """A write of one of the logs failed. Returns what to tell whoever wrote."""
        code = error.errno if isinstance(error, OSError) else None
        if code in SCARCE or code in (errno.ENOSPC, errno.EDQUOT):
            if not self.refusing:
                what = "log directory cannot be written now" if code in SCARCE else "log directory full"
                log.error(what, path=self.path, partition=str(which.tp), error=str(error))
            self.refusing = True
            self._scarce = str(error) if code in SCARCE else None
            self._full_checked = self.clock.monotonic()
            return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, self._full_text())
        self.fail(f"a write of {which.tp} failed: {error}")
        return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(self.failed))

    def fail(self, why: str) -> None:
        """Take no more writes. It is not tried again: the system may have dropped what it could not write."""
        if self.failed is None:
            log.error("log directory failed", path=self.path, why=why)
            self.failed = DiskFailed(f"log directory {self.path} takes no writes: {why}")
        self.refusing = True

    def fsync_failed(self, error: BaseException) -> None:
        """An fsync failed, of any file: it is not tried again."""
        self.fail(f"an fsync failed: {error}")
        if isinstance(error, NotOpened):
            return
        try:
            # pages that failed are clean now: the next start must write them again, not only sync them
            replace_file(self.disk, f"{self.path}/{FSYNC_FAILED_FILE}", str(error).encode(), fsync=True)
        except OSError as second:
            log.error("failed fsync not recorded", path=self.path, error=str(second))

    def _flush_later(self, call: Callable[[], None], error: BaseException) -> bool:
        """Call the flusher again soon, if what kept it from opening a file passes."""
        if not isinstance(error, NotOpened) or error.errno not in SCARCE or self.failed is not None:
            return False
        log.error("flush put off", path=self.path, error=str(error))
        self.clock.call_at(self.clock.monotonic() + FREE_CHECK_S, call)
        return True

    def _full_text(self) -> str:
        if self._scarce is not None:
            return f"log directory {self.path} cannot be written now: {self._scarce}"
        return f"log directory {self.path} is on a full disk; free some space"


def _tell_of_strays(path: str, names: Sequence[str]) -> None:
    """They take room until somebody decides: at each start they are named again."""
    if names:
        log.warning(
            "folders that were put aside take room",
            path=path,
            folders=",".join(names[:_STRAYS_NAMED_MAX]),
            number=len(names),
            cure="look into them with kbroker dump-log, then remove them",
        )


def _remove_tree(disk: Disk, folder: str) -> None:
    for name in disk.list(folder):
        disk.remove(f"{folder}/{name}")
    disk.remove(folder)


def _remove_files(disk: Disk, paths: list[str]) -> None:
    for path in paths:
        if disk.exists(path):
            disk.remove(path)


def _removed(what: object, _: object, error: BaseException | None) -> None:
    if error is not None:
        log.warning("not removed; the next start tries again", what=what, error=str(error))
