"""From a frame to its handler and back: headers, versions, answers in order.

One of the doors where errors are caught: whatever a handler lets escape ends that request's connection with one log
line, never the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from struct import Struct as Layout
from typing import TYPE_CHECKING, Any, Protocol

from kbroker.errors import KafkaError, ProtocolError
from kbroker.net.connection import Connection
from kbroker.net.slots import Slot
from kbroker.observe import logs
from kbroker.protocol.codec import decoder_of
from kbroker.protocol.frames import decode_request_header, encode_response, flexible_from
from kbroker.protocol.messages import APIS as NAMES
from kbroker.protocol.messages import REQUESTS
from kbroker.protocol.wire import Message
from kbroker.server.apis import API_VERSIONS, Api, advertised
from kbroker.server.handlers.api_versions import unsupported_version
from kbroker.server.rooms import NO_RESPONSE, Call, Rooms
from kbroker.server.slices import Large

if TYPE_CHECKING:
    from kbroker.server.lanes import Lane

log = logs.get_logger("server")

# A connection that left its lane this often changes between partitions: it gets none any more.
LANES_LOST_MAX = 16

# api key and version as one number, correlation id, size of the client id (-1: null): every request header begins so
_HEADER = Layout(">Iih")


class Serves(Protocol):
    """Whoever a listener's connections belong to: a `Dispatcher`."""

    def on_frame(self, connection: Connection, buffer: memoryview, start: int, end: int) -> None: ...

    def on_close(self, connection: Connection) -> None: ...


class Peer:
    """What is known of a connection's other end."""

    __slots__ = (
        "client_bytes",
        "client_id",
        "dispatcher",
        "ip",
        "lane",
        "lanes_lost",
        "listener",
        "lost",
        "principal",
    )

    def __init__(
        self,
        listener: str,
        principal: str,
        *,
        ip: str = "",
        dispatcher: Serves | None = None,
    ) -> None:
        self.listener = listener
        self.principal = principal
        self.ip = ip
        self.dispatcher = dispatcher
        self.client_bytes = b""  # the client id as it came in the latest request
        self.client_id: str | None = None
        self.lane: Lane | None = None  # where its next Produce probably goes
        self.lanes_lost = 0  # lanes that the next Produce left
        # answers to come that want to know when the connection ends
        self.lost: dict[Slot, None] | None = None


class _Row:
    """One API in one version, ready to serve."""

    __slots__ = ("decode", "flexible", "handler", "key", "lane_of", "version")

    def __init__(self, key: int, version: int, api: Api) -> None:
        self.key = key
        self.version = version
        self.handler, self.lane_of = api.load()
        self.decode: Callable[[memoryview], Any] = decoder_of(REQUESTS[key], version)
        self.flexible = version >= flexible_from(key)


class Dispatcher:
    """Serves the frames of this broker's connections with its rooms."""

    def __init__(
        self,
        rooms: Rooms,
        apis: Mapping[int, Api],
        *,
        start_task: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._rooms = rooms
        self._apis = apis
        self._start_task = start_task
        self._quotas = rooms.quotas
        self._rows: dict[int, _Row] = {}  # by key << 16 | version, made when first asked for

    def on_frame(self, connection: Connection, buffer: memoryview, start: int, end: int) -> None:
        """Serve one frame: decode, hand over, queue the answer."""
        key_and_version, correlation_id, client_size = _HEADER.unpack_from(buffer, start)
        peer: Peer = connection.context
        lane = peer.lane
        if lane is not None and lane.key_and_version == key_and_version:
            if lane.take(connection, buffer, start, end, correlation_id):
                return
            peer.lane = None
            peer.lanes_lost += 1
        row = self._rows.get(key_and_version)
        if row is None:
            row = self._new_row(connection, buffer, start, end)
            if row is None:
                return
        body = start + _HEADER.size
        if client_size > 0:
            client = buffer[body : body + client_size]
            body += client_size
            if client != peer.client_bytes:
                peer.client_bytes = bytes(client)
                peer.client_id = decode_request_header(buffer, start, end).client_id
        elif peer.client_bytes:
            peer.client_bytes, peer.client_id = b"", None
        if row.flexible:
            if body < end and buffer[body] == 0:
                body += 1
            else:
                body = decode_request_header(buffer, start, end).body
        elif body > end:  # what lies behind a frame is somebody else's
            raise ProtocolError(f"client id of {client_size} bytes in a request of {end - start} bytes")
        call = Call(row.version, peer, connection)
        quotas = self._quotas
        began = quotas.now() if quotas.timed else 0.0
        try:
            request = row.decode(buffer[body:end])
            answer = row.handler(self._rooms, call, request)
            if isinstance(answer, Message):
                if began:
                    quotas.handled(call, quotas.now() - began)
                if connection.stamp is not None:
                    connection.stamp(answer)
                return connection.put(encode_response(answer, row.version, correlation_id))
        except ProtocolError:
            raise
        except KafkaError as error:
            return self._give_up(connection, call, row, error)
        except Exception as error:  # noqa: BLE001 - a door: one request's failure ends its connection, nothing else
            return self._broken(connection, call, row, error)
        if began and (type(answer) is Slot or answer is NO_RESPONSE):
            quotas.handled(call, quotas.now() - began)
        if type(answer) is Slot:
            if answer.on_lost is not None or answer.response is not None:
                self._bind(connection, row.version, correlation_id, answer)
            else:
                answer.connection = connection
                answer.version = row.version
                answer.correlation_id = correlation_id
            connection.put(answer)
            if (
                row.lane_of is not None
                and peer.lane is None
                and peer.lanes_lost < LANES_LOST_MAX
                and not (quotas.active and quotas.concerns(call))  # a lane counts nothing
            ):
                peer.lane = row.lane_of(self._rooms, row.version, request, buffer, start, end)
        elif answer is not NO_RESPONSE:
            slot = Slot()
            slot.bind(connection, row.version, correlation_id)
            connection.put(slot)
            work: Any = answer
            if began:
                work = quotas.measured(call, work)
            self._start_task(
                self._await(connection, slot, call, row, work), f"{NAMES[row.key][1]} {connection.peer}"
            )

    def _bind(self, connection: Connection, version: int, correlation_id: int, slot: Slot) -> None:
        if slot.on_lost is not None:
            peer: Peer = connection.context
            lost = peer.lost
            if lost is None:
                lost = peer.lost = {}
            while lost and (oldest := next(iter(lost))).answer is not None:
                del lost[oldest]  # answered: nothing to lose, and a poll every second must not add up
            lost[slot] = None
        slot.bind(connection, version, correlation_id)

    async def _await(self, connection: Connection, slot: Slot, call: Call, row: _Row, answer: Any) -> None:
        """See an async handler to its end. What it returns may itself be an answer to come."""
        try:
            response = await answer
            if type(response) is Slot:
                if connection.open:
                    self._bind(connection, row.version, slot.correlation_id, response)
                    connection.replace(slot, response)
                elif response.on_lost is not None:
                    response.on_lost()
            elif type(response) is Large:
                await response.fill(slot)
            elif response is NO_RESPONSE:
                slot.fill_bytes(b"")
            else:
                slot.fill(response)
        except KafkaError as error:
            self._give_up(connection, call, row, error)
        except Exception as error:  # noqa: BLE001 - a door: one request's failure ends its connection, nothing else
            self._broken(connection, call, row, error)

    def _new_row(self, connection: Connection, buffer: memoryview, start: int, end: int) -> _Row | None:
        """The row of an API and version that is asked for the first time; None: answered, it is not served."""
        header = decode_request_header(buffer, start, end)
        key, version = header.api_key, header.api_version
        api = self._apis.get(key)
        if api is None or not api.served[0] <= version <= api.served[1]:
            self._unserved(connection, key, version, header.correlation_id, header.client_id)
            return None
        row = self._rows[key << 16 | version] = _Row(key, version, api)
        return row

    def _unserved(
        self, connection: Connection, key: int, version: int, correlation_id: int, client_id: str | None
    ) -> None:
        if key == API_VERSIONS:
            # KIP-511: never close here; the v0 layout with our range tells the client how to ask again
            response = unsupported_version(advertised(self._apis))
            return connection.put(encode_response(response, 0, correlation_id))
        name = NAMES[key][1] if key in NAMES else f"api key {key}"
        api = self._apis.get(key)
        have = f"versions {api.served[0]}-{api.served[1]}" if api else "not served"
        raise ProtocolError(
            f"{name} version {version} from client id {client_id!r}: {have}; "
            "use a client that asks ApiVersions first, or docs/not-supported.md says what is missing"
        )

    def _give_up(self, connection: Connection, call: Call, row: _Row, error: KafkaError) -> None:
        log.info(
            "connection closed: the request's error has no other answer",
            api=NAMES[row.key][1],
            peer=connection.peer,
            client_id=call.client_id,
            error=str(error),
        )
        connection.close(None)

    def _broken(self, connection: Connection, call: Call, row: _Row, error: BaseException) -> None:
        log.exception(
            "request failed",
            error,
            api=NAMES[row.key][1],
            version=row.version,
            peer=connection.peer,
            client_id=call.client_id,
        )
        connection.close(None)

    def on_close(self, connection: Connection) -> None:
        """The connection ended: whoever would answer it later learns so."""
        self._quotas.mutes.forget(connection)
        peer: Peer = connection.context
        lost, peer.lost = peer.lost, None
        for slot in lost or ():
            if slot.answer is None and slot.on_lost is not None:
                try:
                    slot.on_lost()
                except Exception as error:  # a door: the others would wait for nobody for ever
                    log.exception(
                        "whoever was to answer failed to hear that the connection ended",
                        error,
                        peer=connection.peer,
                    )
