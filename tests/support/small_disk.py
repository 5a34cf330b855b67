"""A small file system to fill: ext4 on a loop device, or a tmpfs of limited size where there are no loop devices.

Both need root. Where neither can be mounted the test is skipped and says why.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LIMIT_S = 60


class SmallDisk:
    """Mounted at `path`; `fill` takes what is free, `free` gives it back."""

    def __init__(self, folder: Path, kind: str, size_mb: int) -> None:
        self.path = folder / "mounted"
        self.kind = kind
        self._ballast = self.path / "ballast"
        self.path.mkdir()
        if kind == "ext4":
            image = folder / "image"
            with image.open("wb") as file:
                file.truncate(size_mb << 20)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
            _run("mount", "-o", "loop", str(image), str(self.path))
        else:
            _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(self.path))

    def fill(self, leave: int = 0) -> None:
        """Leave `leave` bytes free, or as few as the file system lets."""
        block = bytes(64 << 10)
        with self._ballast.open("ab", buffering=0) as file:
            while (left := self.free_bytes() - leave) > 0:
                try:
                    file.write(block[:left])
                except OSError:
                    break
            if leave == 0:
                try:
                    while file.write(b"x"):
                        pass
                except OSError:
                    return

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)
        os.sync()  # ext4 frees the blocks of a deleted file when its journal commits

    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def unmount(self) -> None:
        _run("umount", str(self.path))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


def mounted(folder: Path, kind: str, size_mb: int) -> SmallDisk:
    """A small disk of this kind, or the test is skipped."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        return SmallDisk(folder, kind, size_mb)
    except OSError as error:
        pytest.skip(f"no small {kind} here: {error}")
