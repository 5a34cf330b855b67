"""The real disk: data files by descriptor, folders, locks. The only place that opens data files; knows no format.

A `RealFile` is a name, not a descriptor: it opens on use and is closed again by least use, so that idle partitions
hold nothing. Where a system lacks a call (macOS: RWF_NOWAIT, fdatasync) the fallback is here and nowhere else.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence

from kbroker.seams import Buffer, NotOpened

# Descriptors kept open for data files. A common hard limit is 20,000 for the process and sockets need theirs; reopening
# a file costs about 5 us, so a working set beyond this is slower, not wrong. Files in use are never closed.
OPEN_FILES_MAX = 4096
# Of a process that may have fewer descriptors, files get this part (1,024 is a common soft limit): sockets need the rest.
OPEN_FILES_SHARE = 4

# Memory maps kept. Linux allows 65,530 per process (vm.max_map_count); one beyond this costs a map and its page faults.
MAPS_MAX = 2048

# Parts per writev: the system's own limit (IOV_MAX, 1024 on Linux and macOS); more parts go in several calls.
PARTS_PER_WRITE_MAX = 1024

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_NO_NOWAIT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def _sync_data(fd: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
        return
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full)


class RealFile:
    """One data file, open only while used."""

    __slots__ = ("_disk", "_fd", "_map", "_nowait", "_recent", "_users", "_writing", "path", "size")

    def __init__(self, disk: RealDisk, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self._disk = disk
        self._fd = -1
        self._users = 0  # calls in progress in any thread; the descriptor stays while there are any
        self._writing = False  # an append is in progress
        self._recent = False  # used since the last look for descriptors to close
        self._nowait = _NOWAIT is not None
        self._map: memoryview | None = None

    def append(self, parts: Sequence[Buffer]) -> None:
        """Write all of `parts` at `size`."""
        # Every produce comes here, so it pins without the mutex: one writer says that it writes, then looks at the
        # descriptor; whoever closes takes the descriptor away first, then looks whether somebody writes.
        self._writing = True
        try:
            fd = self._fd
            if fd < 0:
                with self._disk._mutex:
                    fd = self._fd
                    if fd < 0:
                        fd = self._disk._open_descriptor(self)
            self._recent = True
            at = self.size
            if len(parts) == 1:
                part = parts[0]
                wanted = len(part)
                done = os.pwrite(fd, part, at)
            elif len(parts) <= PARTS_PER_WRITE_MAX:
                wanted = sum(map(len, parts))
                done = os.pwritev(fd, parts, at)
            else:
                wanted, done = -1, 0
            if done != wanted:
                done = _write_rest(fd, parts, at, done)
            self.size = at + done
        finally:
            self._writing = False

    def read_into(self, view: memoryview, at: int, *, wait: bool = True) -> int:
        """Read into `view`; short only at the end of the file. See `seams.File`."""
        fd = self._pin()
        try:
            wanted = len(view)
            if not wait and self._nowait:
                done = self._read_cached(fd, view, at)
                if done >= 0:
                    return done
            done = os.preadv(fd, [view], at)
            while 0 < done < wanted:
                more = os.preadv(fd, [view[done:]], at + done)
                if more == 0:
                    break
                done += more
            return done
        finally:
            self._unpin()

    def map(self, size: int) -> memoryview | None:
        """The file as a read-only memory map of at least `size` bytes; the last one is kept while it is large enough."""
        mapped = self._map
        if mapped is not None and len(mapped) >= size:
            return mapped
        if size <= 0:
            return None
        fd = self._pin()
        try:
            # the whole file, not only what was asked: a growing file is mapped anew once per reader that catches up
            mapped = memoryview(mmap.mmap(fd, max(size, os.fstat(fd).st_size), access=mmap.ACCESS_READ))
        except ValueError:  # shorter than asked: cut since
            return None
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.ENODEV):  # too many maps, or a file system without them
                return None
            raise
        finally:
            self._unpin()
        self._disk._keep_map(self, mapped)
        return mapped

    def truncate(self, size: int) -> None:
        """Cut (or zero-fill) the file to `size` bytes."""
        fd = self._pin()
        try:
            os.ftruncate(fd, size)
            self.size = size
        finally:
            self._unpin()
        self._disk._drop_map(self)

    def sync(self) -> None:
        """fdatasync."""
        fd = self._pin()
        try:
            _sync_data(fd)
        finally:
            self._unpin()

    def close(self) -> None:
        """Give the descriptor and the map back; a later use opens the file again."""
        self._disk._drop_map(self)
        self._disk._release(self)

    def _read_cached(self, fd: int, view: memoryview, at: int) -> int:
        """Read what the page cache has; -1: ask again without the flag. BlockingIOError: not (all) there."""
        try:
            done = os.preadv(fd, [view], at, _NOWAIT or 0)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _NO_NOWAIT:
                raise
            self._nowait = False  # this file system does not know it; ask no more
            return -1
        if done < len(view) and at + done < self.size:
            raise BlockingIOError(errno.EAGAIN, "only a part is in the page cache")
        return done

    def _pin(self) -> int:
        disk = self._disk
        with disk._mutex:
            fd = self._fd
            if fd < 0:
                fd = disk._open_descriptor(self)
            self._users += 1
            self._recent = True
            return fd

    def _unpin(self) -> None:
        with self._disk._mutex:
            self._users -= 1


def _write_rest(fd: int, parts: Sequence[Buffer], at: int, done: int) -> int:
    """Write `parts` from their byte `done` on, whatever the system takes at a time. Returns all bytes written."""
    views = [memoryview(part) for part in parts]
    first = 0
    skip = done
    while True:
        while first < len(views) and skip >= len(views[first]):
            skip -= len(views[first])
            first += 1
        if first == len(views):
            return done
        some = [views[first][skip:], *views[first + 1 : first + PARTS_PER_WRITE_MAX]]
        wrote = os.pwritev(fd, some, at + done)
        if wrote == 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        done += wrote
        skip += wrote


class RealLock:
    """A lock file held by this process; the system lets go of it when the process ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let others have it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def open_files_of(descriptors: int) -> int:
    """How many data files a process that may have so many descriptors keeps open."""
    return max(1, min(OPEN_FILES_MAX, descriptors // OPEN_FILES_SHARE))


class RealDisk:
    """The operating system's file systems. One per process is enough; its methods may be called from any thread."""

    def __init__(self, *, open_files_max: int = OPEN_FILES_MAX, maps_max: int = MAPS_MAX) -> None:
        self.open_files_max = open_files_max
        self.maps_max = maps_max
        self._mutex = threading.Lock()
        self._open: OrderedDict[RealFile, None] = OrderedDict()  # files that hold a descriptor, oldest first
        self._maps: OrderedDict[RealFile, None] = OrderedDict()

    def open(self, path: str, *, create: bool = False) -> RealFile:
        """A handle for the file. It must exist unless `create`; nothing is ever cut."""
        try:
            return RealFile(self, path, os.stat(path).st_size)
        except FileNotFoundError:
            if not create:
                raise
        file = RealFile(self, path, 0)
        with self._mutex:
            self._open_descriptor(file, os.O_CREAT)
        return file

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder))

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def read(self, path: str) -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.readall()

    def mkdir(self, folder: str) -> None:
        os.mkdir(folder, 0o755)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except (IsADirectoryError, PermissionError):
            os.rmdir(path)

    def sync_dir(self, folder: str) -> None:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotOpened(error.errno, error.strerror, folder) from error
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, folder: str) -> int:
        return shutil.disk_usage(folder).free

    def total_bytes(self, folder: str) -> int:
        return shutil.disk_usage(folder).total

    def lock(self, path: str) -> RealLock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return RealLock(fd)

    def _open_descriptor(self, file: RealFile, flags: int = 0) -> int:
        """Give `file` a descriptor; the mutex is held."""
        open_files = self._open
        if len(open_files) >= self.open_files_max:
            self._close_idle()
        try:
            fd = self._descriptor_for(file.path, flags)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotOpened(error.errno, error.strerror, file.path) from error
        file._fd = fd
        open_files[file] = None
        return fd

    def _descriptor_for(self, path: str, flags: int) -> int:
        flags |= os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._close_idle()  # the process has none left: ours that nobody uses
        return os.open(path, flags, 0o644)

    def _close_idle(self) -> None:
        """Close descriptors not used since the last look, a sixteenth of them; used ones get a second chance."""
        wanted = max(1, self.open_files_max // 16)
        for file in list(self._open):
            if file._users:
                continue
            if file._recent:
                file._recent = False
                self._open.move_to_end(file)
                continue
            self._close_descriptor(file)
            wanted -= 1
            if not wanted:
                return
        if wanted == max(1, self.open_files_max // 16):  # all were used: the oldest go
            for file in [file for file in self._open if not file._users][:wanted]:
                self._close_descriptor(file)

    def _close_descriptor(self, file: RealFile) -> None:
        fd, file._fd = file._fd, -1
        if file._writing:  # it has the descriptor already; see `append`
            file._fd = fd
            return
        del self._open[file]
        os.close(fd)

    def _release(self, file: RealFile) -> None:
        with self._mutex:
            if file._fd >= 0 and not file._users:
                self._close_descriptor(file)

    def _keep_map(self, file: RealFile, mapped: memoryview) -> None:
        with self._mutex:
            file._map = mapped
            self._maps[file] = None
            self._maps.move_to_end(file)
            while len(self._maps) > self.maps_max:
                # dropped, not closed: an answer that is being sent may still hold a view; it unmaps itself after the last
                self._maps.popitem(last=False)[0]._map = None

    def _drop_map(self, file: RealFile) -> None:
        if file._map is not None:
            with self._mutex:
                file._map = None
                self._maps.pop(file, None)
