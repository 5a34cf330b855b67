"""One connection to one broker: negotiated versions, requests in order, answers in order. Knows no cluster."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Any, NamedTuple, TypeVar

from kbroker import __version__
from kbroker.cli.client import alerts
from kbroker.cli.client.errors import Disconnected, Silent, TooOld, Unreachable
from kbroker.cli.client.trust import why_not_accepted
from kbroker.errors import ErrorCode, ProtocolError
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages import APIS, RESPONSES
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kbroker.protocol.wire import Message

M = TypeVar("M", bound=Message)

CLIENT_ID = "kbroker-cli"
CONNECT_SECONDS_MAX = 10.0
# An answer that takes longer than this is given up, and the connection with it.
ANSWER_SECONDS_MAX = 40.0
# Bytes of answers that wait to be read before TCP pushes back. Asyncio's own 64 KiB costs a wake-up for each of them.
STREAM_BYTES = 1 << 20
# The largest answer that is read: Kafka's own limit of a request, 100 MiB, and some.
ANSWER_BYTES_MAX = 128 << 20


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Waiting(NamedTuple):
    correlation_id: int
    response: type[Message]
    version: int
    future: asyncio.Future[Any]


class Connection:
    """A connection that is open and knows the broker's versions. Make one with `connect`."""

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client_id: str
    ) -> None:
        self.address = address
        self.versions: dict[int, tuple[int, int]] = {}
        self._client_id = client_id
        self._reader, self._writer = reader, writer
        self._number = 0
        self._waiting: deque[_Waiting] = deque()
        self._failed: Exception | None = None
        self._reading = asyncio.create_task(self._read(), name=f"answers of {address}")

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._failed is None

    def version(self, request: type[Message], *, newest: int = 99, oldest: int = 0) -> int:
        """The newest version that both sides know, within bounds. TooOld where there is none."""
        ours, theirs = request.VALID, self.versions.get(request.API_KEY)
        if theirs is None:
            raise TooOld(f"the broker at {self.address} does not offer {APIS[request.API_KEY][1]}")
        version = min(ours[1], theirs[1], newest)
        if version < max(ours[0], theirs[0], oldest):
            raise TooOld(
                f"the broker at {self.address} speaks {APIS[request.API_KEY][1]} {theirs[0]} to {theirs[1]}, "
                f"and {max(ours[0], oldest)} to {min(ours[1], newest)} is needed: its Kafka is too old or too new"
            )
        return version

    async def ask(
        self, request: Message, *, newest: int = 99, oldest: int = 0, within: float = ANSWER_SECONDS_MAX
    ) -> Any:
        """The answer to a request. Disconnected when the connection ends first."""
        version = self.version(type(request), newest=newest, oldest=oldest)
        return await self._ask(request, version, within)

    async def tell(self, request: Message, *, newest: int = 99) -> None:
        """Send a request that is not answered: Produce with acks=0."""
        self._check()
        self._number += 1
        version = self.version(type(request), newest=newest)
        self._send(encode_request(request, version, self._number, self._client_id))
        await self._drain()

    async def _ask(self, request: Message, version: int, within: float) -> Any:
        self._check()
        self._number += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(self._number, RESPONSES[request.API_KEY], version, answer))
        self._send(encode_request(request, version, self._number, self._client_id))
        await self._drain()
        try:
            async with asyncio.timeout(
                within
            ):  # not wait_for, which may swallow a cancellation (Python 3.11)
                return await answer
        except TimeoutError:
            error = Silent(f"the broker at {self.address} did not answer within {within:.0f} s")
            self._fail(error)
            raise error from None

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _send(self, parts: list[Any]) -> None:
        for part in parts:
            self._writer.write(part)

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            self._fail(_ended(self.address, error))
            self._check()

    async def _read(self) -> None:
        reader = self._reader
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                if not 4 <= size <= ANSWER_BYTES_MAX:
                    raise Unreachable(
                        f"what answers at {self.address} is not Kafka: it sent {size:#010x} as a size"
                    )
                self._answer(memoryview(await reader.readexactly(size)))
        except (OSError, asyncio.IncompleteReadError) as error:
            self._fail(_ended(self.address, error))
        except ProtocolError as error:
            self._fail(Disconnected(f"the broker at {self.address} sent what cannot be read: {error}"))
        except (Unreachable, Disconnected) as error:
            self._fail(error)

    def _answer(self, frame: memoryview) -> None:
        if not self._waiting:
            raise Disconnected(f"the broker at {self.address} answered what nobody asked")
        waiting = self._waiting.popleft()
        version = waiting.version
        if waiting.response is ApiVersionsResponse and frame[4:6] == _UNSUPPORTED:
            version = 0  # a broker that does not know the version of ApiVersions answers in v0 (KIP-511)
        try:
            number, message = decode_response(waiting.response, version, frame)
        except ProtocolError:
            self._waiting.appendleft(waiting)
            raise
        if number != waiting.correlation_id:
            self._waiting.appendleft(waiting)
            raise Disconnected(
                f"the broker at {self.address} answered request {number} before {waiting.correlation_id}"
            )
        if not waiting.future.done():
            waiting.future.set_result(message)

    def _fail(self, error: Exception) -> None:
        if self._failed is None:
            self._failed = error
        self._writer.transport.abort()
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(self._failed)

    async def negotiate(self) -> None:
        """Ask for the versions the broker knows."""
        asked = ApiVersionsRequest(client_software_name="kbroker-cli", client_software_version=__version__)
        answer = await self._ask(asked, 3, CONNECT_SECONDS_MAX)
        if answer.error_code == ErrorCode.UNSUPPORTED_VERSION:
            answer = await self._ask(ApiVersionsRequest(), 0, CONNECT_SECONDS_MAX)
        self.versions = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}

    async def close(self) -> None:
        """End it."""
        self._fail(Disconnected(f"the connection to {self.address} is closed"))
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


_UNSUPPORTED = ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big")


def _ended(address: Address, error: Exception) -> Disconnected | Unreachable:
    alert = alerts.of(error)
    if alert is not None:  # under TLS 1.3 it comes after the handshake
        return Unreachable(_refused(address, *alert))
    if isinstance(error, OSError):
        return Disconnected(f"the connection to {address} broke: {words(error)}")
    return Disconnected(f"the broker at {address} closed the connection")


async def connect(address: Address, tls: ssl.SSLContext | None, client_id: str = CLIENT_ID) -> Connection:
    """An open connection that knows the broker's versions. Unreachable where that is not to be had."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=tls, limit=STREAM_BYTES
            )
    except (OSError, TimeoutError) as error:
        hint = _PLAIN_HINT if tls and isinstance(error, ConnectionResetError | ssl.SSLEOFError) else ""
        raise Unreachable(why_not(address, error) + hint) from None
    writer.transport.set_write_buffer_limits(high=4 * STREAM_BYTES)
    connection = Connection(address, reader, writer, client_id)
    try:
        await connection.negotiate()
    except Silent:
        await connection.close()
        cure = "is the broker hung?" if tls else "is the broker hung, or this a TLS listener (--tls)?"
        raise Unreachable(
            f"{address} did not answer within {CONNECT_SECONDS_MAX:.0f} s, though it takes connections; {cure}"
        ) from None
    except Disconnected as error:
        await connection.close()
        hint = f"; if {alerts.ASKS}, {alerts.GIVE}" if tls else "; if it is a TLS listener, say --tls"
        raise Unreachable(
            f"{address} takes connections but does not speak Kafka as asked{hint} ({error})"
        ) from None
    except BaseException:
        await connection.close()
        raise
    return connection


def _refused(address: Address, said: str, cure: str) -> str:
    return f"{address} ends the TLS connection: {said}; {cure}"


_PLAIN_HINT = "; if it is a listener without TLS, leave out --tls, and --ca, --cert and --key, which imply it"
_RENAME = "give a name that is in it, as -b or in the broker's advertised.listeners"


def why_not(address: Address, error: Exception) -> str:
    """Why a connection could not be made, in a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "; ".join(why_not_accepted(address, error, rename=_RENAME))
    alert = alerts.of(error)
    if alert is not None:
        return _refused(address, *alert)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        hint = _PLAIN_HINT if "wrong version number" in reason else ""
        return f"no TLS with {address}: {reason}{hint}"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {address}; is the broker running, and is this its address?"
    if isinstance(error, socket.gaierror):
        return f"the host {address.host!r} has no address ({error.strerror}); is this its name?"
    if isinstance(error, TimeoutError):
        return (
            f"{address} does not answer within {CONNECT_SECONDS_MAX:.0f} s; is this its address, and do firewalls let us "
            f"through to port {address.port}?"
        )
    return f"no connection to {address}: {words(error)}"


def words(error: Exception) -> str:
    """The system's words without its number."""
    if isinstance(error, ConnectionResetError):
        return "it closed the connection"  # asyncio's has no words
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
