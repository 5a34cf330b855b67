"""The real disk: handles that open on use, whole writes, maps, locks."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kbroker.seams import NotOpened
from kbroker.storage import disk as disk_module
from kbroker.storage.disk import RealDisk


def test_a_handle_appends_where_the_file_ends_and_never_cuts_it(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"old")
    file = RealDisk().open(path, create=True)

    file.append([b"1", memoryview(b"23")])
    file.append([b"4"])

    assert b"old1234" == (tmp_path / "a").read_bytes()
    assert 7 == file.size


def test_more_parts_than_the_system_takes_are_written(tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    parts = [b"%d," % number for number in range(3000)]

    file.append(parts)

    assert b"".join(parts) == (tmp_path / "a").read_bytes()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(fd: int, parts: list[bytes], at: int) -> int:
        return os.pwrite(fd, b"".join(parts)[:2], at)

    monkeypatch.setattr(disk_module.os, "pwritev", short)
    file = RealDisk().open(str(tmp_path / "a"), create=True)

    file.append([b"abc", b"", b"defgh"])

    assert b"abcdefgh" == (tmp_path / "a").read_bytes()


def test_when_the_process_has_no_descriptors_left_idle_files_give_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk()
    first = disk.open(str(tmp_path / "a"), create=True)
    second = disk.open(str(tmp_path / "b"), create=True)
    second.close()
    really = os.open

    def scarce(*what: Any) -> int:
        if len(disk._open) >= 1:
            raise OSError(errno.EMFILE, "too many open files")
        return really(*what)

    monkeypatch.setattr(disk_module.os, "open", scarce)
    second.append([b"1"])
    first.append([b"2"])
    first._users = 1
    with pytest.raises(NotOpened):
        second.sync()
    with pytest.raises(NotOpened):
        disk.sync_dir(str(tmp_path))
    assert first in disk._open


def test_a_file_that_could_not_be_opened_for_a_write_is_closed_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk()
    file = disk.open(str(tmp_path / "a"), create=True)
    file.close()

    def scarce(*what: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(disk_module.os, "open", scarce)
        with pytest.raises(NotOpened):
            file.append([b"1"])
    file.sync()
    file.close()

    assert not disk._open


def test_descriptors_are_bounded_and_files_go_on_working(tmp_path: Path) -> None:
    disk = RealDisk(open_files_max=16)
    files = [disk.open(str(tmp_path / str(number)), create=True) for number in range(100)]
    for _ in range(2):
        for number, file in enumerate(files):
            file.append([b"%03d" % number])
            assert len(disk._open) <= 16
    for number, file in enumerate(files):
        assert b"%03d" % number * 2 == (tmp_path / str(number)).read_bytes()
        file.close()
    assert not disk._open


def test_threads_may_read_and_sync_while_the_loop_appends(tmp_path: Path) -> None:
    disk = RealDisk(open_files_max=2)
    files = [disk.open(str(tmp_path / str(number)), create=True) for number in range(6)]
    for file in files:
        file.append([b"x" * 100])
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                for file in files:
                    assert 100 == file.read_into(memoryview(bytearray(100)), 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        for file in files:
            file.append([b"y"])
    for thread in threads:
        thread.join(60)
    assert [] == errors


def test_reading_ends_at_the_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    file = RealDisk().open(str(tmp_path / "a"))
    view = memoryview(bytearray(10))

    assert 4 == file.read_into(view, 2)
    assert b"cdef" == bytes(view[:4])
    assert 0 == file.read_into(view, 6)
    assert 4 == file.read_into(view, 2, wait=False)


def test_a_map_grows_with_the_file_and_outlives_it(tmp_path: Path) -> None:
    file = RealDisk(maps_max=1).open(str(tmp_path / "a"), create=True)
    assert file.map(0) is None
    file.append([b"abc"])
    first = file.map(3)
    assert first is not None
    assert first is file.map(2)
    file.append([b"def"])
    second = file.map(6)
    assert second is not None
    assert b"abcdef" == bytes(second[:6])
    file.close()
    assert b"abc" == bytes(first[:3])
    assert file.map(7) is None


def test_a_lock_is_exclusive_until_released(tmp_path: Path) -> None:
    disk = RealDisk()
    held = disk.lock(str(tmp_path / "lock"))
    with pytest.raises(BlockingIOError):
        disk.lock(str(tmp_path / "lock"))
    held.release()
    held.release()
    disk.lock(str(tmp_path / "lock")).release()
