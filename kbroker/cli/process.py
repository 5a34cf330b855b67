"""The process that `kbroker start` is: its descriptors and memory, its garbage collector, its signals, its loop.

It runs one `Node` and belongs to it alone; an embedded broker, whose process is somebody else's, uses nothing of this.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from random import SystemRandom

from kbroker.config import Settings
from kbroker.model import Endpoint
from kbroker.net.buffers import own_limit
from kbroker.net.loop import LoopClock, new_loop
from kbroker.net.threads import LoopThreads
from kbroker.node import Node
from kbroker.observe import logs
from kbroker.seams import Disk
from kbroker.server.listener import sockets_of
from kbroker.storage.disk import RealDisk, open_files_of
from kbroker.turn import Turn

log = logs.get_logger("node")

# Descriptors the broker would like: one per connection, and the files in use. The soft limit is often 1,024 where
# the hard one is 20,000 and more.
DESCRIPTORS_WANTED = 65_536


def run(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Run a broker in this thread until SIGTERM, SIGINT or SIGHUP. `on_ready` hears where it serves."""
    raise_descriptor_limit()
    descriptors = descriptor_limit()
    open_files = open_files_of(descriptors)
    turn = Turn()
    loop, net = new_loop(turn)

    async def serve() -> None:
        threads = LoopThreads(net)
        disk = RealDisk(open_files_max=open_files)
        node = Node(
            settings,
            net=net,
            turn=turn,
            clock=LoopClock(loop),
            threads=threads,
            disk=disk,
            random=SystemRandom(),
            request_bytes_max=own_limit(memory_bytes(disk)),
            sockets_max=sockets_of(descriptors, open_files),
            compact_in_process=True,
        )
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # as Java's Kafka
            loop.add_signal_handler(number, stopping.set)
        if settings.ignored:
            log.info("options without effect here", options=",".join(settings.ignored))
        if not await _started(node, stopping):
            log.info("stopped before it served", pid=os.getpid())
            return  # threads that sync what was recovered end with the process
        gc.freeze()  # what is here is here to stay: the collector need not look at it again
        gc.enable()
        on_ready(f"{_shown(node.endpoints)}, data in {settings.log_dir}")
        await stopping.wait()
        await node.stop()
        threads.stop()
        log.info("stopped", pid=os.getpid())

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serve())


async def _started(node: Node, stopping: asyncio.Event) -> bool:
    """Start it. False when `stopping` was set before it served: then it has let go of everything."""
    start, asked = asyncio.ensure_future(node.start()), asyncio.ensure_future(stopping.wait())
    await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    start.cancel()  # nothing, when it has ended
    try:
        await start
    except asyncio.CancelledError:
        return False
    return True


def _shown(endpoints: Iterable[Endpoint]) -> str:
    return ", ".join(
        f"{at.host or '0.0.0.0'}:{at.port}" + ("" if at.listener == "PLAINTEXT" else f" ({at.listener})")
        for at in endpoints
    )


# -- what the process has


def raise_descriptor_limit() -> None:
    """As many file descriptors as the hard limit allows, up to what a broker may want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return  # macOS allows no more than kern.maxfilesperproc: the soft limit stays


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def memory_bytes(disk: Disk) -> int:
    """Memory that this process may use: the machine's, or what its control group (a container) is given."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = disk.read("/sys/fs/cgroup/memory.max").strip()
    except OSError:  # not Linux, or not in a group of its own
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def process_age() -> float:
    """Seconds since this process began, the interpreter's own start included; to 10 ms."""
    if sys.platform == "linux":
        with open("/proc/self/stat", encoding="utf-8") as file:
            # after the name in parentheses, which may hold anything: the 20th field counts ticks since boot
            began_ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / os.sysconf("SC_CLK_TCK")
    return time.process_time()  # CPU time: a start waits for little else
