"""`LocalLog`: the cluster's log while one broker is the whole cluster. Durable; its files are those a Raft log reads.

Commands that arrive while a group is being written form the next group: one append, one fsync. They are applied, in
order, when their group is on the disk. A failed fsync stops the log for good; a failed append is taken back, and so is
a group whose fsync was not even tried, for want of a descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import msgspec

from kbroker.cluster import commands, journal
from kbroker.cluster.commands import Command, FormCluster
from kbroker.cluster.log import Done, LogStatus
from kbroker.cluster.state import Change, ClusterState
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import BrokerId
from kbroker.observe import logs
from kbroker.seams import Disk, File, NotOpened, Threads

logger = logs.get_logger("cluster")

# One broker is always its own majority: the term never changes, and a Raft log that takes over starts above it.
TERM = 1
# Journal size beyond which the state is written as a snapshot and the journal starts anew: some ten thousand topics
# created, or some tenths of a second of reading at a start.
JOURNAL_BYTES_MAX = 8 << 20


class _Pending(NamedTuple):
    command: Command | None  # None: a barrier
    done: Done


class _TakenBack(Exception):
    """The append failed (no space, most likely) and the journal is as it was before."""


class _NotBegun(Exception):
    """A compaction failed before the new journal had its name: no start may find one, and the old one goes on."""


class LocalLog:
    """A ReplicatedLog of one. Opening it reads the snapshot and the journal, or forms a new cluster."""

    def __init__(
        self,
        folder: str,
        *,
        node_id: BrokerId,
        disk: Disk,
        threads: Threads,
        new_cluster_id: Callable[[], str],
        fsync: bool = True,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
    ) -> None:
        self.leader = node_id
        self.formed = False  # this opening formed the cluster: there was no state before
        self._folder = folder
        self._disk = disk
        self._threads = threads
        self._fsync = fsync
        self._journal_bytes_max = journal_bytes_max
        self._file: File
        self._listeners: list[Callable[[Change], None]] = []
        self._pending: list[_Pending] = []
        self._busy = False  # a group is being written and applied, or the journal compacted
        self._refusal: KafkaError | None = None  # nothing is taken any more
        self._closed = False
        self._cut_to: int | None = None  # what the journal holds beyond was answered with an error
        self._names_dirty = False  # the folder is to be synced before anything in the journal counts
        self.state = ClusterState()
        self._index = 0  # the last entry written
        self._snapshot_index = 0
        self._snapshot_bytes = 0
        self._not_compacted_bytes = 0  # the journal's size when a compaction failed
        self._open()
        if not self.state.cluster_id:
            self._form(new_cluster_id())

    @property
    def status(self) -> LogStatus:
        """Where the log stands."""
        why = None if self._refusal is None else self._refusal.message
        return LogStatus(self._index, TERM, len(self._pending), self._file.size, self._snapshot_index, why)

    def on_change(self, call: Callable[[Change], None]) -> None:
        """Call `call` after each command that moved something, before its `done`."""
        self._listeners.append(call)

    def propose(self, command: Command, done: Done) -> None:
        """`done(result, None)` once the command is durable and applied, `done(None, KafkaError)` if it is not."""
        if self._refusal is not None:
            done(None, self._refusal)
            return
        self._pending.append(_Pending(command, done))
        self._go_on()

    def barrier(self, done: Done) -> None:
        """`done(None, None)` once all that was proposed before is applied."""
        self._pending.append(_Pending(None, done))
        self._go_on()

    def close(self) -> None:
        """Take no more; what is being written is finished, what waits is refused."""
        self._refuse(KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, "the broker is stopping"))
        self._closed = True
        if not self._busy:
            self._file.close()

    # Groups ----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Begin the next group unless one is under way; without fsync, all that wait, here and now."""
        while self._pending and not self._busy:
            self._busy = True
            group, self._pending = self._pending, []
            written = (pending.command for pending in group if pending.command is not None)
            entries = [
                journal.Entry(number, TERM, commands.encode(command))
                for number, command in enumerate(written, self._index + 1)
            ]
            self._write(group, entries)

    def _write(self, group: list[_Pending], entries: list[journal.Entry]) -> None:
        self._run(self._writing(entries), lambda _, error: self._written(group, entries, error))

    def _run(self, work: Callable[[], None], done: Done) -> None:
        if self._fsync:
            self._threads.run(work, done)
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed to `done`, as Threads does
            done(None, error)
        else:
            done(None, None)

    def _writing(self, entries: list[journal.Entry]) -> Callable[[], None]:
        """Work for a thread: put `entries` on the disk."""
        file, fsync = self._file, self._fsync
        data = journal.frame(entries, synced_before=fsync) if entries else b""

        def write() -> None:
            if not data:
                return
            size = file.size
            try:
                self._sync_names()
            except NotOpened as error:
                raise _TakenBack(str(error)) from error
            try:
                if self._cut_to is not None:
                    size = self._cut_to
                    self._cut()
                file.append([data])
            except NotOpened as error:
                raise _TakenBack(str(error)) from error
            except OSError as error:
                self._take_back(size, error)
            if fsync:
                try:
                    file.sync()
                except NotOpened as error:
                    self._take_back(size, error)

        return write

    def _take_back(self, size: int, error: OSError) -> NoReturn:
        """The journal ends at `size` again: now, or before anything is written to it."""
        self._cut_to = size
        with suppress(NotOpened):
            self._cut()
        raise _TakenBack(str(error)) from error

    def _cut(self) -> None:
        assert self._cut_to is not None
        self._file.truncate(self._cut_to)
        if self._fsync:
            self._file.sync()
        self._cut_to = None

    def _sync_names(self) -> None:
        if self._names_dirty:
            self._disk.sync_dir(self._folder)
            self._names_dirty = False

    def _written(
        self, group: list[_Pending], entries: list[journal.Entry], error: BaseException | None
    ) -> None:
        failures: list[Exception] = []
        if error is not None:
            self._not_written(group, error)
        else:
            self._index += len(entries)
            failures = self._apply(group)
        self._end_of_work()
        if failures:
            raise failures[0]

    def _not_written(self, group: list[_Pending], error: BaseException) -> None:
        refusal = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"the cluster log was not written: {error}")
        if not isinstance(error, _TakenBack):
            # What a failed fsync leaves on the disk nobody knows, and a second one would lie about it.
            self._refuse(refusal)
        for pending in group:
            pending.done(None, refusal)

    def _apply(self, group: list[_Pending]) -> list[Exception]:
        """Apply a group; what those who hear of it raise."""
        failures: list[Exception] = []
        for pending in group:
            result = None
            if pending.command is not None:
                result, change = self.state.apply(pending.command)
                if not change.empty:
                    for call in self._listeners:
                        self._tell(failures, call, change)
            self._tell(failures, pending.done, result, None)
        return failures

    def _tell(self, failures: list[Exception], call: Callable[..., None], *facts: Any) -> None:
        """Call somebody; one who fails must not keep the others from hearing."""
        try:
            call(*facts)
        except Exception as error:  # noqa: BLE001 - raised again when all have been told
            failures.append(error)

    def _end_of_work(self) -> None:
        self._busy = False
        if self._closed:
            self._file.close()
        elif self._refusal is None and self._long():
            self._compact()
        elif self._fsync:
            self._go_on()

    def _long(self) -> bool:
        """The journal is to be compacted: one shorter than the state is not worth writing the state for."""
        most = max(self._journal_bytes_max, 2 * self._snapshot_bytes)
        return self._file.size > max(most, self._not_compacted_bytes + most // 4)

    def _refuse(self, refusal: KafkaError) -> None:
        self._refusal = self._refusal or refusal
        waiting, self._pending = self._pending, []
        for pending in waiting:
            pending.done(None, refusal)

    # Files -----------------------------------------------------------------------------------------------------

    def _compact(self) -> None:
        """Write the state as a snapshot and begin a new journal; commands wait meanwhile."""
        self._busy = True
        index, state = self._index, self.state.snapshot()
        made: list[File] = []
        self._run(
            lambda: made.append(self._start_from(index, state)),
            lambda _, error: self._compacted(index, len(state), made, error),
        )

    def _start_from(self, index: int, state: bytes) -> File:
        """A snapshot and an empty journal behind it, durable before anything older goes."""
        try:
            # first what needs room or a descriptor: a snapshot without it is of no use
            new = self._write_beside("journal.new", journal.JOURNAL_HEADER)
            snapshot = self._write_beside("snapshot.new", journal.snapshot_file(index, TERM, state))
            self._disk.rename(snapshot.path, f"{self._folder}/{journal.snapshot_name(index)}")
            self._name_journal(new, index + 1)
        except OSError as error:
            raise _NotBegun(str(error)) from error
        # From here on a start goes on in the new journal, and what is written to the old one would be lost.
        try:
            self._sync_names()
        except NotOpened as error:  # nothing is written to it before that has been done
            logger.warning("cluster log's folder is synced later", why=str(error))
        else:
            self._remove_older(index)
        return new

    def _remove_older(self, index: int) -> None:
        """What the snapshot holds, too. What stays is passed over at a start, and goes after the next compaction."""
        disk, folder = self._disk, self._folder
        try:
            for name in disk.list(folder):
                older = journal.index_of(name, "journal"), journal.index_of(name, "snapshot")
                if (older[0] is not None and older[0] <= index) or (
                    older[1] is not None and older[1] < index
                ):
                    disk.remove(f"{folder}/{name}")
        except OSError as error:
            logger.warning("older files of the cluster log not removed", why=str(error))

    def _write_beside(self, name: str, content: bytes) -> File:
        """A synced file that no start reads until it has another name."""
        disk, path = self._disk, f"{self._folder}/{name}"
        if disk.exists(path):
            disk.remove(path)
        file = disk.open(path, create=True)
        try:
            file.append([content])
            if self._fsync:
                file.sync()
        finally:
            file.close()
        return file

    def _compacted(self, index: int, size: int, made: list[File], error: BaseException | None) -> None:
        if error is None:
            self._file.close()
            self._file = made[0]
            self._cut_to = None
            self._snapshot_index, self._snapshot_bytes = index, size
            self._not_compacted_bytes = 0
        elif isinstance(error, _NotBegun):
            logger.warning("cluster log not compacted; it goes on in the old journal", why=str(error))
            self._not_compacted_bytes = self._file.size
        else:
            self._refuse(
                KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"the cluster log was not compacted: {error}")
            )
        self._busy = False
        if self._closed:
            self._file.close()
        else:
            self._go_on()

    def _new_journal(self, first_index: int) -> File:
        file = self._write_beside("journal.new", journal.JOURNAL_HEADER)
        self._name_journal(file, first_index)
        return file

    def _name_journal(self, file: File, first_index: int) -> None:
        """Its header is synced already: a torn one with entries behind it would look like damage. `_sync_names` follows."""
        path = f"{self._folder}/{journal.journal_name(first_index)}"
        self._disk.rename(file.path, path)
        file.path = path
        self._names_dirty = self._fsync

    def _open(self) -> None:
        disk, folder = self._disk, self._folder
        if not disk.exists(folder):
            disk.mkdir(folder)
            if self._fsync:
                disk.sync_dir(folder.rpartition("/")[0])
        # They may have survived in the page cache only. Without them an older journal says the same, until more is written.
        self._names_dirty = self._fsync
        names = disk.list(folder)
        self._read_snapshot(names)
        firsts = sorted(
            first for first in (journal.index_of(name, "journal") for name in names) if first is not None
        )
        # After a crash in a compaction an older journal may stand beside; all it holds is in the snapshot.
        usable = [first for first in firsts if first <= self._index + 1]
        if firsts and not usable:
            raise journal.damaged(
                f"{folder}/{journal.journal_name(firsts[0])}", "what comes before is missing"
            )
        if not usable:
            if self._index:
                raise journal.damaged(
                    f"{folder}/{journal.snapshot_name(self._index)}", "its journal is missing"
                )
            self._file = self._new_journal(1)
        else:
            for first in firsts[len(usable) :]:
                self._remove_begun(first)
            self._read_journal(usable[-1])

    def _remove_begun(self, first_index: int) -> None:
        """Remove a journal whose snapshot a loss of power took: the next snapshot would have a start go on in it."""
        path = f"{self._folder}/{journal.journal_name(first_index)}"
        if journal.read_journal(self._disk.read(path), path).entries:
            raise journal.damaged(path, "what comes before is missing")
        self._disk.remove(path)

    def _read_snapshot(self, names: list[str]) -> None:
        indexes = [
            index for index in (journal.index_of(name, "snapshot") for name in names) if index is not None
        ]
        if not indexes:
            return
        path = f"{self._folder}/{journal.snapshot_name(max(indexes))}"
        index, _, state = journal.read_snapshot(self._disk.read(path), path)
        try:
            self.state = ClusterState.restore(state)
        except msgspec.MsgspecError as error:
            raise journal.damaged(path, str(error)) from error
        self._index = self._snapshot_index = index
        self._snapshot_bytes = len(state)

    def _read_journal(self, first_index: int) -> None:
        path = f"{self._folder}/{journal.journal_name(first_index)}"
        data = self._disk.read(path)
        entries, end = journal.read_journal(data, path)
        for expected, entry in enumerate(entries, first_index):
            if entry.number != expected:
                raise journal.damaged(path, f"entry {expected} is missing")
            if entry.number > self._index:
                self._replay(entry, path)
        if first_index + len(entries) <= self._snapshot_index:
            raise journal.damaged(path, f"entries up to {self._snapshot_index} are missing")
        if not end:
            self._file = self._new_journal(first_index)
            return
        self._file = self._disk.open(path)
        if end < len(data):
            self._file.truncate(end)
        if self._fsync:
            # What is read may have survived in the page cache only; from here on it counts as durable.
            self._file.sync()

    def _replay(self, entry: journal.Entry, path: str) -> None:
        try:
            command = commands.decode(entry.command)
        except msgspec.MsgspecError as error:
            raise journal.damaged(path, f"entry {entry.number} is not a command: {error}") from error
        self.state.apply(command)
        self._index = entry.number

    def _form(self, cluster_id: str) -> None:
        """The first entry: the cluster's id."""
        command: Any = FormCluster(cluster_id)
        entry = journal.Entry(self._index + 1, TERM, commands.encode(command))
        self._writing([entry])()
        self._index += 1
        self.state.apply(command)
        self.formed = True
