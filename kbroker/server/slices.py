"""Requests that ask for much: answered in slices, between which the loop serves others. Knows no API.

A handler says how by a generator: it yields where it may pause (None), or for what it has to wait, and returns the
response. What is there without a pause is answered at once, as by any other handler.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Generator, Hashable, Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from kbroker.net.slots import Slot
from kbroker.protocol.frames import encode_response_in_slices
from kbroker.protocol.wire import Message
from kbroker.server.rooms import Call, Pause, breathe

R = TypeVar("R", bound=Message)
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Steps = Generator[Awaitable[None] | None, None, R]

# Groups, names, partitions or offsets that are worked on in one go: one to five milliseconds.
SLICE = 1000

# What a request of very many things takes when it is decoded, and its response, in bytes for each byte of its frame.
DECODED_TIMES = 32


class Topic(Protocol):
    """A topic that a request names, with partitions."""

    partitions: Any


def are_many(topics: Sequence[Topic]) -> bool:
    """Whether these and their partitions are more than one slice."""
    return len(topics) + sum([len(topic.partitions) for topic in topics]) > SLICE


class Pace:
    """Counts what was worked on, and says when a slice is over."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = SLICE

    def over(self, worked: int = 1) -> bool:
        """So much more was worked on: whether to pause now."""
        self._left -= worked
        if self._left > 0:
            return False
        self._left = SLICE
        return True

    def all_of(self, steps: Generator[int, None, T]) -> Generator[None, None, T]:
        """What `steps` returns. It yields how much it has worked on since it began, or since it yielded last."""
        while True:
            try:
                worked = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if self.over(worked):
                yield

    def counted(self, things: Iterable[K]) -> Generator[None, None, Counter[K]]:
        """How often each of them comes."""
        left, times = iter(things), Counter[K]()
        while some := list(islice(left, SLICE)):
            times.update(some)
            if self.over(len(some)):
                yield
        return times


class Awaited(Generic[T]):
    """Called with what a generator waits for, once; awaited, it is there as `value`."""

    __slots__ = ("_called", "value")

    def __init__(self) -> None:
        self._called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.value: T

    def __call__(self, value: T) -> None:
        """Here it is."""
        if not self._called.done():  # cancelled: nobody waits any more
            self.value = value
            self._called.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        return self._called.__await__()


def result_of(work: Awaitable[T]) -> Generator[Awaitable[None], None, T]:
    """Steps that wait for `work`, and return what it does."""
    results: list[T] = []

    async def wait() -> None:
        results.append(await work)

    yield wait()
    return results[0]


async def at_once(steps: Steps[R]) -> R:
    """The response of steps that are too few to pause; what they wait for is waited for, and others of the connection
    are served meanwhile."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                response: R = end.value
                return response
            if step is not None:
                await step


class Large(Generic[R]):
    """A response of so many parts that it is encoded in slices, too. Until then its connection is not read from."""

    __slots__ = ("_pause", "response")

    def __init__(self, response: R, pause: Pause) -> None:
        self.response = response
        self._pause = pause

    async def fill(self, slot: Slot) -> None:
        """Encode it into its slot, and read on."""
        try:
            connection = slot.connection
            assert connection is not None, "bound by the dispatcher"
            if connection.stamp is not None:
                connection.stamp(self.response)
            with closing(
                encode_response_in_slices(self.response, slot.version, slot.correlation_id)
            ) as steps:
                while connection.open:
                    try:
                        next(steps)
                    except StopIteration as end:
                        return slot.fill_bytes(end.value)
                    await breathe()
        finally:
            self.end()

    def end(self) -> None:
        """Read on."""
        self._pause.end()


def in_slices(call: Call, steps: Steps[R], pause: Pause | None = None) -> R | Coroutine[Any, Any, Large[R]]:
    """What a handler returns: the response where `steps` has it without a pause, else what takes the rest of them.

    The connection is not read from meanwhile: what came behind the request must not overtake it; and what was made of
    its frame counts as memory in use until then. `pause`: one that `steps` knows, and drops the frame of before.
    """
    try:
        first = next(steps)
    except StopIteration as end:
        response: R = end.value
        if pause is not None:
            pause.end()
        return response
    except BaseException:
        if pause is not None:
            pause.end()
        raise
    return _rest(first, steps, pause or Pause(call.connection, times=DECODED_TIMES))


async def _rest(step: Awaitable[None] | None, steps: Steps[R], pause: Pause) -> Large[R]:
    try:
        # Closed, not dropped: a compiled generator that is dropped does not come to its `finally`.
        with closing(steps):
            while True:
                await (breathe() if step is None else step)
                try:
                    step = next(steps)
                except StopIteration as end:
                    return Large(end.value, pause)
    except BaseException:
        pause.end()
        raise
