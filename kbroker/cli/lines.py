"""Lines of stdin, in chunks as they come: a daemon thread reads, so that Ctrl-C need not wait for a line."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator

# Bytes that are taken together: a batch of a partition is made of one chunk, and brokers take 1 MiB by default.
CHUNK_BYTES = 640 << 10
# Chunks read and not yet taken; beyond it reading waits.
CHUNKS_MAX = 4
# A line may not be longer: it must fit into a request. Kafka's socket.request.max.bytes is as much.
LINE_BYTES_MAX = 100 << 20


class LineTooLong(Exception):
    """A line that fits into no request."""


async def read_lines(fd: int) -> AsyncIterator[tuple[list[bytes], bool]]:
    """Lists of lines without their ends, and whether more is there already. The last line may lack its end."""
    rest = b""
    async for chunk, more in _read_chunks(fd):
        lines = (rest + chunk if rest else chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > LINE_BYTES_MAX:
            raise LineTooLong
        if lines:
            yield lines, more
    if rest:
        yield [rest], False


async def _read_chunks(fd: int) -> AsyncIterator[tuple[bytes, bool]]:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | Exception] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_MAX)

    def put(chunk: bytes | Exception) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    def read() -> None:
        try:
            while True:
                room.acquire()
                chunk = _read_some(fd)
                put(chunk)
                if not chunk:
                    return
        except RuntimeError:
            return  # the loop is closed: nobody listens any more
        except Exception as error:  # noqa: BLE001 - whoever waits for lines must hear of it, or waits for ever
            put(error)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while True:
        chunk = await chunks.get()
        room.release()
        if isinstance(chunk, Exception):
            raise chunk
        if not chunk:
            return
        yield chunk, not chunks.empty()


def _read_some(fd: int) -> bytes:
    """What is there, up to a chunk; waits only while there is nothing. Pipes give 64 KiB at a time."""
    chunk = os.read(fd, CHUNK_BYTES)
    if not chunk or len(chunk) >= CHUNK_BYTES // 2:
        return chunk
    pieces, size = [chunk], len(chunk)
    more = select.poll()  # `select.select` takes no descriptor above 1,023
    more.register(fd, select.POLLIN)
    while size < CHUNK_BYTES and more.poll(0):
        chunk = os.read(fd, CHUNK_BYTES - size)
        if not chunk:
            break  # the next read says so again
        pieces.append(chunk)
        size += len(chunk)
    return b"".join(pieces)
