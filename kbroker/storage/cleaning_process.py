"""A round of compaction in a process of its own, at low priority: Python runs one thread at a time, and the loop needs it.

The job goes to its stdin as one line of JSON, each outcome comes from its stdout as one. Its stdin stays open as long
as the broker lives: when that ends, whatever the reason, so does the process.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from typing import NoReturn

import msgspec

from kbroker.storage.cleaning import Cleaned, Finished, Job, Outcome, Stopped, Uncleanable, clean
from kbroker.storage.disk import RealDisk
from kbroker.storage.rounds import Pacer

# Added to the process's niceness: whoever serves clients goes first.
NICENESS = 5


class Task(msgspec.Struct, frozen=True):
    """What the process is told."""

    job: Job
    per_second: float  # bytes


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not go on."""

    why: str
    errno: int  # 0: it is no error of the system
    uncleanable: bool


_ANSWER = msgspec.json.Decoder(Cleaned | Finished | Failed)


class ProcessRound:
    """The broker's side of it."""

    def __init__(self, job: Job, per_second: float) -> None:
        self._task = msgspec.json.encode(Task(job, per_second)) + b"\n"
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def next(self) -> Outcome:
        if self._stopped:
            raise Stopped
        process = self._process
        if process is None:
            process = self._process = self._start()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            status = self._reap(process)
            if self._stopped:
                raise Stopped
            raise OSError(f"the process that compacts ended with status {status}")
        answer = _ANSWER.decode(line)
        if isinstance(answer, Cleaned):
            return answer
        self._reap(process)
        if isinstance(answer, Finished):
            return answer
        if answer.uncleanable:
            raise Uncleanable(answer.why)
        raise OSError(answer.errno, answer.why)

    def stop(self) -> None:
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        self.stop()
        if self._process is not None:
            self._reap(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own: Ctrl-C is for the broker
        process = subprocess.Popen(
            command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        try:
            process.stdin.write(self._task)
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: reading its answer tells so
        if self._stopped:
            process.kill()
        return process

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        return process.wait()


def command() -> list[str]:
    """What starts the process. It imports from where this one does: `-m` would add the working directory before that."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    return [
        sys.executable,
        "-c",
        code,
        "kbroker compaction",
    ]  # the last one is for whoever looks at processes


def main() -> None:
    """The process."""
    os.nice(NICENESS)
    gc.disable()  # nothing here makes cycles, and there are millions of keys to look at in vain
    task = msgspec.json.decode(_read_line(), type=Task)
    threading.Thread(target=_end_with_the_broker, daemon=True).start()
    pacer = Pacer(task.per_second, time.monotonic, time.sleep)
    try:
        for outcome in clean(RealDisk(), task.job, pacer.took):
            _tell(outcome)
    except Uncleanable as error:
        _tell(Failed(str(error), 0, True))
    except OSError as error:
        _tell(Failed(error.strerror or str(error), error.errno or 0, False))


def _read_line() -> bytes:
    """One line of stdin, unbuffered: a thread that waits in a buffer's lock would keep the process from ending."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit("the broker is gone")
        line += part
    return bytes(line)


def _tell(answer: Outcome | Failed) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_broker() -> NoReturn:
    while os.read(0, 1):
        pass
    os._exit(0)  # the other thread may be anywhere: what it made is removed by the next start
