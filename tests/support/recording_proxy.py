"""A TCP proxy on loopback that notes which Kafka requests pass: who asked, which API, which version. Changes nothing.

Knows the frame and the first fields of the request header; knows nothing of bodies.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

HEADER = struct.Struct(">hhih")  # api key, version, correlation id, length of the client id (-1: null)
FRAME_PREFIX_MAX = 4 + HEADER.size + 255  # bytes of a frame we look at: a longer client id is cut


class Request(NamedTuple):
    """One request that passed."""

    connection: int
    api_key: int
    version: int
    client_id: str | None


class RecordingProxy:
    """Listens on 127.0.0.1:`port` (0: any) and forwards to `target`; `requests` grows in the order of arrival.

    A proxy outlives its target: connections to a target that is down are closed, later ones tried again.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self._target = target
        self._arrived = threading.Condition()
        self._requests: list[Request] = []
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recording-proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        self._loop.close()

    def mark(self) -> int:
        """The number of requests so far: pass it to `since` or `wait_for`."""
        with self._arrived:
            return len(self._requests)

    def since(self, mark: int) -> list[Request]:
        """The requests after `mark`."""
        with self._arrived:
            return self._requests[mark:]

    def wait_for(self, wanted: Callable[[Request], bool], *, mark: int = 0, limit: float = 20.0) -> Request:
        """The first request after `mark` that is `wanted`; AssertionError when none came within `limit` seconds."""
        with self._arrived:
            self._arrived.wait_for(lambda: any(map(wanted, self._requests[mark:])), limit)
            for request in self._requests[mark:]:
                if wanted(request):
                    return request
        raise AssertionError(f"no such request within {limit} s; since the mark: {self.since(mark)}")

    def _run(self, work):  # type: ignore[no-untyped-def]  # any coroutine, its own result
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        try:
            await self._forward(self._connections, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a side went away, or we stop: both ends are closed below
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _forward(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(*self._target)
        frames = _Frames(lambda *fields: self._note(Request(number, *fields)))
        pumps = [
            asyncio.ensure_future(_pump(reader, broker_writer, frames.feed)),
            asyncio.ensure_future(_pump(broker_reader, writer, lambda data: None)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            broker_writer.close()

    def _note(self, request: Request) -> None:
        with self._arrived:
            self._requests.append(request)
            self._arrived.notify_all()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
) -> None:
    while data := await reader.read(1 << 18):
        look(data)
        writer.write(data)
        await writer.drain()


class _Frames:
    """Cuts a stream into frames and reports each one's header; keeps only the first bytes of a frame."""

    def __init__(self, report: Callable[[int, int, str | None], None]) -> None:
        self._report = report
        self._head = bytearray()
        self._skip = 0  # bytes of the present frame still to pass unseen

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._skip:
                passed = min(self._skip, len(view))
                self._skip -= passed
                view = view[passed:]
                continue
            taken = self._wanted() - len(self._head)
            self._head += view[:taken]
            view = view[taken:]
            if len(self._head) == self._wanted():
                self._finish()

    def _wanted(self) -> int:
        if len(self._head) < 4:
            return 4
        return min(4 + int.from_bytes(self._head[:4], "big"), FRAME_PREFIX_MAX)

    def _finish(self) -> None:
        if len(self._head) < 4 or (len(self._head) == 4 and int.from_bytes(self._head, "big") > 0):
            return
        size = int.from_bytes(self._head[:4], "big")
        self._skip = 4 + size - len(self._head)
        if size >= HEADER.size:
            key, version, _, length = HEADER.unpack_from(self._head, 4)
            start = 4 + HEADER.size
            name = (
                None if length < 0 else bytes(self._head[start : start + length]).decode("utf-8", "replace")
            )
            self._report(key, version, name)
        self._head.clear()
