"""The machine: what a process costs, what the disk can do, what all this runs on. Linux only (/proc)."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MB = 1_000_000

# Left alone when memory is touched: the system and the other processes need some.
SPARE_BYTES = 2_000 * MB


def cpu_s(pid: int) -> float:
    """CPU seconds that a process, all its threads included, has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_s() -> float:
    """CPU seconds that the whole machine has worked, or was kept from working by its host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


class Others:
    """What everything but us and some processes did with the machine since this was made."""

    __slots__ = ("_begin", "_pids")

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._begin = self._now()

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), busy_s() - sum(map(cpu_s, self._pids)) - time.process_time()

    def share(self) -> float:
        """Of all cores, 0 to 1. The kernel's own threads, which write pages back, are among the others."""
        wall, others = (now - then for now, then in zip(self._now(), self._begin, strict=True))
        return others / wall / (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a process holds: resident, and with shared pages counted by share."""

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    return Memory(sizes["Rss"], sizes["Pss"])


def free_memory() -> int:
    """Bytes that could be allocated now, as the system and the control group see it."""
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # no limit, or no control groups
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    return free


TOUCH = """
import mmap, sys
size, piece = int(sys.argv[1]), 64 << 20
block = b"\\1" * piece
with mmap.mmap(-1, size) as area:
    for at in range(0, size - piece, piece):
        area[at : at + piece] = block
"""


def touch_memory() -> int:
    """Allocate and write nearly all free memory once, then release it; returns how many bytes.

    A virtual machine gets its memory from the host at first touch: a broker that writes to a page cache never used
    before pays several times as much for each byte, and the one measured first would pay for both.
    """
    size = free_memory() - SPARE_BYTES
    if size < 256 * MB:
        return 0
    # In a process of its own, which gives everything back, and which the system may kill where it promised too much.
    done = subprocess.run([sys.executable, "-c", TOUCH, str(size)], timeout=300)
    return size if done.returncode == 0 else 0


def allow_many_files(count: int) -> None:
    """Raise our own limit of open files, which the brokers inherit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(count, 20_000)), hard))
    if hard < count:
        raise RuntimeError(f"the hard limit of open files is {hard}, {count} are needed: see ulimit -Hn")


def synced_appends(
    folder: Path, payload: bytes, *, seconds: float, files: int = 6, threads: int = 4
) -> float:
    """Appends a second that four threads reach which each append and fdatasync, one file after the other."""
    counts = [0] * threads
    with _open_files(folder, files) as (handles, locks):
        until = time.perf_counter() + seconds

        def work(thread: int) -> None:
            turn = thread
            while time.perf_counter() < until:
                with locks[turn % files]:
                    os.write(handles[turn % files], payload)
                    os.fdatasync(handles[turn % files])
                counts[thread] += 1
                turn += threads

        _run_threads(work, threads)
    return sum(counts) / seconds


def grouped_appends(
    folder: Path, payload: bytes, *, seconds: float, files: int = 6, threads: int = 4, group: int = 16
) -> float:
    """Appends a second when `group` of them are written, all files synced by four threads, and again."""
    done, over = 0, False
    with _open_files(folder, files) as (handles, _):
        until = time.perf_counter() + seconds

        def append() -> None:
            nonlocal done, over
            over = time.perf_counter() >= until
            if not over:
                for i in range(group):
                    os.write(handles[i % files], payload)
                done += group

        begin = threading.Barrier(threads, action=append)

        def work(thread: int) -> None:
            while begin.wait(60) >= 0 and not over:
                for i in range(thread, files, threads):
                    os.fdatasync(handles[i])

        _run_threads(work, threads)
    return done / seconds


@contextlib.contextmanager
def _open_files(folder: Path, count: int):  # type: ignore[no-untyped-def]
    paths = [folder / f"append.{i}" for i in range(count)]
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND
    handles = [os.open(path, flags, 0o600) for path in paths]
    try:
        yield handles, [threading.Lock() for _ in paths]
    finally:
        for handle, path in zip(handles, paths, strict=True):
            os.close(handle)
            path.unlink()


def _run_threads(work, count: int) -> None:  # type: ignore[no-untyped-def]
    running = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def facts() -> dict[str, str]:
    """What a reader of the figures needs to know about where they come from."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "java": _java(),
        "load": " ".join(f"{x:.2f}" for x in os.getloadavg()) + " (1, 5, 15 min, before)",
    }


PYTHON_FACTS = """
import platform, sys
print(platform.python_implementation(), platform.python_version(), getattr(sys, "_base_executable", sys.executable))
"""


def python_facts(python: str) -> str:
    """Which Python. One that was built without profile-guided optimisation is a quarter slower than the system's."""
    done = subprocess.run([python, "-c", PYTHON_FACTS], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"{python} does not run: {done.stderr}")
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.system()


def _java() -> str:
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30)
    except OSError:
        return "none"
    return done.stderr.splitlines()[0] if done.stderr else "unknown"
