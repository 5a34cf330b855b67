"""A disk in memory that fails as disks do: it forgets what was not synced, tears the last write, fails on command.

What a crash keeps is as bad as POSIX allows: a file's bytes are sure after `sync` of the file, its name (and its
absence) after `sync_dir` of its folder. Everything else may be there or not, each for itself.
"""

from __future__ import annotations

import copy
import errno
import random
from collections.abc import Callable, Sequence

from kbroker.seams import Buffer, NotOpened


class Crashed(BaseException):
    """The power went: nobody may catch this but the test."""


class _Inode:
    """A file's bytes: as a reader sees them, and as they are on the disk."""

    __slots__ = ("data", "stable", "synced_to")

    def __init__(self) -> None:
        self.data = bytearray()
        self.stable = b""  # at the last sync

    def survive(self, keep: str, rng: random.Random) -> None:
        """After a crash: all, nothing of, or a torn part of what was not synced."""
        if keep == "all":
            self.stable = bytes(self.data)
            return
        if keep == "torn" and bytes(self.data) != self.stable:
            self.stable = self._torn(rng)
        self.data = bytearray(self.stable)

    def _torn(self, rng: random.Random) -> bytes:
        """Blocks of the new content reached the disk in any order; the length, too, is the old or a new one."""
        old, new = self.stable, bytes(self.data)
        common = min(len(old), len(new))
        size = len(old) if rng.random() < 0.3 else rng.randint(min(common, len(new)), max(common, len(new)))
        result = bytearray(size)
        block = rng.choice([1, 7, 64, 512])
        mode = rng.choice(["prefix", "blocks"])
        stop = rng.randint(0, max(len(new), 1))
        for at in range(0, size, block):
            took = at + block <= stop if mode == "prefix" else rng.random() < 0.7
            source = new if took else old
            piece = source[at : at + block][: size - at]
            result[at : at + len(piece)] = piece
        return bytes(result)


class _Folder:
    __slots__ = ("names", "stable")

    def __init__(self) -> None:
        self.names: dict[str, _Inode | _Folder] = {}
        self.stable: dict[str, _Inode | _Folder] = {}


class MemoryFile:
    """A handle, as `RealFile`: by path, opened when used."""

    def __init__(self, disk: MemoryDisk, path: str, size: int) -> None:
        self._disk = disk
        self.path = path
        self.size = size
        self._inode: _Inode | None = None

    def append(self, parts: Sequence[Buffer]) -> None:
        raw = b"".join(parts)
        inode = self._open()
        disk = self._disk
        room = disk.capacity - disk.used() if disk.capacity is not None else len(raw)
        fits = raw[: max(room, 0)]
        try:
            disk.operation("append", self.path)
        except Crashed:
            inode.data[self.size :] = raw[: disk.rng.randint(0, len(raw))]
            raise
        except OSError:
            inode.data[self.size :] = raw[: len(raw) // 2]  # a part of a failed write may be in the file
            raise
        inode.data[self.size :] = fits
        if len(fits) < len(raw):
            raise OSError(errno.ENOSPC, "no space left on device", self.path)
        self.size += len(raw)

    def read_into(self, view: memoryview, at: int, *, wait: bool = True) -> int:
        inode = self._open()
        self._disk.alive()
        piece = inode.data[at : at + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def map(self, size: int) -> memoryview | None:
        self._disk.alive()
        return None

    def truncate(self, size: int) -> None:
        inode = self._open()
        self._disk.operation("truncate", self.path)
        if size < len(inode.data):
            del inode.data[size:]
        else:
            inode.data.extend(bytes(size - len(inode.data)))
        self.size = size

    def sync(self) -> None:
        inode = self._open()
        self._disk.operation("sync", self.path)
        inode.stable = bytes(inode.data)

    def close(self) -> None:
        self._inode = None

    def _open(self) -> _Inode:
        if self._inode is None or self._disk.no_descriptors:
            self._disk.descriptor(self.path)
            node = self._disk.find(self.path)
            if not isinstance(node, _Inode):
                raise IsADirectoryError(errno.EISDIR, "is a directory", self.path)
            self._inode = node
        return self._inode


class MemoryLock:
    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        if self._disk.locks.get(self._path) is self:
            del self._disk.locks[self._path]


class MemoryDisk:
    """A file system with one root folder `/`."""

    def __init__(self, *, seed: int = 0, capacity: int | None = None) -> None:
        self.rng = random.Random(seed)
        self.root = _Folder()
        self.capacity = capacity  # bytes; None: any
        self.operations = 0  # changes asked for so far
        self.crash_at: int | None = None  # the change that does not happen any more
        self.fail: Callable[[str, str], int | None] | None = None  # (operation, path) -> errno
        self.no_descriptors: int | None = None  # errno of every attempt to open something
        self.locks: dict[str, MemoryLock] = {}
        self.log: list[tuple[str, str]] = []
        self._dead = False

    # -- Disk

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        self.alive()
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self.descriptor(path)
            self.operation("create", path)
            node = folder.names[name] = _Inode()
        if isinstance(node, _Folder):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return MemoryFile(self, path, len(node.data))

    def exists(self, path: str) -> bool:
        self.alive()
        try:
            self.find(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def list(self, folder: str) -> list[str]:
        self.alive()
        return sorted(self._folder(folder).names)

    def size(self, path: str) -> int:
        self.alive()
        node = self.find(path)
        return len(node.data) if isinstance(node, _Inode) else 4096

    def read(self, path: str) -> bytes:
        self.alive()
        node = self.find(path)
        if isinstance(node, _Folder):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return bytes(node.data)

    def mkdir(self, folder: str) -> None:
        parent, name = self._parent(folder)
        if name in parent.names:
            raise FileExistsError(errno.EEXIST, "file exists", folder)
        self.operation("mkdir", folder)
        parent.names[name] = _Folder()

    def rename(self, old: str, new: str) -> None:
        source, old_name = self._parent(old)
        target, new_name = self._parent(new)
        if old_name not in source.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        there = target.names.get(new_name)
        if isinstance(there, _Folder) and there.names:
            raise OSError(errno.ENOTEMPTY, "directory not empty", new)
        self.operation("rename", f"{old} -> {new}")
        target.names[new_name] = source.names.pop(old_name)

    def remove(self, path: str) -> None:
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if isinstance(node, _Folder) and node.names:
            raise OSError(errno.ENOTEMPTY, "directory not empty", path)
        self.operation("remove", path)
        del folder.names[name]

    def sync_dir(self, folder: str) -> None:
        node = self._folder(folder)
        self.descriptor(folder)
        self.operation("sync_dir", folder)
        node.stable = dict(node.names)

    def free_bytes(self, folder: str) -> int:
        self.alive()
        return 1 << 40 if self.capacity is None else max(0, self.capacity - self.used())

    def total_bytes(self, folder: str) -> int:
        self.alive()
        return 1 << 40 if self.capacity is None else self.capacity

    def lock(self, path: str) -> MemoryLock:
        self.alive()
        if path in self.locks:
            raise BlockingIOError(errno.EAGAIN, "locked", path)
        self.open(path, create=True)
        self.locks[path] = MemoryLock(self, path)
        return self.locks[path]

    # -- what tests do with it

    def used(self) -> int:
        """Bytes in files."""
        return _used(self.root)

    def crash(self, keep: str = "none") -> None:
        """The power goes and comes back: `keep` "none", "torn" or "all" of what was not synced ("all": only a kill)."""
        _survive(self.root, keep, self.rng)
        self.locks.clear()
        self.crash_at = None
        self._dead = False
        self.fail = None

    def copied(self, seed: int) -> MemoryDisk:
        """The disk as it lies here without power: what of it survives is this seed's to say."""
        assert self._dead
        other = MemoryDisk(seed=seed, capacity=self.capacity)
        other.root = copy.deepcopy(self.root)
        other.operations, other.log, other._dead = self.operations, self.log[:], True
        return other

    def operation(self, what: str, path: str) -> None:
        """A change is asked for: does it happen, fail, or does the power go first?"""
        self.alive()
        self.operations += 1
        self.log.append((what, path))
        if self.crash_at is not None and self.operations >= self.crash_at:
            self._dead = True
            raise Crashed(f"operation {self.operations}: {what} {path}")
        if self.fail is not None:
            code = self.fail(what, path)
            if code is not None:
                raise OSError(code, f"{what} failed", path)

    def descriptor(self, path: str) -> None:
        """Something is opened."""
        if self.no_descriptors is not None:
            raise NotOpened(self.no_descriptors, "not opened", path)

    def alive(self) -> None:
        """Nothing works without power."""
        if self._dead:
            raise Crashed("the power is gone")

    def find(self, path: str) -> _Inode | _Folder:
        """The file or folder at `path`."""
        node: _Inode | _Folder | None = self.root
        for name in path.split("/"):
            if not name:
                continue
            if type(node) is not _Folder:
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            node = node.names.get(name)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return node

    def _folder(self, path: str) -> _Folder:
        node = self.find(path)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return node

    def _parent(self, path: str) -> tuple[_Folder, str]:
        self.alive()
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name


def _used(folder: _Folder) -> int:
    return sum(len(node.data) if isinstance(node, _Inode) else _used(node) for node in folder.names.values())


def _survive(folder: _Folder, keep: str, rng: random.Random) -> None:
    """Names are the synced ones, the current ones, or each the one or the other."""
    if keep == "all":
        names = folder.names
    elif keep == "none":
        names = folder.stable
    else:
        names = _mixed(folder, rng)
    folder.names = dict(names)
    folder.stable = dict(names)
    for node in folder.names.values():
        if isinstance(node, _Folder):
            _survive(node, keep, rng)
        else:
            node.survive(keep, rng)


def _mixed(folder: _Folder, rng: random.Random) -> dict[str, _Inode | _Folder]:
    """Each changed name for itself, but a file that moved is under one name at least, and a name is never doubled."""
    names: dict[str, _Inode | _Folder] = {}
    for name in sorted(folder.names.keys() | folder.stable.keys()):
        old, new = folder.stable.get(name), folder.names.get(name)
        node = old if old is new or rng.random() < 0.5 else new
        if node is not None:
            names[name] = node
    present = {id(node) for node in names.values()}
    for node in folder.stable.values():
        moved = [new for new, other in folder.names.items() if other is node]
        if id(node) not in present and moved:
            names[moved[0]] = node
    doubled: dict[int, str] = {}
    for name in list(names):
        first = doubled.setdefault(id(names[name]), name)
        if first != name:
            # a rename is one step: of its two names the new one is kept
            keep = name if name in folder.names else first
            del names[first if keep == name else name]
            doubled[id(names[keep])] = keep
    return names
